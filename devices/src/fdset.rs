//! Sets of descriptors that clients or the program's parent have opened, and files by their path:
//! `/dev/fdset/N` means the descriptor of set N that was opened for the access asked for.

use crate::error::CommandError;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use reactor::{Fd, io as rio};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the sets seem to be in the file system.
const PREFIX: &str = "/dev/fdset/";
/// Descriptors in all sets.
const DESCRIPTORS_MAX: usize = 1024;
/// Status flags of open(2) that can be changed later; clones of a descriptor share them.
const CHANGEABLE: i32 =
    libc::O_APPEND | libc::O_ASYNC | libc::O_NONBLOCK | libc::O_NOATIME | libc::O_DIRECT;

/// A descriptor of a set, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number in this process.
    pub number: i64,
    /// The text that was given with it.
    pub opaque: Option<String>,
}

struct Entry {
    fd: Fd,
    opaque: Option<String>,
}

impl Entry {
    fn number(&self) -> i64 {
        self.fd.as_raw_fd().into()
    }
}

#[derive(Default)]
struct Set {
    /// In the order they came.
    entries: Vec<Entry>,
    /// Files opened from it that are still open.
    uses: usize,
}

impl Set {
    fn is_over(&self) -> bool {
        self.entries.is_empty() && self.uses == 0
    }
}

/// The sets. Clones share them. Any thread; the lock is held for moments.
#[derive(Clone, Default)]
pub struct FdSets {
    sets: Arc<Mutex<BTreeMap<i64, Set>>>,
}

/// Keeps the set of an open file from ending, until it is dropped.
pub struct Use {
    sets: FdSets,
    id: i64,
}

impl fmt::Debug for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "use of set {}", self.id)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut sets = self.sets.lock();
        if let Some(set) = sets.get_mut(&self.id) {
            set.uses -= 1;
            if set.is_over() {
                sets.remove(&self.id);
            }
        }
    }
}

/// An open file.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub fd: Fd,
    /// To be kept as long as the file is open; of no set, where the path is not one's.
    pub from: Option<Use>,
}

/// Why a file could not be opened.
#[derive(Debug)]
pub struct OpenFailure {
    /// The error of open(2), or the one that stands for it.
    pub source: io::Error,
    /// What a set has to say, in QEMU's words; complete.
    pub text: Option<String>,
}

impl From<io::Error> for OpenFailure {
    fn from(source: io::Error) -> Self {
        Self { source, text: None }
    }
}

impl OpenFailure {
    fn new(errno: i32, text: String) -> Self {
        Self { source: io::Error::from_raw_os_error(errno), text: Some(text) }
    }
}

/// Whether `path` means a set.
pub fn is_set(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(PREFIX))
}

/// The number of the set that `path` means, or none for other paths.
fn number_of(path: &Path) -> Option<Result<i64, OpenFailure>> {
    let text = path.to_str()?.strip_prefix(PREFIX)?;
    let number = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let wrong = || OpenFailure::new(libc::EINVAL, format!("Could not parse fdset {PREFIX}{text}"));
    Some(number.and_then(|text| text.parse().ok()).ok_or_else(wrong))
}

