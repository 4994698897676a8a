//! The control handle of a raw image.

use super::raw::{RawFiles, RawQueue};
use super::{BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, lock};
use reactor::io as rio;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vm_memory::GuestMemoryMmap;

/// An open raw image, block device or scratch file.
pub(super) struct FileDisk {
    name: String,
    /// `None` once closed.
    files: Mutex<Option<RawFiles>>,
    size: AtomicU64,
    info: DiskInfo,
    locked: bool,
}

impl FileDisk {
    pub(super) fn new(
        name: String,
        files: RawFiles,
        size: u64,
        info: DiskInfo,
        locked: bool,
    ) -> Self {
        Self { name, files: Mutex::new(Some(files)), size: AtomicU64::new(size), info, locked }
    }

    fn files(&self) -> io::Result<RawFiles> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.clone().ok_or_else(|| io::Error::other("it is closed"))
    }

    fn error(&self, what: &'static str, source: io::Error) -> DiskError {
        DiskError { disk: self.name.clone(), what, source }
    }

    async fn close_files(&self, files: RawFiles) -> io::Result<()> {
        let flushed = if self.info.read_only || files.no_flush {
            Ok(())
        } else {
            rio::fdatasync(&files.file).await
        };
        if self.locked {
            // At once, and not when the kernel drops the last reference.
            lock::release(&files.file);
        }
        if let Some(buffered) = files.buffered {
            rio::close(buffered).await?;
        }
        flushed.and(rio::close(files.file).await)
    }
}

impl Disk for FileDisk {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn info(&self) -> DiskInfo {
        self.info
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        Ok(Box::new(RawQueue::new(&self.files()?, ram, slots, segments)))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async {
            let files = self.files().map_err(|source| self.error("flush", source))?;
            rio::fdatasync(&files.file).await.map_err(|source| self.error("flush", source))
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).take();
            match files {
                Some(files) => self
                    .close_files(files)
                    .await
                    .map_err(|source| self.error("the flush at its end", source)),
                None => Ok(()),
            }
        })
    }
}
