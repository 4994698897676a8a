//! A VMM as a child process: the same machine on both sides, in the language both speak.

use crate::case::Side;
use crate::lab::Lab;
use crate::qmp::Qmp;
use crate::{Error, host};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start, or what a guest does, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A machine to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    args: Vec<String>,
    memory_mib: u32,
    monitors: usize,
    listening: bool,
    kernel: Option<(PathBuf, String)>,
    cpus: Vec<usize>,
}

impl Setup {
    /// A `pc` of 256 MiB with one monitor, whose vCPU does not start, on these CPUs.
    pub fn new(cpus: &[usize]) -> Self {
        let cpus = cpus.to_vec();
        let (memory_mib, monitors) = (256, 1);
        Self { args: Vec::new(), memory_mib, monitors, listening: false, kernel: None, cpus }
    }

    /// With these arguments, which mean the same on both sides.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With so many monitors, each a connection of its own.
    #[must_use]
    pub fn monitors(mut self, count: usize) -> Self {
        self.monitors = count;
        self
    }

    /// With one more monitor, that listens: [`Vmm::socket`].
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.listening = true;
        self
    }

    /// With a PVH kernel, which runs, and its command line; the console is connected.
    #[must_use]
    pub fn kernel(mut self, kernel: PathBuf, append: &str) -> Self {
        self.kernel = Some((kernel, append.to_owned()));
        self
    }

    fn command(&self, lab: &Lab, side: Side, dir: &Path) -> Result<Vec<String>, Error> {
        let program = lab.program(side).ok_or_else(|| Error::unexpected("this side is no VMM"))?;
        let mut words = vec![program.display().to_string()];
        let mut add = |text: &str| words.extend(text.split(' ').map(str::to_owned));
        add("-nodefaults -display none -machine pc -accel kvm");
        add(&format!("-m {}", self.memory_mib));
        if let (Side::Peer, Some(_)) = (side, &self.kernel) {
            // The guest needs x2APIC. The bit is off because some hosts refuse its register, firmware is the quickest there is.
            add("-cpu host,-arch-capabilities -bios qboot.rom");
        }
        for n in 0..self.monitors {
            add(&format!("-qmp unix:{}", dir.join(format!("qmp{n}")).display()));
        }
        if self.listening {
            add(&format!("-qmp unix:{},server=on,wait=off", dir.join("listen").display()));
        }
        match &self.kernel {
            Some((kernel, append)) => {
                add(&format!("-serial stdio -kernel {}", kernel.display()));
                words.extend(["-append".to_owned(), append.clone()]);
            }
            None => add("-S"),
        }
        words.extend(self.args.iter().cloned());
        Ok(words)
    }

    /// Starts it and waits for the greetings of all monitors.
    pub fn start(&self, lab: &Lab, side: Side) -> Result<Vmm, Error> {
        let dir = lab.fresh("vm-")?;
        let listeners: Result<Vec<UnixListener>, Error> =
            (0..self.monitors).map(|n| listen(&dir.join(format!("qmp{n}")))).collect();
        let listeners = listeners?;
        let words = self.command(lab, side, &dir)?;
        lab.note_command(&shown(&words));
        let errors = File::create(dir.join("stderr")).map_err(|e| Error::io("stderr", e))?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stderr(errors);
        if self.kernel.is_some() {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let before = host::allowed_cpus()?;
        let begun = Instant::now();
        let child = host::bound(&self.cpus, &before, || {
            command.spawn().map_err(|e| Error::io(&words[0], e))
        })?;
        let mut vmm = Vmm {
            child,
            dir,
            begun,
            greeted: Duration::ZERO,
            monitors: Vec::new(),
            console: Vec::new(),
        };
        for listener in &listeners {
            let stream = vmm.accept(listener)?;
            let qmp = Qmp::greeted(stream).map_err(|error| vmm.explain(&error))?;
            if vmm.monitors.is_empty() {
                vmm.greeted = vmm.begun.elapsed();
            }
            vmm.monitors.push(qmp);
        }
        for qmp in &mut vmm.monitors {
            qmp.negotiate()?;
        }
        Ok(vmm)
    }
}

fn listen(path: &Path) -> Result<UnixListener, Error> {
    UnixListener::bind(path).map_err(|e| Error::io(path.display().to_string(), e))
}

/// A command line as a shell takes it.
fn shown(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+".contains(c);
        if word.chars().all(plain) { word.clone() } else { format!("'{word}'") }
    });
    quoted.collect::<Vec<String>>().join(" ")
}

