//! What a device type implements.

use super::interrupt::{ConfigNotifier, Fault, QueueInterrupt};
use super::queue::{RingPosition, Virtqueue};
use futures_util::task::AtomicWaker;
use reactor::Fd;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A virtio device type behind a transport.
///
/// Register accesses come from vCPU threads and must not block; [`VirtioDevice::serve`] runs on a
/// queue's core context.
pub trait VirtioDevice: Send + Sync + 'static {
    /// The device type (section 5).
    fn device_type(&self) -> u16;

    /// The PCI class code, 24 bits.
    fn pci_class(&self) -> u32;

    /// The features offered, [`features::COMMON`](super::features::COMMON) included.
    fn features(&self) -> u64;

    /// The largest size of each queue, powers of two up to 32768.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from `offset` into the configuration space; bytes past its end read as zero.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data` written at `offset` into the configuration space. `features` are those the
    /// driver has accepted so far.
    fn config_write(&self, _offset: u64, _data: &[u8], _features: u64) {}

    /// Called once, when the transport is made.
    fn attach(&self, _notifier: ConfigNotifier) {}

    /// The driver, which has accepted `features`, is ready: its queues will be served. Any thread;
    /// must not block.
    fn started(&self, _features: u64) {}

    /// Serves one queue until [`QueueSetup::stop`] says so, and lets go of guest memory then. The
    /// future lives on the queue's context; nothing may be in flight when it ends. A queue that moves to
    /// another context is served anew there.
    fn serve(self: Arc<Self>, queue: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>>;

    /// The device is reset and no queue is served: what the driver has set is as at power-on.
    fn reset(&self) {}
}

/// Fills `data` from `offset` into the configuration space `image`; past its end with zeroes.
pub(super) fn copy_config(image: &[u8], offset: u64, data: &mut [u8]) {
    let from = usize::try_from(offset).ok().and_then(|at| image.get(at..)).unwrap_or_default();
    let n = data.len().min(from.len());
    data[..n].copy_from_slice(&from[..n]);
    data[n..].fill(0);
}

/// What a queue's task shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Serve the queue.
    Serve,
    /// Take nothing more, finish what is in flight, and leave the queue to another task.
    Pause,
    /// End: take no request, report none and interrupt nobody any more.
    End,
}

const SERVE: u8 = 0;
const PAUSE: u8 = 1;
/// It has paused, and its position is there.
const LEFT: u8 = 2;
const END: u8 = 3;

#[derive(Debug, Default)]
struct StopState {
    wish: AtomicU8,
    position: Mutex<Option<RingPosition>>,
    task: AtomicWaker,
}

/// Tells a queue's task to end or to pause. Whoever asks for either rings the queue's doorbell
/// afterwards.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopState>);

impl Stop {
    fn position(&self) -> MutexGuard<'_, Option<RingPosition>> {
        self.0.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn request(&self) {
        self.0.wish.store(END, Ordering::SeqCst);
        self.0.task.wake();
    }

    /// Asks a task that serves to pause.
    pub(super) fn pause(&self) {
        let wish = &self.0.wish;
        let _other = wish.compare_exchange(SERVE, PAUSE, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Asks a task that has not paused yet to serve again.
    pub(super) fn resume(&self) {
        let wish = &self.0.wish;
        let _other = wish.compare_exchange(PAUSE, SERVE, Ordering::SeqCst, Ordering::SeqCst);
        self.0.task.wake();
    }

    /// Whether the task has been asked to end or to pause.
    pub fn requested(&self) -> bool {
        self.0.wish.load(Ordering::SeqCst) != SERVE
    }

    /// What the task shall do; it is woken when that changes once more.
    pub(super) fn wish(&self, task: &Waker) -> Wish {
        if !self.requested() {
            return Wish::Serve;
        }
        self.0.task.register(task);
        match self.0.wish.load(Ordering::SeqCst) {
            SERVE => Wish::Serve,
            PAUSE => Wish::Pause,
            _ => Wish::End,
        }
    }

    /// The task has paused at `position` and will not touch the queue again; false where it shall not
    /// pause any more.
    pub(super) fn leave(&self, position: RingPosition) -> bool {
        *self.position() = Some(position);
        let wish = &self.0.wish;
        let left = wish.compare_exchange(PAUSE, LEFT, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !left {
            *self.position() = None;
        }
        left
    }

    /// Where the task has paused.
    pub(super) fn left_at(&self) -> Option<RingPosition> {
        *self.position()
    }

    /// Whether both are of the same task.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// All that the task of one queue needs.
pub struct QueueSetup {
    /// The queue's number.
    pub index: u16,
    /// The rings, checked to lie in guest RAM.
    pub queue: Virtqueue,
    /// The features the driver has accepted.
    pub features: u64,
    /// An eventfd that the driver's notifications add to.
    pub doorbell: Fd,
    /// Checked after each doorbell.
    pub stop: Stop,
    /// To tell the driver of used buffers.
    pub interrupt: QueueInterrupt,
    /// To tell it that it broke the rules.
    pub fault: Fault,
}
