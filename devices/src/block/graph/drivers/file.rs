//! `file` and `host_device`: images on the host, by the raw engine.

use super::Driver;
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
        self.disk.size()
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
        self.disk.flush()
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
                let grows = size > self.disk.size();
                let error = CommandError::generic("Cannot grow device files");
                return if grows { Err(error) } else { Ok(()) };
            }
            self.disk.resize(size).await.map_err(|error| {
                CommandError::generic(format!(
                    "Failed to resize the file: {}",
                    system_error(&error)
                ))
            })
        })
    }

    fn unused(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.disk.unused())
    }
}
