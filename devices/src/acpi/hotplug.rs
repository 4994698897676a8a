//! PCI hot-plug by ACPI: the registers that QEMU's published layout has, for one bus
//! (docs/specs/acpi_pci_hotplug).
//!
//! | port | 4 bytes |
//! |---|---|
//! | 0xae00 | slots that have got a device; cleared by reading |
//! | 0xae04 | slots whose device shall go |
//! | 0xae08 | write: slots to eject; read: feature bits, of which there is none |
//! | 0xae0c | slots whose device may be removed |
//! | 0xae10 | number of the bus that the others are about |
//! | 0xae14 | write: a slot; read: its acpi-index, of which there is none |

use super::gpe::GPE_PCI_HOTPLUG;
use super::pm::AcpiPm;
use crate::error::CommandError;
use crate::qdev::{SlotEvents, Unplug};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use vcpu::bus::BusDevice;

/// First port.
pub const HOTPLUG_PORT: u16 = 0xae00;
/// How many there are.
pub const HOTPLUG_LEN: u16 = 0x18;

const UP: u64 = 0x00;
const DOWN: u64 = 0x04;
const EJECT: u64 = 0x08;
const REMOVABLE: u64 = 0x0c;
const SELECT: u64 = 0x10;

/// The root bus's number in the bus register.
const ROOT_BUS: u32 = 0;
/// All slots but that of the host bridge.
const ROOT_REMOVABLE: u32 = !1;

/// Takes the slots that the guest ejects, a bit each. On a vCPU thread; does not wait.
pub type EjectSink = Box<dyn Fn(u32) + Send + Sync>;

#[derive(Default)]
struct State {
    up: u32,
    down: u32,
    bus: u32,
}

/// The registers of the root bus's slots.
pub struct PciHotplug {
    pm: Arc<AcpiPm>,
    eject: OnceLock<EjectSink>,
    state: Mutex<State>,
}

impl PciHotplug {
    /// Registers at power-on; the guest hears of changes by an event of `pm`.
    pub fn new(pm: Arc<AcpiPm>) -> Arc<Self> {
        Arc::new(Self { pm, eject: OnceLock::new(), state: Mutex::default() })
    }

    /// Says who takes ejected slots. Once; the first one stays.
    pub fn connect(&self, eject: EjectSink) {
        let _first = self.eject.set(eject);
    }

    /// Power-on state.
    pub fn reset(&self) {
        *self.lock() = State::default();
    }

    fn value(&self, register: u64) -> u32 {
        let mut state = self.lock();
        match register {
            SELECT => state.bus,
            // There is no other bus.
            _ if state.bus != ROOT_BUS => 0,
            UP => std::mem::take(&mut state.up),
            DOWN => state.down,
            REMOVABLE => ROOT_REMOVABLE,
            _ => 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bit(slot: u8) -> u32 {
    1u32.checked_shl(slot.into()).unwrap_or(0)
}

impl SlotEvents for PciHotplug {
    fn added(&self, slot: u8) {
        self.lock().up |= bit(slot);
        self.pm.raise_event(GPE_PCI_HOTPLUG);
    }

    fn remove_requested(&self, slot: u8) -> Result<Unplug, CommandError> {
        self.lock().down |= bit(slot);
        self.pm.raise_event(GPE_PCI_HOTPLUG);
        Ok(Unplug::Asked)
    }

    fn removed(&self, slot: u8) {
        let mut state = self.lock();
        state.up &= !bit(slot);
        state.down &= !bit(slot);
    }
}

impl BusDevice for PciHotplug {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        // The registers are of 4 bytes; narrower accesses see their low bytes.
        if offset.is_multiple_of(4) {
            for (byte, value) in data.iter_mut().zip(self.value(offset).to_le_bytes()) {
                *byte = value;
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut value = [0; 4];
        for (byte, written) in value.iter_mut().zip(data) {
            *byte = *written;
        }
        let value = u32::from_le_bytes(value);
        match offset {
            EJECT => {
                let on_root = self.lock().bus == ROOT_BUS;
                if let Some(eject) = self.eject.get().filter(|_| on_root) {
                    eject(value & ROOT_REMOVABLE);
                }
            }
            SELECT => self.lock().bus = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
