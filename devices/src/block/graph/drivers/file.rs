//! `file` and `host_device`: images on the host, by the raw engine.

use super::Driver;
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
    let reason = |errno| strerror(&io::Error::from_raw_os_error(errno));
    let reason = match error {
        OpenError::Missing(_) => reason(libc::ENOENT),
        OpenError::Directory(_) => reason(libc::EISDIR),
        OpenError::NotReadable(_) | OpenError::NotWritable(_) => reason(libc::EACCES),
        OpenError::ReadOnlyStorage(_) => reason(libc::EROFS),
        OpenError::NoDirectIo(_) => reason(libc::EINVAL),
        OpenError::Io { source, .. } => strerror(source),
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

/// The C library's text of an error, without Rust's number.
pub(in crate::block::graph) fn strerror(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => nix::Error::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
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
        self.disk.set_claim(claim).map_err(|error| {
            CommandError::generic(match error {
                LockError::Conflict(permission) => format!("Failed to get \"{permission}\" lock"),
                LockError::Unsupported(error) => {
                    format!("Failed to lock '{}': {}", self.path.display(), strerror(&error))
                }
            })
        })
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            self.disk.resize(size).await.map_err(|error| {
                CommandError::generic(format!("Failed to resize the file: {}", strerror(&error)))
            })
        })
    }

    fn unused(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.disk.unused())
    }
}
