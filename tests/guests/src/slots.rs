//! The slots of the root bus, by the registers of ACPI hot-plug (QEMU's docs/specs/acpi_pci_hotplug).
//! What a firmware's byte code does elsewhere is done here by hand.

use crate::cpu;

/// General-purpose event block 0.
const STATUS: u16 = 0xafe0;
const ENABLE: u16 = 0xafe2;
const HOTPLUG_EVENT: u8 = 1 << 1;

const UP: u16 = 0xae00;
const DOWN: u16 = 0xae04;
const EJECT: u16 = 0xae08;
const SELECT: u16 = 0xae10;

/// What has happened to the slots, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// A device has come.
    pub up: u32,
    /// Its device shall go.
    pub down: u32,
}

/// Has changes raise the ACPI interrupt.
pub(crate) fn listen() {
    cpu::out8(ENABLE, HOTPLUG_EVENT);
}

/// Takes the event, then what it was about: only a change after that raises it again.
pub(crate) fn take() -> Changes {
    cpu::out8(STATUS, HOTPLUG_EVENT);
    cpu::out32(SELECT, 0);
    // All ones: there are no such registers.
    let bits = |port| Some(cpu::in32(port)).filter(|bits| *bits != u32::MAX).unwrap_or(0);
    Changes { up: bits(UP), down: bits(DOWN) }
}

/// Lets go of the device in `slot`, 0 to 31.
pub(crate) fn eject(slot: u8) {
    cpu::out32(EJECT, 1 << (slot & 31));
}