impl FdSets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Set>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a set, which need not exist; without `id` to a new one. Gives the set and the number.
    pub fn add(
        &self,
        id: Option<i64>,
        fd: Fd,
        opaque: Option<String>,
    ) -> Result<(i64, i64), CommandError> {
        if id.is_some_and(|id| id < 0) {
            let text = "Parameter 'fdset-id' expects a non-negative value";
            return Err(CommandError::generic(text));
        }
        let mut sets = self.lock();
        if sets.values().map(|set| set.entries.len()).sum::<usize>() >= DESCRIPTORS_MAX {
            let text = format!("The sets hold {DESCRIPTORS_MAX} descriptors: remove some first");
            return Err(CommandError::generic(text));
        }
        // One of these is free.
        let free = || (0..=sets.len() as i64).find(|id| !sets.contains_key(id));
        let id = id.or_else(free).unwrap_or_default();
        let entry = Entry { fd, opaque };
        let number = entry.number();
        sets.entry(id).or_default().entries.push(entry);
        Ok((id, number))
    }

    /// Removes one descriptor of a set, or all. The set ends with the last file opened from it.
    pub fn remove(&self, id: i64, number: Option<i64>) -> Result<(), CommandError> {
        let missing = || {
            let descriptor = number.map_or_else(String::new, |number| format!(", fd:{number}"));
            let text = format!("File descriptor named 'fdset-id:{id}{descriptor}' not found");
            CommandError::generic(text)
        };
        let mut sets = self.lock();
        let set = sets.get_mut(&id).ok_or_else(missing)?;
        let before = set.entries.len();
        set.entries.retain(|entry| number.is_some_and(|number| entry.number() != number));
        if number.is_some() && set.entries.len() == before {
            return Err(missing());
        }
        if set.is_over() {
            sets.remove(&id);
        }
        Ok(())
    }

    /// Removes all descriptors.
    pub fn clear(&self) {
        let mut sets = self.lock();
        sets.values_mut().for_each(|set| set.entries.clear());
        sets.retain(|_, set| !set.is_over());
    }

    /// The sets by number, the highest first as in QEMU, and what is in them.
    pub fn list(&self) -> Vec<(i64, Vec<Descriptor>)> {
        let descriptor =
            |entry: &Entry| Descriptor { number: entry.number(), opaque: entry.opaque.clone() };
        let sets = self.lock();
        let list =
            |(id, set): (&i64, &Set)| (*id, set.entries.iter().map(descriptor).collect::<Vec<_>>());
        sets.iter().rev().map(list).collect()
    }

    /// Opens `path` with the `O_*` flags of open(2), close-on-exec; new files get `mode`. Where it
    /// means a set, the latest descriptor that was opened for the same access is cloned instead, and
    /// given those of the flags that can be changed; like every clone it shares them and the locks with
    /// the others. On a reactor.
    pub async fn open(&self, path: &Path, flags: i32, mode: u32) -> Result<Opened, OpenFailure> {
        let Some(id) = number_of(path) else {
            let fd = rio::openat(path, flags | libc::O_CLOEXEC, mode).await?;
            return Ok(Opened { fd, from: None });
        };
        let opened = self.clone_of(id?, flags)?;
        if flags & libc::O_TRUNC != 0 {
            rio::ftruncate(&opened.fd, 0).await?;
        }
        Ok(opened)
    }

    fn clone_of(&self, id: i64, flags: i32) -> Result<Opened, OpenFailure> {
        let mut sets = self.lock();
        let missing = || format!("Failed to find fdset {PREFIX}{id}");
        let set = sets.get_mut(&id).ok_or_else(|| OpenFailure::new(libc::ENOENT, missing()))?;
        let matches = |entry: &&Entry| {
            status(&entry.fd).is_ok_and(|has| (has ^ flags) & libc::O_ACCMODE == 0)
        };
        let entry = set.entries.iter().rev().find(matches).ok_or_else(|| {
            let text = "Failed to find file descriptor with matching flags";
            OpenFailure::new(libc::EACCES, format!("{text}=0x{flags:x}"))
        })?;
        let fd = Fd::from(entry.fd.as_fd().try_clone_to_owned()?);
        let status = status(&fd)? & !CHANGEABLE | flags & CHANGEABLE;
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::from_bits_retain(status))).map_err(io::Error::from)?;
        set.uses += 1;
        drop(sets);
        Ok(Opened { fd, from: Some(Use { sets: self.clone(), id }) })
    }
}

fn status(fd: &Fd) -> io::Result<i32> {
    Ok(fcntl(fd, FcntlArg::F_GETFL)?)
}

