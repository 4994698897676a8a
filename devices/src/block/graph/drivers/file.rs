//! `file` and `host_device`: images on the host, by the raw engine.

use super::Driver;
use super::bytes::{Bytes, Kept, Local};
use crate::block::file::FileDisk;
use crate::block::graph::options::Options;
use crate::block::graph::permissions::Access;
use crate::block::lock::{Claim, LockError};
use crate::block::open::open_any_size;
use crate::block::scratch::scratch_file;
use crate::block::{
    BoxFuture, Cache, Disk, DiskError, DiskInfo, DiskQueue, FileOptions, OpenError,
};
use crate::error::CommandError;
use crate::fdset::FdSets;
use crate::text::system_error;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use reactor::io as rio;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

struct File {
    disk: Arc<FileDisk>,
    path: PathBuf,
    locking: bool,
}

/// Opens the image at `path`. It is locked when somebody begins to use the node.
pub(super) async fn open(
    options: &Options,
    path: &Path,
    locking: bool,
    device: bool,
    sets: &FdSets,
) -> Result<Arc<dyn Driver>, CommandError> {
    let cache = Cache {
        direct: options.direct.unwrap_or(false),
        writeback: true,
        no_flush: options.no_flush.unwrap_or(false),
    };
    let mut wanted = FileOptions {
        path: path.to_owned(),
        read_only: options.read_only.unwrap_or(false),
        cache,
        discard: options.discard.unwrap_or_default(),
        locking: false,
    };
    let image = match open_any_size(&wanted, sets).await {
        Err(
            OpenError::NotWritable(_)
            | OpenError::ReadOnlyStorage(_)
            | OpenError::NotInSet { denied: true, .. },
        ) if options.auto_read_only => {
            wanted.read_only = true;
            open_any_size(&wanted, sets).await
        }
        result => result,
    };
    let image = image.map_err(|error| explain(path, &error))?;
    if device && !image.is_block {
        return Err(CommandError::generic(format!(
            "'host_device' driver requires '{}' to be either a character or block device",
            path.display()
        )));
    }
    Ok(Arc::new(File { disk: image.disk, path: path.to_owned(), locking }))
}

/// Makes a file that goes with the process.
pub(super) async fn scratch(size: u64) -> Result<Arc<dyn Driver>, CommandError> {
    let disk = scratch_file(size).await;
    let disk = disk.map_err(|error| CommandError::generic(error.to_string()))?;
    Ok(Arc::new(File { disk, path: PathBuf::from("(scratch disk)"), locking: false }))
}

/// QEMU's text for an image that cannot be opened.
fn explain(path: &Path, error: &OpenError) -> CommandError {
    let reason = |errno| system_error(&io::Error::from_raw_os_error(errno));
    let reason = match error {
        OpenError::Missing(_) => reason(libc::ENOENT),
        OpenError::Directory(_) => reason(libc::EISDIR),
        OpenError::NotReadable(_) | OpenError::NotWritable(_) => reason(libc::EACCES),
        OpenError::ReadOnlyStorage(_) => reason(libc::EROFS),
        OpenError::NoDirectIo(_) => reason(libc::EINVAL),
        OpenError::Io { source, .. } => system_error(source),
        OpenError::Kind { .. } => {
            let path = path.display();
            return CommandError::generic(format!(
                "'file' driver requires '{path}' to be a regular file"
            ));
        }
        _ => return CommandError::generic(error.to_string()),
    };
    CommandError::generic(format!("Could not open '{}': {reason}", path.display()))
}

impl Disk for File {
    fn name(&self) -> &str {
        self.disk.name()
    }

    fn size(&self) -> u64 {
        Disk::size(&*self.disk)
    }

    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        self.disk.queue(ram, slots, segments)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Disk::flush(&*self.disk)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.disk.close()
    }
}

impl Driver for File {
    fn filename(&self) -> String {
        self.path.display().to_string()
    }

    fn allocated(&self) -> Option<u64> {
        self.disk.allocated()
    }

