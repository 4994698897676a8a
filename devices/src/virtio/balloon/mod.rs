//! The memory balloon (section 5.5): memory that a guest does without goes back to the host.
//!
//! - `config`: the configuration space and the features
//! - `discard`: pages are freed
//! - `pages`: the queues for inflating, deflating and reporting
//! - `slot`: the one balloon of a machine
//! - `stats`, `stats_queue`: what the driver tells of its memory

mod config;
mod discard;
mod pages;
mod slot;
mod stats;
mod stats_queue;
#[cfg(test)]
mod tests;

pub use slot::BalloonSlot;
pub use stats::BalloonStats;

use super::device::{QueueSetup, VirtioDevice, copy_config};
use super::interrupt::ConfigNotifier;
use super::metrics::{QueueCounters, QueueMetrics};
use super::serve::{idle, serve};
use crate::clock::Clock;
use crate::signal::Signal;
use discard::PAGE;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

const DEVICE_TYPE: u16 = virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON as u16;
/// What guests know such a device by: a device of no class.
const CLASS_UNCLASSIFIED: u32 = 0x00_ff_00;
/// Inflate, deflate, statistics, reporting.
const QUEUE_SIZES: [u16; 4] = [128, 128, 128, 32];

/// Takes the bytes of memory that the guest has, when that changes. Any thread, returns at once.
pub type BalloonSink = Arc<dyn Fn(u64) + Send + Sync>;

/// What a balloon is told at creation.
#[derive(Clone, Copy, Debug)]
pub struct BalloonOptions {
    /// Bytes of the guest's memory with an empty balloon.
    pub ram_size: u64,
    /// `deflate-on-oom=`: the guest may take pages back when it has none left.
    pub deflate_on_oom: bool,
    /// `free-page-reporting=`: the guest tells of pages that it does not use just now.
    pub free_page_reporting: bool,
}

/// A virtio memory balloon.
pub struct VirtioBalloon {
    options: BalloonOptions,
    /// Pages that the driver shall give.
    wanted: AtomicU32,
    /// Pages that it has given.
    actual: AtomicU32,
    /// What it fills free pages with.
    poison: AtomicU32,
    /// Bytes that went back to the host.
    freed: AtomicU64,
    stats: Mutex<BalloonStats>,
    /// The statistics queue is between two tasks: the next buffer has been read already.
    stats_known: AtomicBool,
    /// Seconds from one question for statistics to the next; 0: none is asked.
    poll_seconds: AtomicU64,
    poll_changed: Arc<Signal>,
    metrics: [Arc<QueueMetrics>; QUEUE_SIZES.len()],
    notifier: OnceLock<ConfigNotifier>,
    changed: BalloonSink,
    clock: Arc<dyn Clock>,
}

impl VirtioBalloon {
    /// How many queues it has.
    pub const QUEUES: u16 = QUEUE_SIZES.len() as u16;

    /// An empty balloon. `changed` is told when its size changes; statistics are asked for by `clock`.
    pub fn new(options: BalloonOptions, changed: BalloonSink, clock: Arc<dyn Clock>) -> Self {
        Self {
            options,
            wanted: AtomicU32::new(0),
            actual: AtomicU32::new(0),
            poison: AtomicU32::new(0),
            freed: AtomicU64::new(0),
            stats: Mutex::default(),
            stats_known: AtomicBool::new(false),
            poll_seconds: AtomicU64::new(0),
            poll_changed: Arc::default(),
            metrics: std::array::from_fn(|_| Arc::default()),
            notifier: OnceLock::new(),
            changed,
            clock,
        }
    }

    /// Asks the driver to leave the guest `bytes` of memory; more than it has is all of it. Any
    /// thread.
    pub fn set_target(&self, bytes: u64) {
        let pages = self.options.ram_size.saturating_sub(bytes) / PAGE;
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        if self.wanted.swap(pages, Ordering::AcqRel) != pages
            && let Some(notifier) = self.notifier.get()
        {
            notifier.changed();
        }
    }

    /// Bytes of memory that the guest has now. Any thread.
    pub fn actual(&self) -> u64 {
        let given = u64::from(self.actual.load(Ordering::Acquire)) * PAGE;
        self.options.ram_size.saturating_sub(given)
    }

    /// Bytes that the device has given back to the host since it was made; what the guest has
    /// taken again is counted as well. Any thread.
    pub fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    /// The statistics that the driver told last. Any thread.
    pub fn stats(&self) -> BalloonStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the driver is asked for statistics, in whole seconds; 0: never. Any thread.
    pub fn stats_interval(&self) -> Duration {
        Duration::from_secs(self.poll_seconds.load(Ordering::Acquire))
    }

    /// Changes that.
    pub fn set_stats_interval(&self, interval: Duration) {
        self.poll_seconds.store(interval.as_secs(), Ordering::Release);
        self.poll_changed.changed();
    }

    /// The counters of each queue. Any thread.
    pub fn metrics(&self) -> Vec<QueueCounters> {
        self.metrics.iter().map(|queue| queue.snapshot()).collect()
    }

    async fn serve_queue(self: Arc<Self>, setup: QueueSetup) {
        let metrics = Arc::clone(&self.metrics[usize::from(setup.index)]);
        // Section 5.5.2: queues of features that were not negotiated are not counted.
        let has = |feature| setup.features & feature != 0;
        let reporting = if has(config::STATS_VQ) { 3 } else { 2 };
        match setup.index {
            0 => serve(Ok(pages::Numbers::new(self, &setup, true)), setup, metrics).await,
            1 => serve(Ok(pages::Numbers::new(self, &setup, false)), setup, metrics).await,
            2 if has(config::STATS_VQ) => {
                serve(Ok(stats_queue::Worker::new(self, &setup)), setup, metrics).await;
            }
            n if n == reporting && has(config::REPORTING) => {
                serve(Ok(pages::Ranges::new(self)), setup, metrics).await;
            }
            _ => idle(setup, metrics).await,
        }
    }

    fn set_actual(&self, pages: u32) {
        if self.actual.swap(pages, Ordering::AcqRel) != pages {
            (self.changed)(self.actual());
        }
    }
}

impl VirtioDevice for VirtioBalloon {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        CLASS_UNCLASSIFIED
    }

    fn features(&self) -> u64 {
        config::features(self.options.deflate_on_oom, self.options.free_page_reporting)
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let [wanted, actual, poison] =
            [&self.wanted, &self.actual, &self.poison].map(|field| field.load(Ordering::Acquire));
        copy_config(&config::image(wanted, actual, poison), offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8], features: u64) {
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else { return };
        match offset {
            config::ACTUAL => self.set_actual(value),
            config::POISON if features & config::PAGE_POISON != 0 => {
                self.poison.store(value, Ordering::Release);
            }
            _ => {}
        }
    }

    fn attach(&self, notifier: ConfigNotifier) {
        // A second transport would find the first one's; there is one.
        let _ = self.notifier.set(notifier);
    }

    fn serve(self: Arc<Self>, setup: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.serve_queue(setup))
    }

    fn reset(&self) {
        self.poison.store(0, Ordering::Release);
        self.stats_known.store(false, Ordering::Release);
    }
}
