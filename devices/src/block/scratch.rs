//! Scratch disks: gone with the process, invisible to others.

use super::file::FileDisk;
use super::lock::Claim;
use super::options::Discard;
use super::raw::RawFiles;
use super::{Disk, DiskInfo, OpenError, SECTOR};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use reactor::{Fd, io as rio};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Makes an empty disk of `size` bytes (rounded up to a sector): a file without a name in the
/// directory for temporary files, or in memory where that directory cannot have one. It takes
/// space as the guest writes.
///
/// On a reactor.
pub async fn scratch(size: u64) -> Result<Arc<dyn Disk>, OpenError> {
    scratch_file(size).await.map(|disk| disk as _)
}

/// As [`scratch`].
pub(super) async fn scratch_file(size: u64) -> Result<Arc<FileDisk>, OpenError> {
    let size = size.max(1).checked_next_multiple_of(SECTOR).unwrap_or(!(SECTOR - 1));
    let directory = std::env::temp_dir();
    let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_EXCL | libc::O_CLOEXEC;
    let file = match rio::openat(&directory, flags, 0o600).await {
        Ok(file) => file,
        Err(error) => {
            tracing::debug!(%error, directory = %directory.display(), "no unnamed file there");
            in_memory().map_err(|source| failed("making it", source))?
        }
    };
    let length = i64::try_from(size).unwrap_or(i64::MAX);
    ftruncate(&file, length).map_err(|errno| failed("setting its size", errno.into()))?;
    let info = DiskInfo {
        read_only: false,
        writeback: true,
        physical_block: 4096,
        discard_granularity: Some(4096),
    };
    let files = RawFiles {
        file,
        buffered: None,
        direct: None,
        discard: Discard::Unmap,
        no_flush: false,
        written: Arc::default(),
    };
    Ok(Arc::new(FileDisk::new("scratch disk".to_owned(), files, size, info, Claim::NONE)))
}

fn in_memory() -> io::Result<Fd> {
    let file = memfd_create(c"ringvisor-scratch", MFdFlags::MFD_CLOEXEC)?;
    Ok(Fd::from(file))
}

fn failed(what: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: PathBuf::from("(scratch disk)"), what, source }
}
