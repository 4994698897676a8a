//! What a device type implements.

use super::interrupt::{ConfigNotifier, Fault, QueueInterrupt};
use super::queue::Virtqueue;
use reactor::Fd;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// future lives on the queue's context; nothing may be in flight when it ends.
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

/// Tells a queue's task to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the task shall end: it takes no request, reports none and interrupts nobody any
    /// more. Whoever asks for it rings the queue's doorbell afterwards.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
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
