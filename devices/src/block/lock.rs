//! Image locks: open-file-description locks on single bytes, one a permission.
//!
//! The byte offsets are those of QEMU's file driver, so that QEMU, qemu-img and ringvisor respect
//! each other: a shared lock on byte `100 + n` says "permission n is in use here", one on byte
//! `200 + n` says "nobody else may use permission n". After taking its own locks, an opener
//! looks for one in conflict on the counterpart bytes; two that start at once may both give up,
//! and never both go on. The locks end with the open file description, a killed process's
//! included.

use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::AsFd;

/// First byte of the permissions in use.
const USED: i64 = 100;
/// First byte of the permissions refused to others.
const REFUSED: i64 = 200;

/// Permissions by bit number, with QEMU's names.
const PERMISSIONS: [&str; 4] = ["consistent read", "write", "write unchanged", "resize"];
const CONSISTENT_READ: u8 = 1 << 0;
const WRITE: u8 = 1 << 1;
const RESIZE: u8 = 1 << 3;

/// What an opener does with the image and what it refuses to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    uses: u8,
    refuses: u8,
}

impl Claim {
    /// The only writer.
    pub(crate) const WRITER: Self =
        Self { uses: CONSISTENT_READ | WRITE | RESIZE, refuses: WRITE | RESIZE };
    /// One of many readers.
    pub(crate) const READER: Self = Self { uses: CONSISTENT_READ, refuses: WRITE | RESIZE };
    /// Nothing.
    pub(crate) const NONE: Self = Self { uses: 0, refuses: 0 };

    /// Permissions by bit number, as in QEMU: 0 consistent read, 1 write, 2 write unchanged,
    /// 3 resize.
    pub(crate) const fn new(uses: u8, refuses: u8) -> Self {
        Self { uses, refuses }
    }
}

/// Why a claim could not be made.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another open file description conflicts in this permission.
    Conflict(&'static str),
    /// The file system does not lock.
    Unsupported(std::io::Error),
}

/// Locks `file` for `claim`; on failure nothing stays locked. Does not block.
pub(crate) fn claim(file: &impl AsFd, claim: Claim) -> Result<(), LockError> {
    let result = take(file, claim);
    if result.is_err() {
        release(file);
    }
    result
}

/// Replaces the locks of `held` by those of `wanted`; on failure those of `held` stay. Does not
/// block.
pub(crate) fn change(file: &impl AsFd, held: Claim, wanted: Claim) -> Result<(), LockError> {
    let both = Claim::new(held.uses | wanted.uses, held.refuses | wanted.refuses);
    let result = take(file, both);
    let keep = if result.is_ok() { wanted } else { held };
    for (start, had, keep) in [(USED, both.uses, keep.uses), (REFUSED, both.refuses, keep.refuses)]
    {
        for (n, _) in set_bits(had & !keep) {
            unlock(file, start + n, 1);
        }
    }
    result
}

/// Takes the locks of `claim` for a file that is to have them instead of another one, which has them
/// now. Does not block.
pub(crate) fn copy(file: &impl AsFd, claim: Claim) -> Result<(), LockError> {
    lock_bytes(file, claim)
}

/// Gives up every lock of [`claim`]. Closing the last descriptor does so too; this is for when
/// the kernel may still hold one.
pub(crate) fn release(file: &impl AsFd) {
    for start in [USED, REFUSED] {
        unlock(file, start, PERMISSIONS.len() as i64);
    }
}

fn unlock(file: &impl AsFd, start: i64, len: i64) {
    let range = flock(libc::F_UNLCK, start, len);
    if let Err(error) = fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        tracing::debug!(%error, "unlocking an image");
    }
}

fn lock_bytes(file: &impl AsFd, claim: Claim) -> Result<(), LockError> {
    for (start, bits) in [(USED, claim.uses), (REFUSED, claim.refuses)] {
        for (n, permission) in set_bits(bits) {
            let byte = flock(libc::F_RDLCK, start + n, 1);
            match fcntl(file, FcntlArg::F_OFD_SETLK(&byte)) {
                Ok(_) => {}
                Err(nix::Error::EAGAIN | nix::Error::EACCES) => {
                    return Err(LockError::Conflict(permission));
                }
                Err(errno) => return Err(LockError::Unsupported(errno.into())),
            }
        }
    }
    Ok(())
}

fn take(file: &impl AsFd, claim: Claim) -> Result<(), LockError> {
    lock_bytes(file, claim)?;
    for (start, bits) in [(REFUSED, claim.uses), (USED, claim.refuses)] {
        for (n, permission) in set_bits(bits) {
            let mut probe = flock(libc::F_WRLCK, start + n, 1);
            fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe))
                .map_err(|errno| LockError::Unsupported(errno.into()))?;
            if probe.l_type != libc::F_UNLCK as i16 {
                return Err(LockError::Conflict(permission));
            }
        }
    }
    Ok(())
}

fn set_bits(bits: u8) -> impl Iterator<Item = (i64, &'static str)> {
    PERMISSIONS
        .iter()
        .enumerate()
        .filter(move |(n, _)| bits & (1 << n) != 0)
        .map(|(n, name)| (n as i64, *name))
}

fn flock(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: len,
        // Must be 0 for locks of an open file description.
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, LockError, claim, release};
    use std::fs::{File, OpenOptions};

    fn open(file: &tempfile::NamedTempFile) -> File {
        OpenOptions::new().read(true).write(true).open(file.path()).unwrap()
    }

    #[test]
    fn second_writer_is_refused_until_the_first_lets_go() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let (first, second) = (open(&image), open(&image));
        claim(&first, Claim::WRITER).unwrap();
        assert!(matches!(claim(&second, Claim::WRITER), Err(LockError::Conflict("write"))));
        // The refused attempt left nothing behind that would disturb the first.
        release(&first);
        claim(&first, Claim::WRITER).unwrap();
        // Not by closing it: a process that another test is starting may have a copy for a moment.
        release(&first);
        claim(&second, Claim::WRITER).unwrap();
    }

    #[test]
    fn readers_share_and_keep_writers_out() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let (a, b, writer) = (open(&image), open(&image), open(&image));
        claim(&a, Claim::READER).unwrap();
        claim(&b, Claim::READER).unwrap();
        assert!(matches!(claim(&writer, Claim::WRITER), Err(LockError::Conflict(_))));
        release(&a);
        release(&b);
        claim(&writer, Claim::WRITER).unwrap();
        let late = open(&image);
        assert!(matches!(claim(&late, Claim::READER), Err(LockError::Conflict("write"))));
    }
}
