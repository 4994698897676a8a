//! The control handle of a raw image.

mod reopen;

use super::lock::{self, Claim, LockError};
use super::raw::{RawFiles, RawQueue};
use super::{BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, SECTOR};
use crate::fdset;
use reactor::sync::Notify;
use reactor::{Fd, io as rio};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vm_memory::GuestMemoryMmap;

/// An open raw image, block device or scratch file.
pub(super) struct FileDisk {
    name: String,
    /// `None` once closed.
    files: Mutex<Option<RawFiles>>,
    size: AtomicU64,
    info: DiskInfo,
    /// The locks taken.
    claim: Mutex<Claim>,
    users: Arc<Users>,
    /// The set that its descriptor is a clone of, until it is closed.
    from: Mutex<Option<fdset::Use>>,
}

/// The data handles of an image.
#[derive(Default)]
pub(super) struct Users {
    count: AtomicUsize,
    gone: Notify,
}

/// A data handle of an image, until it is dropped.
pub(super) struct User(Arc<Users>);

impl User {
    pub(super) fn new(users: &Arc<Users>) -> Self {
        users.count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(users))
    }
}

impl Users {
    /// Waits until none is left.
    pub(super) async fn unused(&self) {
        loop {
            let gone = self.gone.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            gone.await;
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `unused`.
        if self.0.count.fetch_sub(1, Ordering::Release) == 1 {
            self.0.gone.notify_all();
        }
    }
}

impl FileDisk {
    pub(super) fn new(
        name: String,
        files: RawFiles,
        size: u64,
        info: DiskInfo,
        claim: Claim,
    ) -> Self {
        Self {
            name,
            files: Mutex::new(Some(files)),
            size: AtomicU64::new(size),
            info,
            claim: Mutex::new(claim),
            users: Arc::default(),
            from: Mutex::default(),
        }
    }

    /// The same, opened from a set of descriptors.
    pub(super) fn with_set(self, from: Option<fdset::Use>) -> Self {
        Self { from: Mutex::new(from), ..self }
    }

    /// Replaces the locks taken; on an error they stay as they are.
    pub(super) fn set_claim(&self, wanted: Claim) -> Result<(), LockError> {
        let files = self.files().map_err(LockError::Unsupported)?;
        let mut held = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != wanted {
            lock::change(&files.file, *held, wanted)?;
            *held = wanted;
        }
        Ok(())
    }

    /// Bytes that the image takes on the host.
    pub(super) fn allocated(&self) -> Option<u64> {
        let status = nix::sys::stat::fstat(&self.files().ok()?.file).ok()?;
        u64::try_from(status.st_blocks).ok().map(|blocks| blocks * SECTOR)
    }

    /// The image through the page cache.
    pub(super) fn buffered(&self) -> io::Result<Fd> {
        let files = self.files()?;
        Ok(files.buffered.unwrap_or(files.file))
    }

    /// The image has been changed, past the queues.
    pub(super) fn changed(&self) -> io::Result<()> {
        self.files()?.written.note(0);
        Ok(())
    }

    /// Makes what was written stable.
    pub(super) async fn sync(&self) -> io::Result<()> {
        let Some(syncing) = self.files()?.written.begin() else { return Ok(()) };
        rio::fdatasync(&self.buffered()?).await?;
        syncing.succeeded();
        Ok(())
    }

    /// The image has been written up to `end`.
    pub(super) fn grown(&self, end: u64) {
        self.size.fetch_max(end, Ordering::Relaxed);
    }

    /// Changes the size of the image.
    pub(super) async fn resize(&self, size: u64) -> io::Result<()> {
        let resized = rio::ftruncate(&self.files()?.file, size).await;
        self.changed()?;
        resized?;
        self.size.store(size, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until no data handle is left.
    pub(super) async fn unused(&self) {
        self.users.unused().await;
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
        let claim = self.claim.lock().map_or_else(|held| *held.into_inner(), |held| *held);
        if claim != Claim::NONE {
            // At once, and not when the kernel drops the last reference.
            lock::release(&files.file);
        }
        if let Some(buffered) = files.buffered {
            rio::close(buffered).await?;
        }
        let closed = rio::close(files.file).await;
        drop(self.from.lock().unwrap_or_else(PoisonError::into_inner).take());
        flushed.and(closed)
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
        let queue = RawQueue::new(&self.files()?, ram, slots, segments);
        Ok(Box::new(queue.with_user(User::new(&self.users))))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async {
            let files = self.files().map_err(|source| self.error("flush", source))?;
            let Some(syncing) = files.written.begin() else { return Ok(()) };
            rio::fdatasync(&files.file).await.map_err(|source| self.error("flush", source))?;
            syncing.succeeded();
            Ok(())
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
