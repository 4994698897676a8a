//! COM1: a 16550A (register model by vm-superio) whose transmitter waits for the console.

use super::{ByteDevice, byte_device_on_bus};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use vcpu::irq::IrqLine;
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};

/// First port of COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Ports of a serial interface.
pub const SERIAL_LEN: u16 = 8;
/// Interrupt request line of COM1.
pub const SERIAL_IRQ: u32 = 4;

const DATA: u8 = 0;
const INTERRUPT_ENABLE: u8 = 1;
const INTERRUPT_IDENTIFICATION: u8 = 2;
const FIFO_CONTROL: u8 = 2;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
const LINE_STATUS: u8 = 5;

const ENABLE_LINE_STATUS: u8 = 1 << 2;
const NO_INTERRUPT: u8 = 1 << 0;
const DUE_TRANSMITTER: u8 = 1 << 1;
const DUE_RECEIVER: u8 = 1 << 2;
// More urgent than the others, whose two bits it has.
const DUE_LINE_STATUS: u8 = DUE_TRANSMITTER | DUE_RECEIVER;
const DUE: u8 = NO_INTERRUPT | DUE_TRANSMITTER | DUE_RECEIVER;

const FIFO_CLEAR_RECEIVER: u8 = 1 << 1;
const DIVISOR_LATCH: u8 = 1 << 7;
const DATA_READY: u8 = 1 << 0;
const BREAK_INTERRUPT: u8 = 1 << 4;
const TRANSMITTER_EMPTY: u8 = 1 << 5 | 1 << 6;

/// Where a guest's console output goes. Called on vCPU threads: must not block.
pub trait ConsoleOut: Send + Sync {
    /// Takes one byte, or answers false: full.
    fn put(&self, byte: u8) -> bool;
    /// Whether there is room for a byte. While there is none the guest sees a busy transmitter;
    /// [`Serial::output_ready`] tells it that there is room again.
    fn ready(&self) -> bool;
}

// An edge for the interrupt controllers; the line is edge-triggered, as ISA interrupts are.
struct Edge {
    line: Arc<dyn IrqLine>,
    muted: Cell<bool>,
}

impl Trigger for Edge {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        if !self.muted.get() {
            self.line.set_level(true);
            self.line.set_level(false);
        }
        Ok(())
    }
}

