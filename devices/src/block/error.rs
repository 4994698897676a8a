//! Why an image could not be opened: each message is one line that says what to do.

use std::io;
use std::path::PathBuf;

/// Why an image could not be opened. `Display` is complete: it ends with the cause.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("image '{}' does not exist; create it (for example: truncate -s 1G FILE) or correct the path", .0.display())]
    Missing(PathBuf),
    /// A directory.
    #[error("image '{}' is a directory; give the path of a file or a block device", .0.display())]
    Directory(PathBuf),
    /// Neither a regular file nor a block device.
    #[error("image '{path}' is a {kind}; give the path of a file or a block device", path = .path.display())]
    Kind {
        /// The image.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The file may not be opened for reading.
    #[error("image '{}' may not be read by this user; change its permissions", .0.display())]
    NotReadable(PathBuf),
    /// The file may be read and not written.
    #[error("image '{}' may not be written by this user; change its permissions or use readonly=on", .0.display())]
    NotWritable(PathBuf),
    /// The file system or device is read-only.
    #[error("image '{}' is on read-only storage; use readonly=on", .0.display())]
    ReadOnlyStorage(PathBuf),
    /// Below one sector.
    #[error("image '{path}' is {size} bytes long, less than one sector of 512; make it larger (truncate -s SIZE FILE)", path = .path.display())]
    TooSmall {
        /// The image.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// Not whole sectors.
    #[error("image '{path}' is {size} bytes long, not a multiple of 512; pad it (truncate -s %512 FILE)", path = .path.display())]
    PartialSector {
        /// The image.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// `O_DIRECT` is refused.
    #[error("image '{}' is on storage without direct I/O; use cache=writeback instead of cache=none", .0.display())]
    NoDirectIo(PathBuf),
    /// Another process holds a lock that conflicts.
    #[error("image '{path}' is in use by another process (its \"{permission}\" lock is held); stop that one, use readonly=on for both, or allow sharing with -drive ...,file.locking=off", path = .path.display())]
    Locked {
        /// The image.
        path: PathBuf,
        /// The permission in conflict, in QEMU's words.
        permission: &'static str,
    },
    /// The file system has no such locks.
    #[error("image '{path}' cannot be locked ({source}); use -drive ...,file.locking=off", path = .path.display())]
    NoLocks {
        /// The image.
        path: PathBuf,
        /// The answer to the lock request.
        source: io::Error,
    },
    /// The set of descriptors does not have it.
    #[error("{text}")]
    NotInSet {
        /// Why, in QEMU's words.
        text: String,
        /// The set has none for this access.
        denied: bool,
    },
    /// Anything else.
    #[error("image '{path}': {what} failed: {source}", path = .path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// The operation.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Why a disk in use could not do what it was asked (flush, close, resize).
#[derive(Debug, thiserror::Error)]
#[error("{disk}: {what} failed: {source}")]
pub struct DiskError {
    /// The disk's name.
    pub disk: String,
    /// The operation.
    pub what: &'static str,
    /// Its error.
    #[source]
    pub source: io::Error,
}