#[cfg(test)]
mod tests {
    use super::{FdSets, Opened};
    use crate::virtio::testing::on_core;
    use reactor::{Fd, io as rio};
    use std::fs::{File, OpenOptions};
    use std::path::Path;

    async fn open(sets: &FdSets, path: &str, flags: i32) -> Result<Opened, String> {
        let opened = sets.open(Path::new(path), flags, 0).await;
        opened.map_err(|failure| failure.text.unwrap_or_else(|| failure.source.to_string()))
    }

    fn fd(file: File) -> Fd {
        Fd::from(std::os::fd::OwnedFd::from(file))
    }

    #[test]
    fn the_access_chooses_the_descriptor_and_errors_are_those_of_qemu() {
        on_core(|_| async {
            let (reader, writer) =
                (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
            std::fs::write(&reader, "read").unwrap();
            std::fs::write(&writer, "old").unwrap();
            let sets = FdSets::default();
            sets.add(Some(3), fd(File::open(&reader).unwrap()), None).unwrap();
            let file = OpenOptions::new().write(true).open(&writer).unwrap();
            sets.add(Some(3), fd(file), None).unwrap();
            let opened = open(&sets, "/dev/fdset/3", libc::O_RDONLY).await.unwrap();
            let (read, bytes) = rio::read(&opened.fd, vec![0; 8]).await;
            assert_eq!(&bytes[..read.unwrap()], b"read");
            // What O_TRUNC and O_APPEND ask for holds as well.
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
            let opened = open(&sets, "/dev/fdset/3", flags).await.unwrap();
            rio::write_all(&opened.fd, b"new".to_vec()).await.0.unwrap();
            let opened =
                open(&sets, "/dev/fdset/3", libc::O_WRONLY | libc::O_APPEND).await.unwrap();
            std::fs::write(&writer, "longer").unwrap();
            rio::write_all(&opened.fd, b"!".to_vec()).await.0.unwrap();
            assert_eq!(std::fs::read(&writer).unwrap(), b"longer!");
            let no_match = "Failed to find file descriptor with matching flags=0x2";
            for (path, text) in [
                ("/dev/fdset/3", no_match),
                ("/dev/fdset/4", "Failed to find fdset /dev/fdset/4"),
                ("/dev/fdset/", "Could not parse fdset /dev/fdset/"),
                ("/dev/fdset/3x", "Could not parse fdset /dev/fdset/3x"),
                ("/dev/fdset/-1", "Could not parse fdset /dev/fdset/-1"),
            ] {
                assert_eq!(open(&sets, path, libc::O_RDWR).await.err().as_deref(), Some(text));
            }
            // Any other path is one of the file system.
            let path = reader.path().to_str().unwrap();
            assert!(open(&sets, path, libc::O_RDWR).await.unwrap().from.is_none());
        });
    }

    #[test]
    fn a_set_lasts_as_long_as_its_files() {
        on_core(|_| async {
            let sets = FdSets::default();
            for id in [None, Some(7)] {
                sets.add(id, fd(File::open("/dev/null").unwrap()), None).unwrap();
            }
            let ids = || sets.list().iter().map(|(id, _)| *id).collect::<Vec<_>>();
            assert_eq!(ids(), [7, 0]);
            let opened = open(&sets, "/dev/fdset/7", libc::O_RDONLY).await.unwrap();
            sets.remove(7, None).unwrap();
            assert_eq!(sets.list()[0], (7, vec![]));
            // Nothing is left to open, or to remove by its number.
            assert!(open(&sets, "/dev/fdset/7", libc::O_RDONLY).await.is_err());
            assert!(sets.remove(7, Some(1)).is_err());
            sets.remove(7, None).unwrap();
            sets.clear();
            assert_eq!(ids(), [7]);
            drop(opened);
            assert!(ids().is_empty());
            let text = sets.remove(7, None).unwrap_err().text;
            assert_eq!(text, "File descriptor named 'fdset-id:7' not found");
        });
    }
}
