//! The keyboard controller, without a keyboard: what a probe finds in order quickly, and the line
//! that resets the machine (IBM PS/2 keyboard and auxiliary device controller).

use super::{ByteDevice, byte_device_on_bus};
use crate::request::{GuestRequest, RequestSink};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Port of the data register.
pub const I8042_DATA_PORT: u16 = 0x60;
/// Port of the command and status register.
pub const I8042_COMMAND_PORT: u16 = 0x64;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;

const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const DISABLE_AUXILIARY: u8 = 0xa7;
const ENABLE_AUXILIARY: u8 = 0xa8;
const TEST_AUXILIARY: u8 = 0xa9;
const SELF_TEST: u8 = 0xaa;
const TEST_KEYBOARD: u8 = 0xab;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
const READ_OUTPUT_PORT: u8 = 0xd0;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
const WRITE_KEYBOARD_OUTPUT: u8 = 0xd2;
const WRITE_AUXILIARY_OUTPUT: u8 = 0xd3;
const WRITE_AUXILIARY: u8 = 0xd4;
/// Commands from here up pulse output port lines 0 to 3; a zero bit pulses, and line 0 is reset.
const PULSE_OUTPUT: u8 = 0xf0;

const SELF_TEST_PASSED: u8 = 0x55;
const NOTHING_CONNECTED: u8 = 0x04;
const CONFIGURATION_SYSTEM: u8 = 1 << 2;
const CONFIGURATION_KEYBOARD_OFF: u8 = 1 << 4;
const CONFIGURATION_AUXILIARY_OFF: u8 = 1 << 5;
const CONFIGURATION_POWER_ON: u8 =
    CONFIGURATION_SYSTEM | CONFIGURATION_KEYBOARD_OFF | CONFIGURATION_AUXILIARY_OFF;
/// Output port: A20 open, not in reset.
const OUTPUT_PORT: u8 = 0x03;
const OUTPUT_NOT_RESET: u8 = 1 << 0;

struct State {
    configuration: u8,
    // A command that waits for its data byte.
    command: Option<u8>,
    last_was_command: bool,
    // At most one byte an answer, a few answers at once.
    output: VecDeque<u8>,
}

const OUTPUT_MAX: usize = 16;

impl State {
    fn power_on() -> Self {
        Self {
            configuration: CONFIGURATION_POWER_ON,
            command: None,
            last_was_command: false,
            output: VecDeque::new(),
        }
    }

    fn answer(&mut self, byte: u8) {
        if self.output.len() < OUTPUT_MAX {
            self.output.push_back(byte);
        }
    }
}

/// The keyboard controller.
pub struct I8042 {
    requests: RequestSink,
    state: Mutex<State>,
}

impl I8042 {
    /// A controller at power-on whose reset line is [`GuestRequest::Reset`].
    pub fn new(requests: RequestSink) -> Arc<Self> {
        Arc::new(Self { requests, state: Mutex::new(State::power_on()) })
    }

    /// Its data register as a device of one port.
    pub fn data_port(self: &Arc<Self>) -> Arc<I8042Port> {
        Arc::new(I8042Port { controller: Arc::clone(self), command: false })
    }

    /// Its command and status register as a device of one port.
    pub fn command_port(self: &Arc<Self>) -> Arc<I8042Port> {
        Arc::new(I8042Port { controller: Arc::clone(self), command: true })
    }

    /// Power-on state.
    pub fn reset(&self) {
        *self.lock() = State::power_on();
    }

    fn status(&self) -> u8 {
        let state = self.lock();
        let full = if state.output.is_empty() { 0 } else { STATUS_OUTPUT_FULL };
        let command = if state.last_was_command { STATUS_COMMAND } else { 0 };
        full | command | STATUS_SYSTEM | STATUS_UNLOCKED
    }

    fn read_data(&self) -> u8 {
        self.lock().output.pop_front().unwrap_or(0)
    }

    fn write_command(&self, command: u8) {
        let mut state = self.lock();
        state.last_was_command = true;
        state.command = None;
        match command {
            READ_CONFIGURATION => {
                let configuration = state.configuration;
                state.answer(configuration);
            }
            DISABLE_AUXILIARY => state.configuration |= CONFIGURATION_AUXILIARY_OFF,
            ENABLE_AUXILIARY => state.configuration &= !CONFIGURATION_AUXILIARY_OFF,
            DISABLE_KEYBOARD => state.configuration |= CONFIGURATION_KEYBOARD_OFF,
            ENABLE_KEYBOARD => state.configuration &= !CONFIGURATION_KEYBOARD_OFF,
            TEST_AUXILIARY | TEST_KEYBOARD => state.answer(NOTHING_CONNECTED),
            SELF_TEST => {
                state.output.clear();
                state.answer(SELF_TEST_PASSED);
            }
            READ_OUTPUT_PORT => state.answer(OUTPUT_PORT),
            WRITE_CONFIGURATION
            | WRITE_OUTPUT_PORT
            | WRITE_KEYBOARD_OUTPUT
            | WRITE_AUXILIARY_OUTPUT
            | WRITE_AUXILIARY => state.command = Some(command),
            PULSE_OUTPUT.. if command & OUTPUT_NOT_RESET == 0 => {
                drop(state);
                (self.requests)(GuestRequest::Reset);
            }
            _ => {}
        }
    }

