//! The block device (section 5.2).
//!
//! - `config`: the configuration space and the features
//! - `request`: a descriptor chain becomes a request, or the status that refuses it
//! - `worker`: one queue's requests

mod config;
mod request;
#[cfg(test)]
mod tests;
mod worker;

use super::device::{QueueSetup, VirtioDevice, copy_config};
use super::interrupt::ConfigNotifier;
use super::metrics::{QueueCounters, QueueMetrics};
use super::serve::serve;
use crate::block::{Disk, SECTOR};
use config::Limits;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use worker::Worker;

const DEVICE_TYPE: u16 = virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK as u16;
/// Mass storage, SCSI: what guests know such a device by.
const CLASS_STORAGE_SCSI: u32 = 0x01_00_00;
/// Bytes of the identity that GET_ID returns.
const ID_BYTES: usize = virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES as usize;
/// The kernel takes no more segments a call (`IOV_MAX`); a queue's size bounds a request's.
const QUEUE_SIZE_MAX: u16 = 1024;
const QUEUE_SIZE_MIN: u16 = 4;

/// What a block device is told at creation.
#[derive(Clone, Debug)]
pub struct BlkOptions {
    /// `serial=`: up to 20 bytes, for the guest's GET_ID.
    pub serial: Option<String>,
    /// `num-queues=`: 1 to 1024.
    pub num_queues: u16,
    /// `queue-size=`: a power of two, 4 to 1024.
    pub queue_size: u16,
    /// `logical_block_size=`: a power of two, 512 to 4096.
    pub logical_block: u32,
    /// `physical_block_size=`: a power of two from the logical block up; `None`: as the disk says.
    pub physical_block: Option<u32>,
    /// `write-cache=`: whether writes may sit in a volatile cache; `None`: as the disk says.
    pub writeback: Option<bool>,
}

impl Default for BlkOptions {
    fn default() -> Self {
        Self {
            serial: None,
            num_queues: 1,
            queue_size: 256,
            logical_block: SECTOR as u32,
            physical_block: None,
            writeback: None,
        }
    }
}

/// Why a block device cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlkError {
    /// The serial does not fit.
    #[error("serial '{0}' is longer than {ID_BYTES} bytes; shorten it")]
    Serial(String),
    /// A number of queues that cannot be.
    #[error("num-queues={0} is out of range; use 1 to 1024")]
    NumQueues(u16),
    /// A queue size that cannot be.
    #[error("queue-size={0} is not a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}")]
    QueueSize(u16),
    /// A block size that cannot be.
    #[error("logical_block_size={0} is not a power of two from 512 to 4096")]
    LogicalBlock(u32),
}

/// A virtio block device.
pub struct VirtioBlk {
    disk: Arc<dyn Disk>,
    limits: Limits,
    id: [u8; ID_BYTES],
    /// Sectors.
    capacity: AtomicU64,
    /// Writes may sit in a volatile cache: the `writeback` field.
    writeback: AtomicBool,
    queue_sizes: Box<[u16]>,
    metrics: Box<[Arc<QueueMetrics>]>,
    notifier: OnceLock<ConfigNotifier>,
}

impl VirtioBlk {
    /// A device that stores on `disk`.
    pub fn new(disk: Arc<dyn Disk>, options: BlkOptions) -> Result<Self, BlkError> {
        let BlkOptions { serial, num_queues, queue_size, logical_block, .. } = options;
        if !(1..=1024).contains(&num_queues) {
            return Err(BlkError::NumQueues(num_queues));
        }
        if !queue_size.is_power_of_two() || !(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&queue_size)
        {
            return Err(BlkError::QueueSize(queue_size));
        }
        if !logical_block.is_power_of_two() || !(512..=4096).contains(&logical_block) {
            return Err(BlkError::LogicalBlock(logical_block));
        }
        let mut id = [0; ID_BYTES];
        let serial = serial.unwrap_or_default();
        let Some(start) = id.get_mut(..serial.len()) else {
            return Err(BlkError::Serial(serial));
        };
        start.copy_from_slice(serial.as_bytes());
        let mut info = disk.info();
        info.physical_block = options.physical_block.unwrap_or(info.physical_block);
        info.writeback = options.writeback.unwrap_or(info.writeback);
        let limits = Limits { info, num_queues, queue_size, logical_block };
        Ok(Self {
            capacity: AtomicU64::new(limits.sectors(disk.size())),
            writeback: AtomicBool::new(info.writeback),
            limits,
            id,
            queue_sizes: vec![queue_size; usize::from(num_queues)].into(),
            metrics: (0..num_queues).map(|_| Arc::default()).collect(),
            notifier: OnceLock::new(),
            disk,
        })
    }

    /// The disk behind it.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The counters of each queue. Any thread.
    pub fn metrics(&self) -> Vec<QueueCounters> {
        self.metrics.iter().map(|queue| queue.snapshot()).collect()
    }

    /// The disk's size has changed: the guest sees the new capacity and is interrupted. Any thread.
    pub fn size_changed(&self) {
        let sectors = self.limits.sectors(self.disk.size());
        if self.capacity.swap(sectors, Ordering::AcqRel) != sectors
            && let Some(notifier) = self.notifier.get()
        {
            notifier.changed();
        }
    }

    /// Sectors.
    fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    fn writeback(&self) -> bool {
        self.writeback.load(Ordering::Acquire)
    }
}

impl VirtioDevice for VirtioBlk {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        CLASS_STORAGE_SCSI
    }

    fn features(&self) -> u64 {
        self.limits.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let image = self.limits.image(self.capacity(), self.writeback());
        copy_config(&image, offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8], features: u64) {
        // All but the cache mode is read-only (section 5.2.4).
        if offset == config::WRITEBACK
            && features & config::CONFIG_WCE != 0
            && let [value] = *data
        {
            self.writeback.store(value & 1 != 0, Ordering::Release);
        }
    }

    fn attach(&self, notifier: ConfigNotifier) {
        // A second transport would find the first one's; there is one.
        let _ = self.notifier.set(notifier);
    }

    fn serve(self: Arc<Self>, setup: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let metrics = Arc::clone(&self.metrics[usize::from(setup.index)]);
            serve(Worker::new(self, &setup), setup, metrics).await;
        })
    }

    fn reset(&self) {
        self.writeback.store(self.limits.info.writeback, Ordering::Release);
    }
}