struct Output(Arc<dyn ConsoleOut>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A byte written to a busy transmitter is lost, as on a real one.
        for byte in bytes {
            self.0.put(*byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Model = Uart<Edge, NoEvents, Output>;

/// A serial interface.
pub struct Serial {
    uart: Mutex<Model>,
    out: Arc<dyn ConsoleOut>,
    irq: Arc<dyn IrqLine>,
    // A break condition that the line status register has not shown yet. Changed with `uart` locked.
    line_break: AtomicBool,
    // Input was refused for want of room: say when there is some.
    starved: AtomicBool,
    on_room: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Serial {
    /// A serial interface at power-on that interrupts through `irq` and transmits to `out`.
    pub fn new(irq: Arc<dyn IrqLine>, out: Arc<dyn ConsoleOut>) -> Arc<Self> {
        Arc::new(Self {
            uart: Mutex::new(power_on(&irq, &out)),
            out,
            irq,
            line_break: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            on_room: OnceLock::new(),
        })
    }

    /// Sets what is called, on a vCPU thread and outside all locks, when the receiver has drained
    /// after [`Serial::input`] could not take everything. The first call counts.
    pub fn on_room(&self, call: Box<dyn Fn() + Send + Sync>) {
        // A second one would be a wiring mistake; the first stays.
        let _ = self.on_room.set(call);
    }

    /// Receives `bytes`: the guest is interrupted if it asked for that. Returns how many there was
    /// room for; the rest is offered again from [`Serial::on_room`]'s call. Any thread.
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut uart = self.lock();
        let taken = uart.enqueue_raw_bytes(bytes).unwrap_or(0);
        if taken < bytes.len() {
            self.starved.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// A break condition on the line: a zero byte is received, and the line status register shows why
    /// until it is read. Any thread.
    pub fn receive_break(&self) {
        let mut uart = self.lock();
        self.line_break.store(true, Ordering::Relaxed);
        // Where there is no room for the byte the break alone is seen.
        let _ = uart.enqueue_raw_bytes(&[0]);
        if line_status_enabled(&mut uart) {
            // It cannot fail.
            let _ = uart.interrupt_evt().trigger();
        }
    }

    /// The console has room again: the transmitter is empty, and says so by interrupt if the guest
    /// asked for that. Any thread.
    pub fn output_ready(&self) {
        let mut uart = self.lock();
        if self.out.ready() {
            raise_due(&mut uart);
        }
    }

    /// Power-on state; unread input is gone.
    pub fn reset(&self) {
        {
            let mut uart = self.lock();
            *uart = power_on(&self.irq, &self.out);
            self.line_break.store(false, Ordering::Relaxed);
        }
        self.room();
    }

    // Calls back if input waits for the receiver, which has just drained. No lock may be held.
    fn room(&self) {
        if self.starved.swap(false, Ordering::Relaxed)
            && let Some(call) = self.on_room.get()
        {
            call();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn power_on(irq: &Arc<dyn IrqLine>, out: &Arc<dyn ConsoleOut>) -> Model {
    let edge = Edge { line: Arc::clone(irq), muted: Cell::new(false) };
    Uart::new(edge, Output(Arc::clone(out)))
}

fn write(uart: &mut Model, offset: u8, value: u8) {
    // The trigger cannot fail and the output never does.
    let _ = uart.write(offset, value);
}

fn with_divisor_latch_off(uart: &mut Model, work: impl FnOnce(&mut Model)) {
    let control = uart.read(LINE_CONTROL);
    write(uart, LINE_CONTROL, control & !DIVISOR_LATCH);
    work(uart);
    write(uart, LINE_CONTROL, control);
}

fn line_status_enabled(uart: &mut Model) -> bool {
    let mut enabled = 0;
    with_divisor_latch_off(uart, |uart| enabled = uart.read(INTERRUPT_ENABLE));
    enabled & ENABLE_LINE_STATUS != 0
}

fn empty(uart: &mut Model) -> bool {
    uart.read(LINE_STATUS) & DATA_READY == 0
}

fn clear_receiver(uart: &mut Model) {
    with_divisor_latch_off(uart, |uart| {
        while !empty(uart) {
            uart.read(DATA);
        }
    });
}

// Raises every interrupt that is both enabled and due: the model does so when the register that
// enables them is written, here with what it holds.
fn raise_due(uart: &mut Model) {
    with_divisor_latch_off(uart, |uart| {
        let enabled = uart.read(INTERRUPT_ENABLE);
        write(uart, INTERRUPT_ENABLE, enabled);
    });
}

// The model takes the receiver's interrupt back at the first byte read and at every look at the
// identification register; a 16550 keeps it up until the receiver is empty. Restored without an
// edge: the line would not have moved.
fn keep_receiver_due(uart: &mut Model) {
    if !empty(uart) {
        uart.interrupt_evt().muted.set(true);
        raise_due(uart);
        uart.interrupt_evt().muted.set(false);
    }
}

// The model shows all that is due at once. A 16550 shows the most urgent: the receiver before the
// transmitter, and the transmitter only while it can take a byte.
fn most_urgent(identification: u8, transmitter_ready: bool) -> u8 {
    let due = match identification & DUE {
        due if due & DUE_RECEIVER != 0 => DUE_RECEIVER,
        due if due & DUE_TRANSMITTER != 0 && transmitter_ready => DUE_TRANSMITTER,
        _ => NO_INTERRUPT,
    };
    identification & !DUE | due
}

impl ByteDevice for Serial {
    fn read_byte(&self, offset: u8) -> u8 {
        let mut uart = self.lock();
        let ready = self.out.ready();
        let value = uart.read(offset);
        match offset {
            DATA => {
                keep_receiver_due(&mut uart);
                let drained = empty(&mut uart);
                drop(uart);
                if drained {
                    self.room();
                }
                value
            }
            INTERRUPT_IDENTIFICATION => {
                keep_receiver_due(&mut uart);
                if self.line_break.load(Ordering::Relaxed) && line_status_enabled(&mut uart) {
                    return value & !DUE | DUE_LINE_STATUS;
                }
                most_urgent(value, ready)
            }
            LINE_STATUS => {
                let broken = self.line_break.swap(false, Ordering::Relaxed);
                let busy = if ready { 0 } else { TRANSMITTER_EMPTY };
                value & !busy | if broken { BREAK_INTERRUPT } else { 0 }
            }
            _ => value,
        }
    }

    fn write_byte(&self, offset: u8, value: u8) {
        let mut uart = self.lock();
        write(&mut uart, offset, value);
        let clear = offset == FIFO_CONTROL && value & FIFO_CLEAR_RECEIVER != 0;
        if clear {
            clear_receiver(&mut uart);
        }
        drop(uart);
        // Input is also refused in loopback mode, which a modem control write may have ended.
        if clear || offset == MODEM_CONTROL {
            self.room();
        }
    }
}

byte_device_on_bus!(Serial);

#[cfg(test)]
mod tests;
