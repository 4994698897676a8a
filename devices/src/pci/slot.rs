//! The slot of a port: presence, power, attention button, and the events of native hot-plug
//! (PCI Express Base 3.0, sections 6.7 and 7.8.9 to 7.8.11). Events and power as QEMU has them, which the
//! guests of today are used to.

/// Slot Control: the event enables, in the places of their status bits.
const EVENTS: u16 =
    ATTENTION_BUTTON | POWER_FAULT | LATCH_CHANGED | PRESENCE_CHANGED | COMMAND_COMPLETED;
const ATTENTION_BUTTON: u16 = 1 << 0;
const POWER_FAULT: u16 = 1 << 1;
const LATCH_CHANGED: u16 = 1 << 2;
const PRESENCE_CHANGED: u16 = 1 << 3;
const COMMAND_COMPLETED: u16 = 1 << 4;
/// Slot Status: there is a card.
const PRESENCE: u16 = 1 << 6;
/// Slot Status: the interlock is engaged.
const INTERLOCK: u16 = 1 << 7;

const CONTROL_INTERRUPT: u16 = 1 << 5;
const CONTROL_ATTENTION_OFF: u16 = 0b11 << 6;
const CONTROL_POWER_INDICATOR: u16 = 0b11 << 8;
const INDICATOR_ON: u16 = 0b01 << 8;
const INDICATOR_BLINKS: u16 = 0b10 << 8;
const INDICATOR_OFF: u16 = 0b11 << 8;
const CONTROL_POWER_OFF: u16 = 1 << 10;
const CONTROL_INTERLOCK: u16 = 1 << 11;
const CONTROL_LINK_CHANGED: u16 = 1 << 12;
const CONTROL_WRITABLE: u16 = EVENTS
    | CONTROL_INTERRUPT
    | CONTROL_ATTENTION_OFF
    | CONTROL_POWER_INDICATOR
    | CONTROL_POWER_OFF
    | CONTROL_LINK_CHANGED;

/// How a request to let go of the card goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotRequest {
    /// The guest has been asked by the attention button.
    Asked,
    /// The slot has no power: the card may go at once.
    Now,
    /// The guest is at work on the slot; ask again later.
    Busy,
}

/// What the guest has done with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotAnswer {
    /// It has switched the slot off: the card may be taken.
    Released,
    /// It was asked to let go of the card, and goes on with it.
    Kept,
}

/// Slot Control and Slot Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortSlot {
    control: u16,
    status: u16,
    power_controller: bool,
    /// The guest has been asked for the card, and has not answered.
    asked: bool,
}

impl PortSlot {
    /// An empty slot at power-on.
    pub(super) fn new(power_controller: bool) -> Self {
        let mut new = Self { control: 0, status: 0, power_controller, asked: false };
        new.reset();
        new
    }

    /// Power-on state; a card that is there has power.
    pub(super) fn reset(&mut self) {
        self.asked = false;
        self.status &= PRESENCE;
        self.control = CONTROL_ATTENTION_OFF | INDICATOR_ON;
        if !self.occupied() {
            self.control |= INDICATOR_OFF;
            if self.power_controller {
                self.control |= CONTROL_POWER_OFF;
            }
        }
    }

    pub(super) fn control(self) -> u16 {
        self.control
    }

    pub(super) fn status(self) -> u16 {
        self.status
    }

    pub(super) fn occupied(self) -> bool {
        self.status & PRESENCE != 0
    }

    /// Whether the port wants an interrupt.
    pub(super) fn interrupts(self) -> bool {
        self.control & CONTROL_INTERRUPT != 0 && self.status & self.control & EVENTS != 0
    }

    /// A card was there when the machine started.
    pub(super) fn present(&mut self) {
        self.status |= PRESENCE;
        self.reset();
    }

