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

/// Slot Control and Slot Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortSlot {
    control: u16,
    status: u16,
    power_controller: bool,
}

impl PortSlot {
    /// An empty slot at power-on.
    pub(super) fn new(power_controller: bool) -> Self {
        let mut new = Self { control: 0, status: 0, power_controller };
        new.reset();
        new
    }

    /// Power-on state; a card that is there has power.
    pub(super) fn reset(&mut self) {
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
        self.status |= PRESENCE | PRESENCE_CHANGED | ATTENTION_BUTTON;
    }

    /// The card has gone.
    pub(super) fn went(&mut self) {
        if self.occupied() {
            self.status = self.status & !PRESENCE | PRESENCE_CHANGED;
        }
    }

    /// The card shall go.
    pub(super) fn request(&mut self) -> SlotRequest {
        if self.control & CONTROL_POWER_INDICATOR == INDICATOR_BLINKS {
            return SlotRequest::Busy;
        }
        if self.is_off() {
            return SlotRequest::Now;
        }
        self.status |= ATTENTION_BUTTON;
        SlotRequest::Asked
    }

    /// The guest writes Slot Status: ones clear events. One that writes ones where nothing was is cleaning
    /// up after a firmware; that must not lose events that came since, so that it clears nothing then.
    pub(super) fn write_status(&mut self, bits: u16) {
        if bits & EVENTS & !self.status == 0 {
            self.status &= !(bits & EVENTS);
        }
    }

    /// The guest writes the bits of `lanes` of Slot Control. Returns whether it has let go of the card: power
    /// and power indicator have just been switched off, or the indicator alone where there is no power
    /// controller.
    pub(super) fn write_control(&mut self, value: u16, lanes: u16) -> bool {
        let was_off = self.is_off();
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
        let released = self.occupied() && self.is_off() && !was_off;
        if released {
            self.went();
        }
        released
    }

    fn is_off(self) -> bool {
        let power = !self.power_controller || self.control & CONTROL_POWER_OFF != 0;
        power && self.control & CONTROL_POWER_INDICATOR == INDICATOR_OFF
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
        assert!(!slot.write_control(ENABLES | INDICATOR_ON, u16::MAX));
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
        assert!(!slot.write_control(INDICATOR_BLINKS, CONTROL_POWER_INDICATOR));
        assert_eq!(slot.request(), SlotRequest::Busy);
        assert!(!slot.write_control(CONTROL_POWER_OFF, CONTROL_POWER_OFF));
        assert!(slot.write_control(INDICATOR_OFF, CONTROL_POWER_INDICATOR));
        assert!(!slot.occupied());
        assert!(!slot.write_control(INDICATOR_OFF, CONTROL_POWER_INDICATOR), "once");
    }

    #[test]
    fn a_card_in_a_slot_without_power_goes_at_once() {
        let mut slot = PortSlot::new(true);
        slot.came();
        assert_eq!(slot.request(), SlotRequest::Now);
        assert!(!slot.write_control(0x07c0, 0x0fc0), "it was off before");
        assert!(slot.occupied());
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
        assert!(!slot.write_control(CONTROL_POWER_OFF, CONTROL_POWER_OFF));
        assert_eq!(slot.control() & CONTROL_POWER_OFF, 0);
        assert!(slot.write_control(INDICATOR_OFF, CONTROL_POWER_INDICATOR));
    }
}