    fn write_data(&self, value: u8) {
        let mut state = self.lock();
        state.last_was_command = false;
        match state.command.take() {
            Some(WRITE_CONFIGURATION) => state.configuration = value,
            Some(WRITE_KEYBOARD_OUTPUT | WRITE_AUXILIARY_OUTPUT) => state.answer(value),
            Some(WRITE_OUTPUT_PORT) if value & OUTPUT_NOT_RESET == 0 => {
                drop(state);
                (self.requests)(GuestRequest::Reset);
            }
            // No keyboard and no mouse: nobody answers.
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the controller's two ports.
pub struct I8042Port {
    controller: Arc<I8042>,
    command: bool,
}

impl ByteDevice for I8042Port {
    fn read_byte(&self, offset: u8) -> u8 {
        match (offset, self.command) {
            (0, true) => self.controller.status(),
            (0, false) => self.controller.read_data(),
            _ => 0xff,
        }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        match (offset, self.command) {
            (0, true) => self.controller.write_command(value),
            (0, false) => self.controller.write_data(value),
            _ => {}
        }
    }
}

byte_device_on_bus!(I8042Port);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use vcpu::bus::BusDevice;

    fn controller() -> (Arc<I8042>, Arc<AtomicUsize>) {
        let resets = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&resets);
        let sink: RequestSink = Arc::new(move |request| {
            assert_eq!(request, GuestRequest::Reset);
            count.fetch_add(1, Ordering::Relaxed);
        });
        (I8042::new(sink), resets)
    }

    fn inb(port: &I8042Port) -> u8 {
        let mut data = [0xff];
        port.read(0, &mut data);
        data[0]
    }

    fn ask(controller: &Arc<I8042>, command: u8) -> Option<u8> {
        controller.command_port().write(0, &[command]);
        let full = inb(&controller.command_port()) & STATUS_OUTPUT_FULL != 0;
        full.then(|| inb(&controller.data_port()))
    }

    #[test]
    fn a_probe_is_answered_at_once() {
        let (controller, resets) = controller();
        assert_eq!(inb(&controller.command_port()) & 0x03, 0, "neither buffer is full");
        assert_eq!(ask(&controller, SELF_TEST), Some(0x55));
        assert_eq!(ask(&controller, READ_CONFIGURATION), Some(CONFIGURATION_POWER_ON));
        assert_eq!(ask(&controller, TEST_KEYBOARD), Some(NOTHING_CONNECTED));
        assert_eq!(ask(&controller, ENABLE_AUXILIARY), None);
        assert_eq!(ask(&controller, READ_CONFIGURATION), Some(0x14));
        assert_eq!(resets.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_written_to_the_configuration_and_the_output_reads_back() {
        let (controller, _) = controller();
        controller.command_port().write(0, &[WRITE_CONFIGURATION]);
        controller.data_port().write(0, &[0x47]);
        assert_eq!(ask(&controller, READ_CONFIGURATION), Some(0x47));
        controller.command_port().write(0, &[WRITE_AUXILIARY_OUTPUT]);
        controller.data_port().write(0, &[0x5a]);
        assert_eq!(inb(&controller.data_port()), 0x5a);
        controller.reset();
        assert_eq!(ask(&controller, READ_CONFIGURATION), Some(CONFIGURATION_POWER_ON));
    }

    #[test]
    fn pulsing_the_reset_line_resets() {
        let (controller, resets) = controller();
        controller.command_port().write(0, &[0xff]);
        assert_eq!(resets.load(Ordering::Relaxed), 0, "no line pulsed");
        controller.command_port().write(0, &[0xfe]);
        assert_eq!(resets.load(Ordering::Relaxed), 1);
        controller.command_port().write(0, &[WRITE_OUTPUT_PORT]);
        controller.data_port().write(0, &[0x02]);
        assert_eq!(resets.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn answers_that_nobody_reads_are_bounded() {
        let (controller, _) = controller();
        for _ in 0..10_000 {
            controller.command_port().write(0, &[READ_CONFIGURATION]);
        }
        let read = (0..100).filter(|_| inb(&controller.data_port()) != 0).count();
        assert_eq!(read, OUTPUT_MAX);
    }
}
