//! Where base address registers may decode, and the regions that then answer.

use super::device::PciDevice;
use super::msix::{Msix, MsixPlace};
use std::ops::Range;
use std::sync::Arc;
use vcpu::bus::{BusDevice, Space};

/// Priority of the regions of base address registers. Fixed devices are mapped above it, so that a
/// guest cannot place a BAR over them.
pub const BAR_PRIORITY: i32 = 0;
/// Priority for devices at fixed addresses.
pub const FIXED_PRIORITY: i32 = 1;

/// The parts of the address spaces that the host bridge passes on to PCI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciWindows {
    /// Ports.
    pub io: Range<u64>,
    /// Memory below 4 GiB.
    pub memory32: Range<u64>,
    /// Memory above RAM.
    pub memory64: Range<u64>,
}

impl PciWindows {
    /// Whether `size` bytes at `base` lie inside one window.
    pub fn admit(&self, space: Space, base: u64, size: u64) -> bool {
        let inside = |window: &Range<u64>| {
            base >= window.start && base.checked_add(size).is_some_and(|end| end <= window.end)
        };
        match space {
            Space::Pio => inside(&self.io),
            Space::Mmio => inside(&self.memory32) || inside(&self.memory64),
        }
    }
}

/// What one BAR answers with: the MSI-X structures where they lie in it, the device elsewhere.
pub(super) struct BarRegion {
    pub(super) bar: usize,
    pub(super) device: Arc<dyn PciDevice>,
    pub(super) msix: Option<(Arc<Msix>, MsixPlace)>,
}

enum Target<'a> {
    Table(&'a Msix, u64),
    Pba(&'a Msix, u64),
    Device,
}

impl BarRegion {
    fn target(&self, offset: u64) -> Target<'_> {
        let Some((msix, place)) = &self.msix else { return Target::Device };
        let within = |bar, start: u32, size| {
            let at = offset.checked_sub(u64::from(start))?;
            (bar == self.bar && at < size).then_some(at)
        };
        if let Some(at) = within(place.table_bar, place.table_offset, msix.table_size()) {
            Target::Table(msix, at)
        } else if let Some(at) = within(place.pba_bar, place.pba_offset, msix.pba_size()) {
            Target::Pba(msix, at)
        } else {
            Target::Device
        }
    }
}

impl BusDevice for BarRegion {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.target(offset) {
            Target::Table(msix, at) => msix.read_table(at, data),
            Target::Pba(msix, at) => msix.read_pba(at, data),
            Target::Device => self.device.bar_read(self.bar, offset, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match self.target(offset) {
            Target::Table(msix, at) => msix.write_table(at, data),
            Target::Pba(..) => {}
            Target::Device => self.device.bar_write(self.bar, offset, data),
        }
    }
}
