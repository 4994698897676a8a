//! Power management registers: fixed events, sleep control and the power management timer
//! (ACPI 6.5, sections 4.8.3 and 4.8.4).

use super::gpe::Gpe;
use crate::clock::Clock;
use crate::request::{GuestRequest, RequestSink};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vcpu::bus::BusDevice;
use vcpu::irq::IrqLine;

/// PM1a event block: status (2 bytes), then enable (2 bytes).
pub const PM1_EVENT_PORT: u16 = 0x600;
/// PM1a control block (2 bytes).
pub const PM1_CONTROL_PORT: u16 = 0x604;
/// Power management timer (4 bytes).
pub const PM_TIMER_PORT: u16 = 0x608;
/// Ports from [`PM1_EVENT_PORT`] on.
pub const PM_LEN: u16 = 12;
/// Input of the system control interrupt.
pub const SCI_GSI: u32 = 9;
/// SLP_TYP of the soft-off state, as \_S5 says.
pub const SLEEP_TYPE_S5: u16 = 0;

const STATUS: usize = 0;
const ENABLE: usize = 2;
const CONTROL: usize = 4;
const TIMER: usize = 8;

const POWER_BUTTON: u16 = 1 << 8;
// Timer, global lock, power button, sleep button, real-time clock.
const EVENTS: u16 = 1 << 0 | 1 << 5 | POWER_BUTTON | 1 << 9 | 1 << 10;
const CONTROL_SCI_ENABLE: u16 = 1 << 0;
const CONTROL_BUS_MASTER_RELOAD: u16 = 1 << 1;
const CONTROL_SLEEP_TYPE_SHIFT: u32 = 10;
const CONTROL_SLEEP_TYPE: u16 = 0b111 << CONTROL_SLEEP_TYPE_SHIFT;
const CONTROL_SLEEP_ENABLE: u16 = 1 << 13;
const TIMER_HZ: u128 = 3_579_545;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[derive(Default)]
struct Registers {
    status: u16,
    enable: u16,
    control: u16,
    gpe: Gpe,
}

/// The fixed power management hardware. The machine is always in ACPI mode.
///
/// The timer counts the machine's clock; its carry raises no event.
pub struct AcpiPm {
    sci: Arc<dyn IrqLine>,
    clock: Arc<dyn Clock>,
    requests: RequestSink,
    registers: Mutex<Registers>,
}

impl AcpiPm {
    /// Registers at power-on, with `sci` as the system control interrupt.
    pub fn new(sci: Arc<dyn IrqLine>, clock: Arc<dyn Clock>, requests: RequestSink) -> Arc<Self> {
        Arc::new(Self { sci, clock, requests, registers: Mutex::default() })
    }

    /// Presses the power button: the guest is told by SCI once it has enabled the event. Any
    /// thread.
    pub fn press_power_button(&self) {
        let mut registers = self.lock();
        registers.status |= POWER_BUTTON;
        self.update(&registers);
    }

    /// Raises general-purpose event `event` (0 to 15): the guest is told by SCI once it has enabled it.
    /// Any thread.
    pub fn raise_event(&self, event: u8) {
        self.with_gpe(|gpe| gpe.raise(event));
    }

    /// Reads or changes the general-purpose events; the interrupt follows.
    pub(super) fn with_gpe<T>(&self, f: impl FnOnce(&mut Gpe) -> T) -> T {
        let mut registers = self.lock();
        let result = f(&mut registers.gpe);
        self.update(&registers);
        result
    }

    /// Power-on state.
    pub fn reset(&self) {
        let mut registers = self.lock();
        *registers = Registers::default();
        self.update(&registers);
    }

    fn timer(&self) -> u32 {
        let ns = u128::from(self.clock.monotonic_ns());
        (ns * TIMER_HZ / NANOS_PER_SECOND) as u32
    }

    fn image(&self) -> [u8; PM_LEN as usize] {
        let registers = self.lock();
        let mut image = [0; PM_LEN as usize];
        image[STATUS..ENABLE].copy_from_slice(&registers.status.to_le_bytes());
        image[ENABLE..CONTROL].copy_from_slice(&registers.enable.to_le_bytes());
        let control = registers.control | CONTROL_SCI_ENABLE;
        image[CONTROL..CONTROL + 2].copy_from_slice(&control.to_le_bytes());
        image[TIMER..].copy_from_slice(&self.timer().to_le_bytes());
        image
    }

    // The line is driven under the lock, so that it cannot be overtaken by an older level.
    fn update(&self, registers: &Registers) {
        let fixed = registers.status & registers.enable != 0;
        self.sci.set_level(fixed || registers.gpe.is_asserted());
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `old` with the bytes of `data`, written at `offset`, that fall on the 16 bits at `at`; and which
/// bits those are.
fn merge(old: u16, at: usize, offset: usize, data: &[u8]) -> (u16, u16) {
    let (mut value, mut lanes) = (old.to_le_bytes(), [0; 2]);
    for lane in 0..2 {
        if let Some(byte) = (at + lane).checked_sub(offset).and_then(|index| data.get(index)) {
            (value[lane], lanes[lane]) = (*byte, 0xff);
        }
    }
    (u16::from_le_bytes(value), u16::from_le_bytes(lanes))
}

impl BusDevice for AcpiPm {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let image = self.image();
        for (at, byte) in (offset as usize..).zip(data) {
            *byte = image.get(at).copied().unwrap_or(0);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let offset = offset as usize;
        let mut registers = self.lock();
        let (clear, lanes) = merge(0, STATUS, offset, data);
        registers.status &= !(clear & lanes);
        registers.enable = merge(registers.enable, ENABLE, offset, data).0 & EVENTS;
        let (control, lanes) = merge(registers.control, CONTROL, offset, data);
        registers.control = control & (CONTROL_BUS_MASTER_RELOAD | CONTROL_SLEEP_TYPE);
        self.update(&registers);
        drop(registers);
        if control & lanes & CONTROL_SLEEP_ENABLE != 0 {
            // Other types are not announced by the tables; asking for one has no effect.
            let sleep_type = (control & CONTROL_SLEEP_TYPE) >> CONTROL_SLEEP_TYPE_SHIFT;
            if sleep_type == SLEEP_TYPE_S5 {
                (self.requests)(GuestRequest::PowerOff);
            }
        }
    }
}

#[cfg(test)]
mod tests;
