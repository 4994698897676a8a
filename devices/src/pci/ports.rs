//! How a guest reaches configuration space: mechanism #1 (PCI Local Bus 3.0, section 3.2.2.3.2)
//! and ECAM (PCI Express Base 3.0, section 7.2.2).

use super::root::Topology;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use vcpu::bus::BusDevice;

/// First port of mechanism #1.
pub const CONFIG_PORTS: u64 = 0xcf8;
/// Ports of mechanism #1.
pub const CONFIG_PORTS_LEN: u64 = 8;
/// Bytes of ECAM: 256 buses of 32 devices of 8 functions of 4 KiB.
pub const ECAM_LEN: u64 = 256 << 20;
/// Reset control register, and what FADT says to write there.
pub const RESET_PORT: u16 = 0xcf9;
/// Full reset: the bit that resets (2), with the kind of reset (1 and 3).
pub const RESET_VALUE: u8 = 0x0e;

const CONFIG_ENABLE: u32 = 1 << 31;
const DATA: u64 = 4;
const RESET_CONTROL: u64 = 1;
const RESET_CPU: u8 = 1 << 2;

/// CONFIG_ADDRESS at 0xcf8, the reset control register at 0xcf9 (bytes only), CONFIG_DATA at 0xcfc.
///
/// Only a 32-bit write latches CONFIG_ADDRESS, as on the bus. Its low byte is used as it stands:
/// the register accessed is that byte OR the low two bits of the data port.
pub struct ConfigPorts {
    topology: Arc<Topology>,
    reset_control: AtomicU8,
    reset: Arc<dyn Fn() + Send + Sync>,
}

impl ConfigPorts {
    pub(super) fn new(topology: Arc<Topology>, reset: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { topology, reset_control: AtomicU8::new(0), reset }
    }

    // Bus, device and function, register.
    fn target(&self, offset: u64) -> Option<(u8, u8, u16)> {
        let address = self.topology.address();
        let register = address as u8 | (offset - DATA) as u8;
        (address & CONFIG_ENABLE != 0).then_some((
            (address >> 16) as u8,
            (address >> 8) as u8,
            register.into(),
        ))
    }

    fn reset_written(&self, value: u8) {
        let before = self.reset_control.swap(value & !RESET_CPU, Ordering::AcqRel);
        if value & !before & RESET_CPU != 0 {
            (self.reset)();
        }
    }
}

/// How much of an access of `len` bytes at `register` stays in the 256 bytes that mechanism #1
/// reaches.
fn reach(register: u16, len: usize) -> usize {
    len.min(256usize.saturating_sub(register.into()))
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset == RESET_CONTROL && data.len() == 1 {
            data[0] = self.reset_control.load(Ordering::Acquire);
        } else if offset < DATA {
            let address = self.topology.address().to_le_bytes();
            for (at, byte) in (offset as usize..).zip(data) {
                *byte = address.get(at).copied().unwrap_or(0xff);
            }
        } else {
            data.fill(0xff);
            if let Some((bus, devfn, register)) = self.target(offset) {
                let len = reach(register, data.len());
                self.topology.read(bus, devfn, register, &mut data[..len]);
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, &[a, b, c, d]) => self.topology.set_address(u32::from_le_bytes([a, b, c, d])),
            (RESET_CONTROL, &[value]) => self.reset_written(value),
            (DATA.., _) => {
                if let Some((bus, devfn, register)) = self.target(offset) {
                    let len = reach(register, data.len());
                    self.topology.write(bus, devfn, register, &data[..len]);
                }
            }
            _ => {}
        }
    }
}

/// Memory-mapped configuration space.
pub struct Ecam {
    topology: Arc<Topology>,
}

impl Ecam {
    pub(super) fn new(topology: Arc<Topology>) -> Self {
        Self { topology }
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let (bus, devfn, register) = split(offset);
        self.topology.read(bus, devfn, register, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (bus, devfn, register) = split(offset);
        self.topology.write(bus, devfn, register, data);
    }
}

fn split(offset: u64) -> (u8, u8, u16) {
    ((offset >> 20) as u8, (offset >> 12) as u8, (offset & 0xfff) as u16)
}
