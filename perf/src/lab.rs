//! Where a run takes place: programs, CPUs, files, and how much of everything is wanted.

use crate::case::Side;
use crate::{Error, host};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Names of the directories of runs begin so; the number of the process follows.
const PREFIX: &str = "ringvisor-perf-";

/// The surroundings of a run.
pub struct Lab {
    ringvisor: PathBuf,
    peer: Option<PathBuf>,
    quick: bool,
    cpus: Vec<usize>,
    dir: TempDir,
    commands: RefCell<Vec<String>>,
}

/// Which CPUs the program under test and its client may use.
#[derive(Clone, Debug)]
pub struct Placement {
    /// For names of cases.
    pub name: &'static str,
    /// Those of the program under test.
    pub server: Vec<usize>,
    /// Those of this process.
    pub client: Vec<usize>,
}

impl Lab {
    /// With these programs; files go to a directory that ends with it, which lies on the disk that `TMPDIR` names.
    pub fn new(ringvisor: PathBuf, peer: Option<PathBuf>, quick: bool) -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent);
        let dir = dir.map_err(|e| Error::io("temporary directory", e))?;
        let path = dir.path().join("guest.elf");
        std::fs::write(&path, guest::EMBEDDED).map_err(|e| Error::io("guest.elf", e))?;
        let cpus = host::allowed_cpus()?;
        Ok(Self { ringvisor, peer, quick, cpus, dir, commands: RefCell::default() })
    }

    /// The program of a side; `None` for a side that is none, or without a peer.
    pub fn program(&self, side: Side) -> Option<&Path> {
        match side {
            Side::Ours => Some(&self.ringvisor),
            Side::Peer => self.peer.as_deref(),
            Side::Limit => None,
        }
    }

    /// Whether there is a peer.
    pub fn has_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// `full`, or a tenth of it in a quick run; one at least.
    pub fn scaled(&self, full: u32) -> u32 {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// Whether only a rough look is wanted.
    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// The CPUs that may be used.
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Where files go.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The embedded guest.
    pub fn guest(&self) -> PathBuf {
        self.dir.path().join("guest.elf")
    }

    /// A new name in the directory.
    pub fn fresh(&self, stem: &str) -> Result<PathBuf, Error> {
        let name = tempfile::Builder::new().prefix(stem).tempdir_in(self.dir.path());
        Ok(name.map_err(|e| Error::io("temporary directory", e))?.keep())
    }

    /// Everything on one CPU: a wake-up of another one costs more than most of what is measured.
    pub fn one_cpu(&self) -> Placement {
        let first = vec![self.cpus[0]];
        Placement { name: "one CPU", server: first.clone(), client: first }
    }

    /// The program on a CPU of its own, the client on another; on the same where there is one.
    pub fn two_cpus(&self) -> Placement {
        let (first, last) = (self.cpus[0], self.cpus[self.cpus.len() - 1]);
        Placement { name: "two CPUs", server: vec![last], client: vec![first] }
    }

    /// Anything anywhere.
    pub fn any_cpu(&self) -> Placement {
        Placement { name: "any CPU", server: self.cpus.clone(), client: self.cpus.clone() }
    }

    /// Keeps a command line for the results, once, with this run's directory written as `DIR`.
    pub fn note_command(&self, command: &str) {
        let text = command.replace(&self.dir.path().display().to_string(), "DIR");
        let text = generic(&text);
        let mut commands = self.commands.borrow_mut();
        if !commands.contains(&text) {
            commands.push(text);
        }
    }

    /// The command lines so far.
    pub fn commands(&self) -> Vec<String> {
        self.commands.borrow().clone()
    }
}

/// Removes the directories of runs that were killed.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Somebody else's, perhaps: then it stays.
            let _removed = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Without what differs from one start to the next: the random part of directory names.
fn generic(text: &str) -> String {
    let mut parts = text.split("DIR/vm-");
    let mut result = parts.next().unwrap_or("").to_owned();
    for part in parts {
        result.push_str("DIR/vm");
        result.push_str(part.find('/').map_or("", |at| &part[at..]));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_has_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let own = format!("{PREFIX}{}-abc", std::process::id());
        let names = [&format!("{PREFIX}4194305-abc"), &own, "other", PREFIX];
        for name in names {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        sweep(parent.path());
        let left = names.map(|name| parent.path().join(name).exists());
        assert_eq!(left, [false, true, true, true], "no process has a number above 4194304");
    }

    #[test]
    fn commands_are_kept_once() {
        let lab = Lab::new("/bin/true".into(), None, true).unwrap();
        for _ in 0..2 {
            let socket = lab.fresh("vm-").unwrap().join("qmp0");
            lab.note_command(&format!("x -qmp unix:{} -S", socket.display()));
        }
        assert_eq!(lab.commands(), ["x -qmp unix:DIR/vm/qmp0 -S"]);
        assert!(lab.guest().exists());
        assert_eq!((lab.scaled(100), lab.scaled(3)), (10, 1));
        assert!(lab.program(Side::Peer).is_none() && !lab.has_peer());
    }
}
