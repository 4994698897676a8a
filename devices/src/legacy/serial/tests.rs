use super::*;
use crate::test_platform::{TestConsole, TestLine};
use std::sync::atomic::AtomicUsize;
use vcpu::bus::BusDevice;

const ENABLE_RECEIVER: u8 = 1;
const ENABLE_TRANSMITTER: u8 = 2;
const FIFOS: u8 = 0xc0;

struct Port {
    serial: Arc<Serial>,
    irq: Arc<TestLine>,
    console: Arc<TestConsole>,
    room_calls: Arc<AtomicUsize>,
}

impl Port {
    fn new(room: usize) -> Self {
        let (irq, console) = (Arc::<TestLine>::default(), TestConsole::with_room(room));
        let serial = Serial::new(irq.clone(), console.clone());
        let room_calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&room_calls);
        serial.on_room(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        Self { serial, irq, console, room_calls }
    }

    fn inb(&self, offset: u8) -> u8 {
        let mut data = [0; 1];
        self.serial.read(offset.into(), &mut data);
        data[0]
    }

    fn outb(&self, offset: u8, value: u8) {
        self.serial.write(offset.into(), &[value]);
    }

    fn room_calls(&self) -> usize {
        self.room_calls.load(Ordering::Relaxed)
    }

    /// What a driver does in its interrupt handler: identify, read while there is data, repeat.
    fn drain_by_identification(&self) -> Vec<u8> {
        let mut received = Vec::new();
        for _ in 0..1000 {
            match self.inb(INTERRUPT_IDENTIFICATION) & !FIFOS {
                DUE_RECEIVER => received.push(self.inb(DATA)),
                NO_INTERRUPT => return received,
                _ => {}
            }
        }
        panic!("the interrupt never goes away");
    }
}

#[test]
fn output_goes_to_the_console() {
    let port = Port::new(100);
    b"hello".iter().for_each(|byte| port.outb(DATA, *byte));
    assert_eq!(*port.console.written.lock().unwrap(), b"hello");
    assert_eq!(port.inb(LINE_STATUS), TRANSMITTER_EMPTY);
}

#[test]
fn a_probe_finds_a_16550a() {
    let port = Port::new(1);
    // Scratch register, then the interrupt enable register's upper half.
    port.outb(7, 0x5a);
    assert_eq!(port.inb(7), 0x5a);
    port.outb(INTERRUPT_ENABLE, 0x0f);
    assert_eq!(port.inb(INTERRUPT_ENABLE), 0x0f);
    port.outb(INTERRUPT_ENABLE, 0);
    // Loopback shows the modem control lines.
    port.outb(MODEM_CONTROL, 0x1a);
    assert_eq!(port.inb(6) & 0xf0, 0x90);
    port.outb(MODEM_CONTROL, 0);
    port.outb(FIFO_CONTROL, 1);
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION) >> 6, 3);
    // The divisor latch hides data and interrupt enable.
    port.outb(LINE_CONTROL, 0x83);
    port.outb(DATA, 1);
    port.outb(INTERRUPT_ENABLE, 0);
    assert_eq!((port.inb(DATA), port.inb(INTERRUPT_ENABLE)), (1, 0));
    assert_eq!(*port.console.written.lock().unwrap(), b"");
}

#[test]
fn received_data_interrupts_and_stays_due_until_all_is_read() {
    let port = Port::new(1);
    port.outb(INTERRUPT_ENABLE, ENABLE_RECEIVER);
    assert_eq!(port.serial.input(b"abc"), 3);
    assert_eq!(port.irq.edges(), 1);
    // A driver that takes one byte for each look at the identification register.
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION), FIFOS | DUE_RECEIVER);
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION), FIFOS | DUE_RECEIVER, "looking changes nothing");
    assert_eq!(port.drain_by_identification(), b"abc");
    assert_eq!(port.inb(LINE_STATUS) & DATA_READY, 0);
    assert_eq!(port.irq.edges(), 1, "one interrupt for what came at once");
    port.serial.input(b"d");
    assert_eq!(port.irq.edges(), 2);
}

#[test]
fn data_that_came_before_the_driver_interrupts_when_it_enables() {
    let port = Port::new(1);
    port.serial.input(b"x");
    assert_eq!(port.irq.edges(), 0);
    port.outb(INTERRUPT_ENABLE, ENABLE_RECEIVER);
    assert_eq!(port.irq.edges(), 1);
    assert_eq!(port.drain_by_identification(), b"x");
}

#[test]
fn the_receiver_comes_before_the_transmitter() {
    let port = Port::new(100);
    port.outb(INTERRUPT_ENABLE, ENABLE_RECEIVER | ENABLE_TRANSMITTER);
    port.serial.input(b"q");
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION), FIFOS | DUE_RECEIVER);
    assert_eq!(port.inb(DATA), b'q');
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION), FIFOS | DUE_TRANSMITTER);
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION), FIFOS | NO_INTERRUPT, "taken by looking");
    let edges = port.irq.edges();
    port.outb(DATA, b'!');
    assert_eq!(port.irq.edges(), edges + 1, "transmitted at once, so it is empty again");
}