    fn permit(&self, access: Access) -> Result<(), CommandError> {
        if !self.locking {
            return Ok(());
        }
        let claim = Claim::new(access.uses.bits(), access.shares.complement().bits());
        self.disk.set_claim(claim).map_err(|error| {
            CommandError::generic(match error {
                LockError::Conflict(permission) => format!("Failed to get \"{permission}\" lock"),
                LockError::Unsupported(error) => {
                    format!("Failed to lock '{}': {}", self.path.display(), system_error(&error))
                }
            })
        })
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            FileDisk::resize(&self.disk, size).await.map_err(|error| {
                CommandError::generic(format!(
                    "Failed to resize the file: {}",
                    system_error(&error)
                ))
            })
        })
    }

    fn bytes(&self) -> Option<Arc<dyn Bytes>> {
        Some(Arc::clone(&self.disk) as Arc<dyn Bytes>)
    }

    fn unused(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.disk.unused())
    }
}

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
/// Bytes of zeroes in one write, where the storage has nothing better.
const ZEROES: u64 = 1 << 20;

impl Bytes for FileDisk {
    fn read(&self, offset: u64, len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let fd = self.buffered()?;
            let mut data = Vec::new();
            while data.len() < len {
                let left = vec![0; len - data.len()];
                let (read, mut left) = rio::read_at(&fd, left, offset + data.len() as u64).await;
                match read {
                    Ok(0) => break,
                    Ok(n) => {
                        left.truncate(n);
                        if data.is_empty() {
                            data = left;
                        } else {
                            data.append(&mut left);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            data.resize(len, 0);
            Ok(data)
        })
    }

    fn write(&self, offset: u64, data: Vec<u8>) -> Local<'_, io::Result<()>> {
        Box::pin(async move {
            let end = offset + data.len() as u64;
            rio::write_all_at(&self.buffered()?, data, offset).await.0?;
            self.grown(end);
            Ok(())
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Local<'_, io::Result<()>> {
        Box::pin(async move {
            let fd = self.buffered()?;
            let end = offset + len;
            let mode =
                if unmap && end <= Disk::size(self) { PUNCH } else { libc::FALLOC_FL_ZERO_RANGE };
            match rio::fallocate(&fd, mode, offset, len).await {
                Err(error) if is_unsupported(&error) => {}
                result => {
                    result?;
                    self.grown(end);
                    return Ok(());
                }
            }
            let mut at = offset;
            while at < end {
                let n = (end - at).min(ZEROES);
                Bytes::write(self, at, vec![0; n as usize]).await?;
                at += n;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Local<'_, io::Result<()>> {
        Box::pin(async move { rio::fdatasync(&self.buffered()?).await })
    }

    fn size(&self) -> u64 {
        Disk::size(self)
    }

    fn resize(&self, size: u64) -> Local<'_, io::Result<()>> {
        Box::pin(FileDisk::resize(self, size))
    }

    fn kept(&self, offset: u64, len: u64) -> Local<'_, io::Result<(Kept, u64)>> {
        Box::pin(async move { kept(self, offset, len) })
    }
}

/// Asks the file system, which looks at its own tables: not on the way of requests.
fn kept(disk: &FileDisk, offset: u64, len: u64) -> io::Result<(Kept, u64)> {
    let len = len.min(Disk::size(disk).saturating_sub(offset));
    if len == 0 {
        return Ok((Kept::Zero(None), 0));
    }
    let fd = disk.buffered()?;
    let seek = |whence| lseek64(&fd, offset as i64, whence).map(|at| at as u64);
    match seek(Whence::SeekData) {
        // Nothing but a hole to the end.
        Err(Errno::ENXIO) => Ok((Kept::Zero(Some(offset)), len)),
        Ok(data) if data > offset => Ok((Kept::Zero(Some(offset)), len.min(data - offset))),
        Ok(_) => {
            let end = seek(Whence::SeekHole).unwrap_or(u64::MAX).max(offset + 1);
            Ok((Kept::Data(offset), len.min(end - offset)))
        }
        Err(_) => Ok((Kept::Data(offset), len)),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}
