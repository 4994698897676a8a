//! The entropy device (section 5.4): random bytes for the guest, from a file, at a limited rate.

mod entropy;
#[cfg(test)]
mod tests;
mod worker;

pub use entropy::Entropy;

use super::device::{QueueSetup, VirtioDevice};
use super::features;
use super::metrics::{QueueCounters, QueueMetrics};
use super::serve::serve;
use crate::clock::Clock;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use worker::{Period, Worker};

const DEVICE_TYPE: u16 = virtio_bindings::virtio_ids::VIRTIO_ID_RNG as u16;
/// None of the classes there are.
const CLASS_OTHERS: u32 = 0xff_00_00;
const QUEUE_SIZE: u16 = 8;

/// How many bytes a guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// `max-bytes=`: in one period; 1 or more.
    pub bytes: u64,
    /// `period=`: its length, longer than 0.
    pub period: Duration,
}

/// A rate that gives nothing, or lasts no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entropy device gives 1 byte or more in a period longer than 0")]
pub struct RateError;

/// A virtio entropy device.
pub struct VirtioRng {
    entropy: Arc<Entropy>,
    limit: Option<RateLimit>,
    clock: Arc<dyn Clock>,
    period: Mutex<Option<Period>>,
    metrics: Arc<QueueMetrics>,
}

impl VirtioRng {
    /// A device that gives out what `entropy` has, without a limit where there is none. Periods go by
    /// `clock`.
    pub fn new(
        entropy: Arc<Entropy>,
        limit: Option<RateLimit>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RateError> {
        if limit.is_some_and(|limit| limit.bytes == 0 || limit.period.is_zero()) {
            return Err(RateError);
        }
        Ok(Self { entropy, limit, clock, period: Mutex::default(), metrics: Arc::default() })
    }

    /// Where the period stands while the queue is between two tasks.
    fn kept_period(&self) -> MutexGuard<'_, Option<Period>> {
        self.period.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of its queue. Any thread.
    pub fn metrics(&self) -> QueueCounters {
        self.metrics.snapshot()
    }
}

impl VirtioDevice for VirtioRng {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        CLASS_OTHERS
    }

    fn features(&self) -> u64 {
        features::COMMON
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config_read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn serve(self: Arc<Self>, setup: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>> {
        let metrics = Arc::clone(&self.metrics);
        let worker = Worker::new(self, &setup);
        Box::pin(serve(Ok(worker), setup, metrics))
    }
}
