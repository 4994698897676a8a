//! `file` and `host_device`: images on the host, by the raw engine.

use super::Driver;
use super::bytes::{Bytes, Kept, Local};
use crate::block::file::FileDisk;
use crate::block::graph::options::Options;
use crate::block::graph::permissions::Access;
use crate::block::lock::{Claim, LockError};
use crate::block::open::{Image, open_any_size};
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
use std::sync::{Arc, Weak};
use vm_memory::GuestMemoryMmap;

struct File {
    disk: Arc<FileDisk>,
    path: PathBuf,
    locking: bool,
    /// It is a block device.
    device: bool,
    /// Whose place it takes.
    before: Weak<FileDisk>,
}

impl File {
    fn new(disk: Arc<FileDisk>, path: &Path, locking: bool) -> Self {
        Self { disk, path: path.to_owned(), locking, device: false, before: Weak::new() }
    }
}

/// Opens the image at `path`. It is locked when somebody begins to use the node.
pub(super) async fn open(
    options: &Options,
    path: &Path,
    locking: bool,
    device: bool,
    sets: &FdSets,
) -> Result<Arc<dyn Driver>, CommandError> {
    let image = open_wanted(options, path, sets).await?;
    if image.is_block && !device {
        return Err(irregular(path));
    }
    if device && !image.is_block {
        return Err(CommandError::generic(format!(
            "'host_device' driver requires '{}' to be either a character or block device",
            path.display()
        )));
    }
    Ok(Arc::new(File { device, ..File::new(image.disk, path, locking) }))
}

/// What `options` say of a file.
fn wanted(options: &Options, path: &Path) -> FileOptions {
    let cache = Cache {
        direct: options.direct.unwrap_or(false),
        writeback: true,
        no_flush: options.no_flush.unwrap_or(false),
    };
    FileOptions {
        path: path.to_owned(),
        read_only: options.read_only.unwrap_or(false),
        cache,
        discard: options.discard.unwrap_or_default(),
        locking: false,
    }
}

async fn open_wanted(options: &Options, path: &Path, sets: &FdSets) -> Result<Image, CommandError> {
    let mut wanted = wanted(options, path);
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
    image.map_err(|error| explain(path, &error))
}

impl File {
    fn locked(&self, error: LockError) -> CommandError {
        CommandError::generic(match error {
            LockError::Conflict(permission) => format!("Failed to get \"{permission}\" lock"),
            LockError::Unsupported(error) => {
                format!("Failed to lock '{}': {}", self.path.display(), system_error(&error))
            }
        })
    }
}

/// Makes a file that goes with the process.
pub(super) async fn scratch(size: u64) -> Result<Arc<dyn Driver>, CommandError> {
    let disk = scratch_file(size).await;
    let disk = disk.map_err(|error| CommandError::generic(error.to_string()))?;
    Ok(Arc::new(File::new(disk, Path::new("(scratch disk)"), false)))
}

fn irregular(path: &Path) -> CommandError {
    let path = path.display();
    CommandError::generic(format!("'file' driver requires '{path}' to be a regular file"))
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
        OpenError::Kind { .. } => return irregular(path),
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
        self.disk.set_claim(claim).map_err(|error| self.locked(error))
    }

    fn reopen<'a>(
        &'a self,
        options: &'a Options,
        sets: &'a FdSets,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Driver>>, CommandError>> {
        Box::pin(async move {
            let disk = match self.disk.reopened(&wanted(options, &self.path)) {
                Some(disk) => Arc::new(disk),
                None => open_wanted(options, &self.path, sets).await?.disk,
            };
            let before = Arc::downgrade(&self.disk);
            let file =
                File { before, device: self.device, ..File::new(disk, &self.path, self.locking) };
            Ok(Some(Arc::new(file) as Arc<dyn Driver>))
        })
    }

    fn take_over(&self) -> Result<(), CommandError> {
        let Some(before) = self.before.upgrade() else { return Ok(()) };
        self.disk.take_over(&before).map_err(|error| self.locked(error))
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async {
            self.disk.retire().await;
            Ok(())
        })
    }

    fn give_back(&self) {
        if let Some(before) = self.before.upgrade()
            && let Err(error) = before.take_over(&self.disk)
        {
            tracing::warn!(path = %self.path.display(), ?error, "giving image locks back");
        }
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            if self.device {
                // What is behind the end is not used.
                let grows = size > Disk::size(&*self.disk);
                let error = CommandError::generic("Cannot grow device files");
                return if grows { Err(error) } else { Ok(()) };
            }
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
            let written = rio::write_all_at(&self.buffered()?, data, offset).await.0;
            self.changed()?;
            written?;
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
            let zeroed = rio::fallocate(&fd, mode, offset, len).await;
            self.changed()?;
            match zeroed {
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
        Box::pin(self.sync())
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