    /// A card has come while the machine runs.
    pub(super) fn came(&mut self) {
        self.asked = false;
        self.status |= PRESENCE | PRESENCE_CHANGED | ATTENTION_BUTTON;
    }

    /// The card has gone. One that had power was not given up by a guest that runs: a reset has answered
    /// for it, and the slot is as at power-on.
    pub(super) fn went(&mut self) {
        self.asked = false;
        if !self.occupied() {
            return;
        }
        self.status &= !PRESENCE;
        if self.is_off() {
            self.status |= PRESENCE_CHANGED;
        } else {
            self.reset();
        }
    }

    /// The card shall go.
    pub(super) fn request(&mut self) -> SlotRequest {
        if self.shows(INDICATOR_BLINKS) {
            return SlotRequest::Busy;
        }
        if self.is_off() {
            return SlotRequest::Now;
        }
        self.status |= ATTENTION_BUTTON;
        self.asked = true;
        SlotRequest::Asked
    }

    /// The guest writes Slot Status: ones clear events. One that writes ones where nothing was is cleaning
    /// up after a firmware; that must not lose events that came since, so that it clears nothing then.
    pub(super) fn write_status(&mut self, bits: u16) {
        if bits & EVENTS & !self.status == 0 {
            self.status &= !(bits & EVENTS);
        }
    }

    /// The guest writes the bits of `lanes` of Slot Control. It lets go of the card by switching off power and
    /// power indicator, or the indicator alone where there is no power controller; it keeps a card that it was
    /// asked for by turning the indicator from blinking to on (section 6.7.1.5: the operation is cancelled).
    pub(super) fn write_control(&mut self, value: u16, lanes: u16) -> Option<SlotAnswer> {
        let (was_off, blinked) = (self.is_off(), self.shows(INDICATOR_BLINKS));
        let mut writable = CONTROL_WRITABLE & lanes;
        if !self.power_controller {
            writable &= !CONTROL_POWER_OFF;
        }
        self.control = self.control & !writable | value & writable;
        if value & lanes & CONTROL_INTERLOCK != 0 {
            self.status ^= INTERLOCK;
        }
        // Section 6.7.3.2: each write is a command.
        self.status |= COMMAND_COMPLETED;
        if self.occupied() && self.is_off() && !was_off {
            self.went();
            return Some(SlotAnswer::Released);
        }
        let kept = self.asked && blinked && self.shows(INDICATOR_ON);
        self.asked &= !kept;
        kept.then_some(SlotAnswer::Kept)
    }

    fn shows(self, indicator: u16) -> bool {
        self.control & CONTROL_POWER_INDICATOR == indicator
    }

