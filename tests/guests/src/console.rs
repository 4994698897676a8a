//! The serial console: the 16550 at 0x3f8, output in bursts, input by interrupt.

use core::fmt::{self, Write};

use crate::cpu;

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = DATA + 1;
const FIFO_CONTROL: u16 = DATA + 2;
const LINE_CONTROL: u16 = DATA + 3;
const MODEM_CONTROL: u16 = DATA + 4;
const LINE_STATUS: u16 = DATA + 5;
/// A register without effect: what `pio` reads.
pub(crate) const SCRATCH: u16 = DATA + 7;

const DATA_READY: u8 = 0x01;
const TRANSMITTER_EMPTY: u8 = 0x20;
/// Bytes the transmitter takes at once.
const FIFO: usize = 16;
/// How often the transmitter is looked at before its bytes are sent regardless.
const PATIENCE: u32 = 100_000;

/// Writes formatted text to the serial console.
#[macro_export]
macro_rules! out {
    ($($arguments:tt)*) => { $crate::console::print(format_args!($($arguments)*)) };
}

/// Writes formatted text and ends the line.
#[macro_export]
macro_rules! outln {
    ($($arguments:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($arguments)*)))
    };
}

/// Sets the port up: 8 data bits, FIFO on, no interrupts yet. Bytes already received are kept.
pub(crate) fn init() {
    cpu::out8(INTERRUPT_ENABLE, 0);
    cpu::out8(LINE_CONTROL, 0x03);
    cpu::out8(FIFO_CONTROL, 0x01);
    cpu::out8(MODEM_CONTROL, 0x0b);
}

/// Has the port interrupt for each byte received.
pub(crate) fn enable_receive_interrupt() {
    cpu::out8(INTERRUPT_ENABLE, 0x01);
}

/// A received byte, when there is one.
pub(crate) fn read_byte() -> Option<u8> {
    let status = cpu::in8(LINE_STATUS);
    // All ones: there is no such port.
    (status & DATA_READY != 0 && status != 0xff).then(|| cpu::in8(DATA))
}

/// What `out!` and `outln!` call: the text, each line feed as carriage return and line feed.
pub(crate) fn print(arguments: fmt::Arguments<'_>) {
    let mut burst = Burst { bytes: [0; FIFO], len: 0 };
    // Writing to the port cannot fail; a Display that does has nothing better to be told.
    let _ = burst.write_fmt(arguments);
    burst.flush();
}

/// Collects what the transmitter takes at once, because each access costs an exit.
struct Burst {
    bytes: [u8; FIFO],
    len: usize,
}

impl Burst {
    fn push(&mut self, byte: u8) {
        if self.len == FIFO {
            self.flush();
        }
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn flush(&mut self) {
        if self.len == 0 {
            return;
        }
        let mut looks = 0;
        while cpu::in8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 && looks < PATIENCE {
            looks += 1;
        }
        cpu::write_string(DATA, &self.bytes[..self.len]);
        self.len = 0;
    }
}

impl Write for Burst {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.push(b'\r');
            }
            self.push(byte);
        }
        Ok(())
    }
}
