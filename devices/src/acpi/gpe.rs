//! General-purpose events (ACPI 6.5, section 4.8.4.1): block 0, two bytes of status, then two of enable.

use super::pm::AcpiPm;
use std::sync::Arc;
use vcpu::bus::BusDevice;

/// First port of the block.
pub const GPE0_PORT: u16 = 0xafe0;
/// Ports of the block.
pub const GPE0_LEN: u16 = 4;
/// The event of PCI hot-plug.
pub const GPE_PCI_HOTPLUG: u8 = 1;

const ENABLE: usize = 2;

/// Status and enable bits. Kept with the fixed events, with which they share an interrupt.
#[derive(Debug, Default)]
pub(super) struct Gpe {
    status: u16,
    enable: u16,
}

impl Gpe {
    /// Whether the system control interrupt is wanted.
    pub(super) fn is_asserted(&self) -> bool {
        self.status & self.enable != 0
    }

    pub(super) fn raise(&mut self, event: u8) {
        self.status |= 1 << event;
    }

    fn image(&self) -> [u8; GPE0_LEN as usize] {
        let (status, enable) = (self.status.to_le_bytes(), self.enable.to_le_bytes());
        [status[0], status[1], enable[0], enable[1]]
    }

    /// Ones written to a status bit clear it.
    fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let shift = 8 * (at % 2);
            let (bits, lane) = (u16::from(*byte) << shift, 0xff << shift);
            match at {
                0..ENABLE => self.status &= !bits,
                ENABLE..4 => self.enable = self.enable & !lane | bits,
                _ => {}
            }
        }
    }
}

/// The ports of the block.
pub struct GpePorts(Arc<AcpiPm>);

impl GpePorts {
    /// Those that belong to `pm`.
    pub fn new(pm: Arc<AcpiPm>) -> Arc<Self> {
        Arc::new(Self(pm))
    }
}

impl BusDevice for GpePorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let image = self.0.with_gpe(|gpe| gpe.image());
        for (at, byte) in (offset as usize..).zip(data) {
            *byte = image.get(at).copied().unwrap_or(0);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.0.with_gpe(|gpe| gpe.write(offset as usize, data));
    }
}