    fn is_off(self) -> bool {
        let power = !self.power_controller || self.control & CONTROL_POWER_OFF != 0;
        power && self.shows(INDICATOR_OFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENABLES: u16 =
        ATTENTION_BUTTON | PRESENCE_CHANGED | COMMAND_COMPLETED | CONTROL_INTERRUPT;

    fn running() -> PortSlot {
        let mut slot = PortSlot::new(true);
        slot.present();
        assert_eq!(slot.write_control(ENABLES | INDICATOR_ON, u16::MAX), None);
        slot.write_status(COMMAND_COMPLETED);
        slot
    }

    #[test]
    fn an_empty_slot_is_off_and_a_full_one_is_on() {
        let mut slot = PortSlot::new(true);
        assert_eq!((slot.control(), slot.status()), (0x07c0, 0));
        slot.present();
        assert_eq!((slot.control(), slot.status()), (0x01c0, PRESENCE));
        slot.reset();
        assert_eq!((slot.control(), slot.status()), (0x01c0, PRESENCE));
    }

    #[test]
    fn a_card_that_comes_is_announced_by_presence_and_button() {
        let mut slot = PortSlot::new(true);
        slot.came();
        assert!(!slot.interrupts(), "nobody listens");
        slot.write_control(ENABLES, ENABLES);
        assert!(slot.interrupts());
        assert_eq!(
            slot.status(),
            PRESENCE | PRESENCE_CHANGED | ATTENTION_BUTTON | COMMAND_COMPLETED
        );
        slot.write_status(slot.status());
        assert!(!slot.interrupts());
        assert_eq!(slot.status(), PRESENCE);
    }

    #[test]
    fn the_button_asks_and_switching_off_lets_go() {
        let mut slot = running();
        assert_eq!(slot.request(), SlotRequest::Asked);
        assert!(slot.interrupts());
        slot.write_status(ATTENTION_BUTTON);
        assert_eq!(slot.write_control(INDICATOR_BLINKS, CONTROL_POWER_INDICATOR), None);
        assert_eq!(slot.request(), SlotRequest::Busy);
        assert_eq!(slot.write_control(CONTROL_POWER_OFF, CONTROL_POWER_OFF), None);
        assert_eq!(
            slot.write_control(INDICATOR_OFF, CONTROL_POWER_INDICATOR),
            Some(SlotAnswer::Released)
        );
        assert!(!slot.occupied());
        assert_eq!(slot.write_control(INDICATOR_OFF, CONTROL_POWER_INDICATOR), None, "once");
    }

    #[test]
    fn a_guest_that_stops_blinking_keeps_the_card() {
        let mut slot = running();
        let indicator = |slot: &mut PortSlot, now| slot.write_control(now, CONTROL_POWER_INDICATOR);
        // Nobody has asked: as when a card comes.
        assert_eq!(indicator(&mut slot, INDICATOR_BLINKS), None);
        assert_eq!(indicator(&mut slot, INDICATOR_ON), None);
        slot.request();
        assert_eq!(indicator(&mut slot, INDICATOR_ON), None, "it has not begun");
        assert_eq!(indicator(&mut slot, INDICATOR_BLINKS), None);
        assert_eq!(indicator(&mut slot, INDICATOR_ON), Some(SlotAnswer::Kept));
        assert_eq!(slot.request(), SlotRequest::Asked, "it can be asked again");
        slot.reset();
        assert_eq!(indicator(&mut slot, INDICATOR_BLINKS), None);
        assert_eq!(indicator(&mut slot, INDICATOR_ON), None, "a reset forgets");
    }

    #[test]
    fn a_card_in_a_slot_without_power_goes_at_once() {
        let mut slot = PortSlot::new(true);
        slot.came();
        assert_eq!(slot.request(), SlotRequest::Now);
        assert_eq!(slot.write_control(0x07c0, 0x0fc0), None, "it was off before");
        assert!(slot.occupied());
    }

    #[test]
    fn a_reset_that_takes_the_card_leaves_an_empty_slot_off() {
        for power_controller in [true, false] {
            let mut slot = PortSlot::new(power_controller);
            let empty = slot;
            slot.came();
            slot.write_control(ENABLES | INDICATOR_ON, u16::MAX);
            assert_eq!(slot.request(), SlotRequest::Asked);
            slot.reset();
            slot.went();
            assert_eq!(slot, empty);
        }
    }

    #[test]
    fn events_that_a_guest_has_not_seen_are_not_cleared() {
        let mut slot = running();
        slot.request();
        slot.write_status(EVENTS);
        assert!(slot.interrupts());
        slot.write_status(ATTENTION_BUTTON);
        assert!(!slot.interrupts());
    }

    #[test]
    fn without_a_power_controller_the_indicator_decides() {
        let mut slot = PortSlot::new(false);
        slot.present();
        assert_eq!(slot.write_control(CONTROL_POWER_OFF, CONTROL_POWER_OFF), None);
        assert_eq!(slot.control() & CONTROL_POWER_OFF, 0);
        assert_eq!(
            slot.write_control(INDICATOR_OFF, CONTROL_POWER_INDICATOR),
            Some(SlotAnswer::Released)
        );
    }
}
