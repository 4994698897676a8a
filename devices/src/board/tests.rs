use super::*;
use crate::test_platform::{TestClock, TestConsole, TestPlatform};
use proptest::prelude::*;
use std::sync::Mutex;
use vcpu::bus::Space;

struct Machine {
    platform: Arc<TestPlatform>,
    pio: Arc<AddressSpace>,
    mmio: Arc<AddressSpace>,
    console: Arc<TestConsole>,
    asked: Arc<Mutex<Vec<GuestRequest>>>,
    board: Board,
}

impl Machine {
    fn new() -> Self {
        let platform = TestPlatform::new();
        let (pio, mmio) = (AddressSpace::new(Space::Pio), AddressSpace::new(Space::Mmio));
        let console = TestConsole::with_room(1000);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let board = Board::new(BoardConfig {
            platform: platform.clone(),
            pio: Arc::clone(&pio),
            mmio: Arc::clone(&mmio),
            ram_size: 6 << 30,
            cpus: 2,
            cpus_max: 4,
            pci64: layout::pci64_window(6 << 30, 40),
            clock: Arc::new(TestClock::default()),
            console: console.clone(),
            debug_console: Some(console.clone()),
            requests: Arc::new(move |request| log.lock().unwrap().push(request)),
        })
        .unwrap();
        Self { platform, pio, mmio, console, asked, board }
    }

    fn inb(&self, port: u64) -> u8 {
        let mut data = [0; 1];
        self.pio.read(port, &mut data);
        data[0]
    }

    fn outb(&self, port: u64, value: u8) {
        self.pio.write(port, &[value]);
    }
}

#[test]
fn every_device_answers_at_its_address() {
    let machine = Machine::new();
    machine.outb(0x3f8, b'h');
    machine.outb(0xe9, b'i');
    assert_eq!(*machine.console.written.lock().unwrap(), b"hi");
    assert_ne!(machine.inb(0x71), 0xff, "RTC");
    assert_ne!(machine.inb(0x64), 0xff, "i8042");
    assert_eq!(machine.inb(0x61), 0xff, "the accelerator's, not ours");
    machine.pio.write(0x510, &[0, 0]);
    assert_eq!([(); 4].map(|()| machine.inb(0x511)), *b"QEMU");
    assert_eq!(machine.inb(0x604) & 1, 1, "SCI_EN");
    let mut id = [0; 4];
    machine.mmio.read(layout::ECAM.start, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1237_8086);
    machine.mmio.read(layout::ECAM.end - 4, &mut id);
    assert_eq!(u32::from_le_bytes(id), u32::MAX);
}

#[test]
fn every_way_to_ask_reaches_the_machine() {
    let machine = Machine::new();
    machine.outb(0xf4, 3);
    machine.outb(0xcf9, 0x0e);
    machine.outb(0x64, 0xfe);
    machine.pio.write(0x604, &[0x00, 0x20]);
    let expected =
        [GuestRequest::Exit(3), GuestRequest::Reset, GuestRequest::Reset, GuestRequest::PowerOff];
    assert_eq!(*machine.asked.lock().unwrap(), expected);
}

#[test]
fn the_power_button_is_the_sci_and_input_is_irq_4() {
    let machine = Machine::new();
    machine.pio.write(0x602, &[0, 1]);
    machine.board.pm.press_power_button();
    assert!(machine.platform.lines[9].high());
    machine.outb(0x3f9, 1);
    machine.board.serial.input(b"x");
    assert_eq!(machine.platform.lines[4].edges(), 1);
    machine.board.reset();
    assert!(!machine.platform.lines[9].high());
    assert_eq!(machine.inb(0x3f9), 0);
}

#[test]
fn machines_do_not_share_anything() {
    let (one, other) = (Machine::new(), Machine::new());
    one.outb(0x3ff, 0x5a);
    one.outb(0x70, 0x0f);
    one.outb(0xf4, 1);
    assert_eq!((other.inb(0x3ff), other.inb(0x70)), (0, 0));
    assert!(other.asked.lock().unwrap().is_empty());
}

#[test]
fn a_guest_is_given_its_tables() {
    let machine = Machine::new();
    let ram = vcpu::memory::build(&vcpu::memory::RamConfig::new(2 << 20)).unwrap();
    assert_eq!(machine.board.install_acpi(&ram, &[0, 1]).unwrap(), layout::ACPI.start);
}

/// An access to a port of the board or near one.
fn access() -> impl Strategy<Value = (u64, Vec<u8>, bool)> {
    let ports = [0x60, 0x64, 0x70, 0xe9, 0xf4, 0x3f8, 0x510, 0x600, 0xcf8];
    let port = (prop::sample::select(ports.to_vec()), 0u64..14).prop_map(|(port, at)| port + at);
    let data = prop::sample::select(vec![1usize, 2, 4, 8])
        .prop_flat_map(|len| prop::collection::vec(any::<u8>(), len));
    (port, data, any::<bool>())
}

proptest! {
    #[test]
    fn random_port_accesses_leave_a_working_board(
        accesses in prop::collection::vec(access(), 0..200),
        typed in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let machine = Machine::new();
        for (port, mut data, write) in accesses {
            if write {
                machine.pio.write(port, &data);
            } else {
                machine.pio.read(port, &mut data);
            }
            machine.board.serial.input(&typed);
            machine.board.pm.press_power_button();
        }
        machine.board.reset();
        machine.console.room.store(1, std::sync::atomic::Ordering::Relaxed);
        machine.outb(0x3f8, b'!');
        let last = machine.console.written.lock().unwrap().last().copied();
        prop_assert_eq!(last, Some(b'!'));
        machine.pio.write(0xcf8, &0x8000_0000u32.to_le_bytes());
        let mut id = [0; 4];
        machine.pio.read(0xcfc, &mut id);
        prop_assert_eq!(u32::from_le_bytes(id), 0x1237_8086);
        prop_assert_eq!(machine.inb(0x604) & 1, 1);
    }
}
