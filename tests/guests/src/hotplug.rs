//! PCI hot-plug by ACPI on QEMU's `pc` machine and ringvisor's: devices that shall go are let go at once, as nothing
//! here uses a device for longer than a command (ACPI 6.5, section 4.8.4.1; QEMU's docs/specs/acpi_pci_hotplug).

use crate::cpu;

const GPE_STATUS: u16 = 0xafe0;
const GPE_ENABLE: u16 = GPE_STATUS + 2;
/// The event of PCI hot-plug.
const EVENT: u16 = 1 << 1;
const DOWN: u16 = 0xae04;
const EJECT: u16 = 0xae08;
const BUS: u16 = 0xae10;
/// What ports read as where nothing is.
const ABSENT: u16 = 0xffff;

/// Has plugging and unplugging raise the ACPI interrupt, where the machine has these registers.
pub(crate) fn enable() {
    if cpu::in16(GPE_STATUS) != ABSENT {
        cpu::out16(GPE_STATUS, EVENT);
        cpu::out16(GPE_ENABLE, EVENT);
    }
}

/// Lets go of the devices of the root bus that shall go.
pub(crate) fn answer() {
    let status = cpu::in16(GPE_STATUS);
    if status == ABSENT || status & EVENT == 0 {
        return;
    }
    // The event is cleared first: a request that comes now raises it again.
    cpu::out16(GPE_STATUS, EVENT);
    cpu::out32(BUS, 0);
    let going = cpu::in32(DOWN);
    if going != 0 {
        cpu::out32(EJECT, going);
    }
}