#[test]
fn input_beyond_the_fifo_waits_for_room() {
    let port = Port::new(1);
    let typed: Vec<u8> = (0..100).collect();
    let taken = port.serial.input(&typed);
    assert_eq!(taken, 64);
    assert_eq!(port.serial.input(&typed[taken..]), 0);
    let mut read: Vec<u8> = (0..63).map(|_| port.inb(DATA)).collect();
    assert_eq!(port.room_calls(), 0, "only an empty FIFO is worth a call");
    read.push(port.inb(DATA));
    assert_eq!(port.room_calls(), 1);
    assert_eq!(port.serial.input(&typed[taken..]), 36);
    read.extend((0..36).map(|_| port.inb(DATA)));
    assert_eq!(read, typed);
    assert_eq!(port.room_calls(), 1, "nobody waits any more");
}

#[test]
fn clearing_the_receiver_and_leaving_loopback_make_room() {
    let port = Port::new(1);
    assert_eq!(port.serial.input(&[7; 65]), 64);
    port.outb(LINE_CONTROL, 0x83);
    port.outb(FIFO_CONTROL, 0x07);
    assert_eq!(port.inb(LINE_CONTROL), 0x83);
    port.outb(LINE_CONTROL, 0x03);
    assert_eq!((port.inb(LINE_STATUS) & DATA_READY, port.room_calls()), (0, 1));
    port.outb(MODEM_CONTROL, 0x10);
    assert_eq!(port.serial.input(b"x"), 0, "the line is cut in loopback");
    port.outb(MODEM_CONTROL, 0);
    assert_eq!(port.room_calls(), 2);
    assert_eq!(port.serial.input(b"x"), 1);
}

#[test]
fn a_full_console_is_a_busy_transmitter() {
    let port = Port::new(2);
    port.outb(INTERRUPT_ENABLE, ENABLE_TRANSMITTER);
    port.inb(INTERRUPT_IDENTIFICATION);
    port.outb(DATA, b'a');
    assert_eq!(port.inb(LINE_STATUS), TRANSMITTER_EMPTY);
    port.outb(DATA, b'b');
    assert_eq!(port.inb(LINE_STATUS), 0);
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION), FIFOS | NO_INTERRUPT);
    port.outb(DATA, b'?');
    port.inb(INTERRUPT_IDENTIFICATION);
    let edges = port.irq.edges();
    port.serial.output_ready();
    assert_eq!(port.irq.edges(), edges, "it is not ready");
    port.console.room.store(10, Ordering::Relaxed);
    port.serial.output_ready();
    assert_eq!(port.irq.edges(), edges + 1);
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION), FIFOS | DUE_TRANSMITTER);
    port.outb(DATA, b'c');
    assert_eq!(*port.console.written.lock().unwrap(), b"abc", "written while busy: lost");
}

#[test]
fn reset_forgets_input_and_settings() {
    let port = Port::new(1);
    port.outb(INTERRUPT_ENABLE, ENABLE_RECEIVER);
    assert_eq!(port.serial.input(&[1; 70]), 64);
    port.serial.reset();
    assert_eq!((port.inb(INTERRUPT_ENABLE), port.inb(LINE_STATUS)), (0, TRANSMITTER_EMPTY));
    assert_eq!(port.room_calls(), 1);
}

#[test]
fn wide_accesses_are_one_to_each_register() {
    let port = Port::new(100);
    port.serial.write(u64::from(LINE_CONTROL), &[0x03, 0x0b, 0, 0, 0x11]);
    let mut data = [0; 4];
    port.serial.read(u64::from(LINE_CONTROL), &mut data);
    assert_eq!(data, [0x03, 0x0b, TRANSMITTER_EMPTY, 0xb0]);
    assert_eq!(port.inb(7), 0x11);
}

#[test]
fn a_break_shows_in_the_line_status_until_that_is_read() {
    let port = Port::new(1);
    port.outb(FIFO_CONTROL, 1);
    port.outb(INTERRUPT_ENABLE, ENABLE_RECEIVER | ENABLE_LINE_STATUS);
    let before = port.irq.edges();
    port.serial.receive_break();
    assert!(port.irq.edges() > before, "the guest is interrupted");
    assert_eq!(port.inb(INTERRUPT_IDENTIFICATION) & !FIFOS, DUE_LINE_STATUS);
    assert_eq!(port.inb(LINE_STATUS), TRANSMITTER_EMPTY | BREAK_INTERRUPT | DATA_READY);
    // A zero byte came with it.
    assert_eq!(port.inb(LINE_STATUS), TRANSMITTER_EMPTY | DATA_READY);
    assert_eq!(port.drain_by_identification(), [0]);
    port.serial.receive_break();
    port.serial.reset();
    assert_eq!(port.inb(LINE_STATUS), TRANSMITTER_EMPTY);
}
