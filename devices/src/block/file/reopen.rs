//! Going over to other options while a raw image is open.

use super::{FileDisk, Users};
use crate::block::lock::{self, Claim, LockError};
use crate::block::options::{Discard, FileOptions};
use crate::block::raw::RawFiles;
use crate::block::{DiskInfo, SECTOR};
use reactor::io as rio;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

impl FileDisk {
    /// The same image with other options, on the same descriptors; `None` where it must be opened
    /// anew for them. It has no locks: see [`take_over`](Self::take_over).
    pub(in crate::block) fn reopened(&self, options: &FileOptions) -> Option<Self> {
        let files = self.files().ok()?;
        let same = options.read_only == self.info.read_only
            && options.cache.direct == files.direct.is_some();
        let block = nix::sys::stat::fstat(&files.file).ok()?.st_blksize;
        let block = u32::try_from(block).unwrap_or(0).max(SECTOR as u32);
        let files =
            RawFiles { discard: options.discard, no_flush: options.cache.no_flush, ..files };
        let discard_granularity = (options.discard == Discard::Unmap).then_some(block);
        same.then(|| Self {
            name: self.name.clone(),
            files: Mutex::new(Some(files)),
            size: AtomicU64::new(self.size.load(Ordering::Relaxed)),
            info: DiskInfo { discard_granularity, ..self.info },
            claim: Mutex::new(Claim::NONE),
            users: Arc::<Users>::default(),
            from: Mutex::default(),
        })
    }

    /// Closes the descriptors, where another one has the image open: what was written is for it to
    /// make stable. On a reactor.
    pub(in crate::block) async fn retire(&self) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(RawFiles { file, buffered, .. }) = files else { return };
        for file in buffered.into_iter().chain([file]) {
            if let Err(error) = rio::close(file).await {
                tracing::warn!(image = self.name, %error, "closing a descriptor");
            }
        }
        drop(self.from.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Takes the locks of `before`, which is open on the same image, and what else only one of
    /// them can have. Nobody else gets a lock meanwhile. Does not block.
    pub(in crate::block) fn take_over(&self, before: &Self) -> Result<(), LockError> {
        let files = self.files().map_err(LockError::Unsupported)?;
        let old = before.files().map_err(LockError::Unsupported)?;
        let mut held = before.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if files.file.as_raw_fd() == old.file.as_raw_fd() {
            let from = before.from.lock().unwrap_or_else(PoisonError::into_inner).take();
            if from.is_some() {
                *self.from.lock().unwrap_or_else(PoisonError::into_inner) = from;
            }
        } else if *held != Claim::NONE {
            if let Err(error) = lock::copy(&files.file, *held) {
                lock::release(&files.file);
                return Err(error);
            }
            lock::release(&old.file);
        }
        if *held == Claim::NONE {
            return Ok(());
        }
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        *claim = std::mem::replace(&mut *held, Claim::NONE);
        Ok(())
    }
}
