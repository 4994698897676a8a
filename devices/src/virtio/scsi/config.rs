//! Features and configuration space of the SCSI host device (sections 5.6.3 and 5.6.4).

use super::ScsiOptions;
use crate::virtio::features;
use std::sync::atomic::{AtomicU32, Ordering};

/// A request may have data in both directions.
pub(super) const INOUT: u64 = 1;
/// The driver wants to know of units that come and go.
pub(super) const HOTPLUG: u64 = 1 << 1;
/// The driver wants to know of units that change.
pub(super) const CHANGE: u64 = 1 << 2;
/// What the device offers. No protection information (T10_PI).
pub(super) const OFFERED: u64 = features::COMMON | INOUT | HOTPLUG | CHANGE;

/// Bytes of the configuration space.
const LEN: usize = 36;
const SENSE_SIZE: u64 = 20;
const CDB_SIZE: u64 = 24;

const SENSE_SIZE_DEFAULT: u32 = 96;
const CDB_SIZE_DEFAULT: u32 = 32;
/// The most sense data there can be (SPC-4, section 4.5).
pub(super) const SENSE_SIZE_MAX: u32 = 252;
/// A CDB's length fits a byte.
const CDB_SIZE_MAX: u32 = 255;

/// The last target.
const TARGET_MAX: u16 = 255;
/// The last logical unit of a target.
const LUN_MAX: u32 = crate::scsi::LUNS as u32 - 1;

/// What the driver may change.
pub(super) struct Sizes {
    sense: AtomicU32,
    cdb: AtomicU32,
}

/// The sizes of the variable parts of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) sense: u32,
    pub(super) cdb: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { sense: AtomicU32::new(SENSE_SIZE_DEFAULT), cdb: AtomicU32::new(CDB_SIZE_DEFAULT) }
    }
}

impl Sizes {
    /// The sizes at this moment.
    pub(super) fn shape(&self) -> Shape {
        let load = |size: &AtomicU32| size.load(Ordering::Acquire);
        Shape { sense: load(&self.sense), cdb: load(&self.cdb) }
    }

    pub(super) fn reset(&self) {
        self.sense.store(SENSE_SIZE_DEFAULT, Ordering::Release);
        self.cdb.store(CDB_SIZE_DEFAULT, Ordering::Release);
    }

    /// The driver writes; sizes that cannot be are not taken, which reading them shows.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return };
        match offset {
            SENSE_SIZE if value <= SENSE_SIZE_MAX => self.sense.store(value, Ordering::Release),
            CDB_SIZE if value <= CDB_SIZE_MAX => self.cdb.store(value, Ordering::Release),
            _ => {}
        }
    }
}

/// The configuration space.
pub(super) fn image(options: &ScsiOptions, shape: Shape) -> [u8; LEN] {
    // A header and an answer take two of a chain's segments.
    let seg_max = u32::from(options.queue_size) - 2;
    let seg_max = options.seg_max.map_or(seg_max, |wanted| wanted.min(seg_max));
    let mut image = [0; LEN];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &u32::from(options.num_queues).to_le_bytes());
    put(4, &seg_max.to_le_bytes());
    put(8, &options.max_sectors.to_le_bytes());
    put(12, &options.cmd_per_lun.to_le_bytes());
    put(16, &(super::event::EVENT_BYTES as u32).to_le_bytes());
    put(SENSE_SIZE as usize, &shape.sense.to_le_bytes());
    put(CDB_SIZE as usize, &shape.cdb.to_le_bytes());
    put(28, &0u16.to_le_bytes());
    put(30, &TARGET_MAX.to_le_bytes());
    put(32, &LUN_MAX.to_le_bytes());
    image
}
