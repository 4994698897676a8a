//! Root ports with a slot (PCI Express Base 3.0, sections 6.7 and 7.8), and the bridge that one is
//! (PCI-to-PCI Bridge 1.2, section 3.2.5).

use core::ops::Range;

use super::msix::Msix;
use super::{Function, Location};
use crate::cpu::{self, vector};
use crate::machine::Machine;

const CLASS_BRIDGE: u32 = 0x06_0400;
const CAPABILITY: u8 = 0x10;

const PRIMARY_BUS: u8 = 0x18;
const MEMORY_BASE: u8 = 0x20;
/// Offsets in the capability.
const CAPABILITIES: u8 = 0x02;
const SLOT_CONTROL: u8 = 0x18;
const SLOT_STATUS: u8 = 0x1a;

/// Port type and the slot bit, and what they are for a root port with a slot.
const KIND: u16 = 0x1f0;
const ROOT_PORT_WITH_SLOT: u16 = 4 << 4 | 1 << 8;

const BUTTON: u16 = 1 << 0;
const PRESENCE_CHANGED: u16 = 1 << 3;
/// All events of the status register.
const EVENTS: u16 = 0x1f;
const PRESENT: u16 = 1 << 6;

/// Interrupts by the button and by cards that come or go; the attention indicator is off.
const LISTEN: u16 = 1 << 5 | BUTTON | PRESENCE_CHANGED | 0b11 << 6;

/// What the power indicator shows, and whether the card has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// The card has power.
    On,
    /// The card has power still, and will lose it.
    Blinks,
    /// The card has none.
    Off,
}

impl Power {
    /// Slot Control for it.
    fn control(self) -> u16 {
        LISTEN
            | match self {
                Self::On => 0b01 << 8,
                Self::Blinks => 0b10 << 8,
                Self::Off => 0b11 << 8 | 1 << 10,
            }
    }
}

/// What has happened to a slot, and what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotNews {
    /// The button was pressed.
    pub button: bool,
    /// There is a card.
    pub present: bool,
}

/// A root port, driven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    location: Location,
    express: u8,
    bus: u8,
}

impl Port {
    /// Has the port at `function` forward bus `bus` and `window`, whole MiB below 4 GiB, and tell of
    /// its slot by `vector::SLOT`. `None` where the function is no root port with a slot.
    pub fn open(
        machine: &mut Machine,
        function: &Function,
        bus: u8,
        window: &Range<u64>,
    ) -> Option<Self> {
        let location = function.location;
        let express = location.find_capability(|id, at| (id == CAPABILITY).then_some(at))?;
        let kind = location.read16(express + CAPABILITIES) & KIND;
        if function.class != CLASS_BRIDGE || kind != ROOT_PORT_WITH_SLOT {
            return None;
        }
        let msix = Msix::open(machine, function)?;
        location.write32(PRIMARY_BUS, u32::from_le_bytes([0, bus, bus, 0]));
        location.write32(MEMORY_BASE, memory_window(window));
        location.enable();
        msix.set(0, vector::SLOT, cpu::apic_id());
        msix.enable();
        let port = Self { location, express, bus };
        // A card from the start has power already.
        let power = if port.news().present { Power::On } else { Power::Off };
        port.set_power(power);
        Some(port)
    }

    /// Where the card's first function is.
    pub fn below(self) -> Location {
        Location { bus: self.bus, device: 0, function: 0 }
    }

    /// Takes all events: only an event after that interrupts again.
    pub fn news(self) -> SlotNews {
        let mut news = SlotNews::default();
        loop {
            let status = self.location.read16(self.express + SLOT_STATUS);
            news.present = status & PRESENT != 0;
            if status & EVENTS == 0 {
                return news;
            }
            news.button |= status & BUTTON != 0;
            self.location.write16(self.express + SLOT_STATUS, status & EVENTS);
        }
    }

    /// Switches the slot's power and its indicator.
    pub fn set_power(self, power: Power) {
        self.location.write16(self.express + SLOT_CONTROL, power.control());
    }
}

/// Base and limit registers for `window`.
fn memory_window(window: &Range<u64>) -> u32 {
    let high = |address: u64| (address >> 16) as u32 & 0xfff0;
    high(window.end - 1) << 16 | high(window.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_of_whole_mebibytes() {
        assert_eq!(memory_window(&(0xe400_0000..0xe410_0000)), 0xe400_e400);
        assert_eq!(memory_window(&(0xe400_0000..0xe420_0000)), 0xe410_e400);
    }

    #[test]
    fn a_slot_without_power_shows_so() {
        assert_eq!(Power::On.control(), 0x01e9);
        assert_eq!(Power::Blinks.control(), 0x02e9);
        assert_eq!(Power::Off.control(), 0x07e9);
    }
}