/// A running VMM, killed when dropped.
pub struct Vmm {
    child: Child,
    dir: PathBuf,
    /// When its process was asked for.
    pub begun: Instant,
    /// From then to the first monitor's greeting.
    pub greeted: Duration,
    monitors: Vec<Qmp>,
    console: Vec<u8>,
}

impl Vmm {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.monitors[0]
    }

    /// All monitors but the first, for good.
    pub fn take_others(&mut self) -> Vec<Qmp> {
        self.monitors.split_off(1)
    }

    /// The listening monitor's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("listen")
    }

    /// An error, with what the process has said about it.
    fn explain(&self, error: &Error) -> Error {
        let said = std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
        Error::unexpected(format!("{error}; the VMM said: {}", said.trim()))
    }

    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream, Error> {
        let deadline = Instant::now() + PATIENCE;
        let timeout = PollTimeout::from(100u8);
        loop {
            let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, timeout).map_err(|e| Error::io("poll", e))? > 0 {
                return Ok(listener.accept().map_err(|e| Error::io("QMP connection", e))?.0);
            }
            let ended = self.child.try_wait().map_err(|e| Error::io("the VMM's status", e))?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(self.explain(&Error::unexpected("no QMP connection came")));
            }
        }
    }

    /// Waits until the guest has printed `text`; what came before and including it is returned.
    pub fn wait_console(&mut self, text: &str) -> Result<String, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut chunk = [0; 4096];
        let mut seen: usize = 0;
        loop {
            let from = seen.saturating_sub(text.len());
            let found = self.console[from..].windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                let rest = self.console.split_off(from + at + text.len());
                let before = std::mem::replace(&mut self.console, rest);
                return Ok(String::from_utf8_lossy(&before).into_owned());
            }
            seen = self.console.len();
            let count = read_before(self.child.stdout.as_mut(), &mut chunk, deadline)?;
            if count == 0 {
                let shown = String::from_utf8_lossy(&self.console).into_owned();
                let error = format!("the guest never showed {text:?}; it showed: {shown:.500}");
                return Err(self.explain(&Error::unexpected(error)));
            }
            self.console.extend_from_slice(&chunk[..count]);
        }
    }

    /// Types on the guest's console.
    pub fn type_in(&mut self, text: &str) -> Result<(), Error> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| Error::unexpected("no console"))?;
        stdin.write_all(text.as_bytes()).map_err(|e| Error::io("console", e))
    }

    /// The threads of the vCPUs.
    pub fn vcpu_threads(&mut self) -> Result<Vec<i32>, Error> {
        let cpus = self.qmp().call("query-cpus-fast", Value::Null)?;
        let ids = cpus.as_array().into_iter().flatten();
        Ok(ids.filter_map(|cpu| cpu["thread-id"].as_i64()?.try_into().ok()).collect())
    }

    /// Binds the vCPUs to one CPU and all other threads to another.
    pub fn separate(&mut self, vcpus: usize, others: usize) -> Result<(), Error> {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task");
        let threads = std::fs::read_dir(&path).map_err(|e| Error::io(&path, e))?;
        let vcpu_threads = self.vcpu_threads()?;
        for thread in threads.flatten() {
            let Ok(id) = thread.file_name().to_string_lossy().parse::<i32>() else { continue };
            let cpu = if vcpu_threads.contains(&id) { vcpus } else { others };
            // A thread may have ended meanwhile.
            let _bound = host::bind_thread(id, &[cpu]);
        }
        Ok(())
    }

    /// Has it quit and waits for its end.
    pub fn quit(mut self) -> Result<(), Error> {
        self.qmp().send(b"{\"execute\":\"quit\"}\n")?;
        let status = self.child.wait().map_err(|e| Error::io("the VMM's end", e))?;
        if status.success() {
            Ok(())
        } else {
            Err(self.explain(&Error::unexpected(format!("the VMM ended with {status}"))))
        }
    }
}

/// Reads what there is; zero at the end and at the deadline.
fn read_before(
    stream: Option<&mut ChildStdout>,
    chunk: &mut [u8],
    deadline: Instant,
) -> Result<usize, Error> {
    let stream = stream.ok_or_else(|| Error::unexpected("no console"))?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout).map_err(|e| Error::io("poll", e))? == 0 {
            return Ok(0);
        }
        match stream.read(chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.map_err(|e| Error::io("console", e)),
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // Gone already, most of the time.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = std::fs::remove_dir_all(&self.dir);
    }
}
