//! The slots of the root bus, by the registers of ACPI hot-plug on QEMU's `pc` machine and ringvisor's
//! (ACPI 6.5, section 4.8.4.1; QEMU's docs/specs/acpi_pci_hotplug). What a firmware's byte code does
//! elsewhere is done here by hand.

use crate::cpu;

/// General-purpose event block 0.
const STATUS: u16 = 0xafe0;
const ENABLE: u16 = STATUS + 2;
const HOTPLUG_EVENT: u8 = 1 << 1;
/// What the status reads as where the machine has no such registers.
const ABSENT: u8 = 0xff;

const UP: u16 = 0xae00;
const DOWN: u16 = 0xae04;
const EJECT: u16 = 0xae08;
const BUS: u16 = 0xae10;

/// What has happened to the slots, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// A device has come.
    pub up: u32,
    /// Its device shall go.
    pub down: u32,
}

/// Has changes raise the ACPI interrupt.
pub(crate) fn listen() {
    if cpu::in8(STATUS) != ABSENT {
        cpu::out8(ENABLE, HOTPLUG_EVENT);
    }
}

/// Takes the event, then what it was about: only a change after that raises it again.
pub(crate) fn take() -> Changes {
    let status = cpu::in8(STATUS);
    if status == ABSENT || status & HOTPLUG_EVENT == 0 {
        return Changes::default();
    }
    cpu::out8(STATUS, HOTPLUG_EVENT);
    cpu::out32(BUS, 0);
    Changes { up: cpu::in32(UP), down: cpu::in32(DOWN) }
}

/// Lets go of the devices in these slots, a bit each.
pub(crate) fn eject(slots: u32) {
    cpu::out32(EJECT, slots);
}

/// Lets go of all devices that shall go, where nothing drives them.
pub(crate) fn let_go() {
    let going = take().down;
    if going != 0 {
        eject(going);
    }
}
