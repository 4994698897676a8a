//! Features and configuration space of the block device (sections 5.2.3 and 5.2.4).

use crate::block::{DiskInfo, SECTOR};
use crate::virtio::features;
use virtio_bindings::virtio_blk as vb;

const SEG_MAX: u64 = 1 << vb::VIRTIO_BLK_F_SEG_MAX;
const RO: u64 = 1 << vb::VIRTIO_BLK_F_RO;
const BLK_SIZE: u64 = 1 << vb::VIRTIO_BLK_F_BLK_SIZE;
/// FLUSH requests exist.
pub(super) const FLUSH: u64 = 1 << vb::VIRTIO_BLK_F_FLUSH;
const TOPOLOGY: u64 = 1 << vb::VIRTIO_BLK_F_TOPOLOGY;
/// The driver may choose the cache mode.
pub(super) const CONFIG_WCE: u64 = 1 << vb::VIRTIO_BLK_F_CONFIG_WCE;
const MQ: u64 = 1 << vb::VIRTIO_BLK_F_MQ;
const DISCARD: u64 = 1 << vb::VIRTIO_BLK_F_DISCARD;
const WRITE_ZEROES: u64 = 1 << vb::VIRTIO_BLK_F_WRITE_ZEROES;

/// Bytes of the configuration space that have a meaning.
const LEN: usize = 60;
/// Offset of the cache mode.
pub(super) const WRITEBACK: u64 = 32;

/// Sectors in one discard or write-zeroes request: what a 32-bit byte count can say.
pub(super) const UNMAP_SECTORS_MAX: u32 = (i32::MAX as u32) >> 9;
/// Segments in one such request.
const UNMAP_SEGMENTS: u32 = 1;

/// What does not change while the device exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) info: DiskInfo,
    pub(super) num_queues: u16,
    pub(super) queue_size: u16,
    pub(super) logical_block: u32,
}

impl Limits {
    pub(super) fn features(&self) -> u64 {
        let common = features::COMMON | SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY;
        let queues = if self.num_queues > 1 { MQ } else { 0 };
        let writable = if self.info.read_only { RO } else { CONFIG_WCE | DISCARD | WRITE_ZEROES };
        common | queues | writable
    }

    /// Whole logical blocks of a disk of `bytes`, in sectors.
    pub(super) fn sectors(&self, bytes: u64) -> u64 {
        (bytes - bytes % u64::from(self.logical_block)) / SECTOR
    }

    /// Data segments in one request: a header and a status take the two others.
    fn seg_max(&self) -> u32 {
        u32::from(self.queue_size) - 2
    }

    /// The configuration space.
    pub(super) fn image(&self, capacity: u64, writeback: bool) -> [u8; LEN] {
        let mut image = [0; LEN];
        let mut put = |offset: usize, bytes: &[u8]| {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        let physical = self.info.physical_block.max(self.logical_block);
        let granularity = self.info.discard_granularity.unwrap_or(0).max(self.logical_block);
        put(0, &capacity.to_le_bytes());
        put(12, &self.seg_max().to_le_bytes());
        put(20, &self.logical_block.to_le_bytes());
        // Logical blocks in a physical one, as a power of two; the first one is aligned.
        put(24, &[(physical / self.logical_block).ilog2() as u8, 0]);
        put(26, &((physical / self.logical_block) as u16).to_le_bytes());
        put(WRITEBACK as usize, &[u8::from(writeback)]);
        put(34, &self.num_queues.to_le_bytes());
        if !self.info.read_only {
            put(36, &UNMAP_SECTORS_MAX.to_le_bytes());
            put(40, &UNMAP_SEGMENTS.to_le_bytes());
            put(44, &(granularity / SECTOR as u32).to_le_bytes());
            put(48, &UNMAP_SECTORS_MAX.to_le_bytes());
            put(52, &UNMAP_SEGMENTS.to_le_bytes());
            put(56, &[u8::from(self.info.discard_granularity.is_some())]);
        }
        image
    }
}
