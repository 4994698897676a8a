//! The one balloon of a machine.

use super::{BalloonOptions, BalloonSink, VirtioBalloon};
use crate::clock::Clock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Where a machine's balloon is found, if it has one. Any thread.
pub struct BalloonSlot {
    ram_size: u64,
    changed: BalloonSink,
    clock: Arc<dyn Clock>,
    device: Mutex<Weak<VirtioBalloon>>,
}

impl BalloonSlot {
    /// For a guest with `ram_size` bytes of memory; `changed` is told when its balloon changes.
    pub fn new(ram_size: u64, changed: BalloonSink, clock: Arc<dyn Clock>) -> Self {
        Self { ram_size, changed, clock, device: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Weak<VirtioBalloon>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the balloon; `None` while there is one.
    pub fn make(
        &self,
        deflate_on_oom: bool,
        free_page_reporting: bool,
    ) -> Option<Arc<VirtioBalloon>> {
        let mut place = self.lock();
        if place.strong_count() > 0 {
            return None;
        }
        let ram_size = self.ram_size;
        let options = BalloonOptions { ram_size, deflate_on_oom, free_page_reporting };
        let (changed, clock) = (Arc::clone(&self.changed), Arc::clone(&self.clock));
        let balloon = Arc::new(VirtioBalloon::new(options, changed, clock));
        *place = Arc::downgrade(&balloon);
        Some(balloon)
    }

    /// The balloon is gone, whoever may still hold it.
    pub fn clear(&self) {
        *self.lock() = Weak::new();
    }

    /// The balloon.
    pub fn get(&self) -> Option<Arc<VirtioBalloon>> {
        self.lock().upgrade()
    }
}
