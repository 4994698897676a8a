//! Root ports: bus numbers, windows, interrupts, and the slot as its guest sees it.

use super::*;
use vcpu::irq::MsiVector;

const BUS: u8 = 5;
const BUSES: u16 = 0x18;
const MEMORY_WINDOW: u16 = 0x20;
const SLOT_CONTROL: u16 = 0x18;
const SLOT_STATUS: u16 = 0x1a;

const CONFIG: RootPortConfig = RootPortConfig {
    port: 1,
    slot: 33,
    hotplug: true,
    power_controller: true,
    multifunction: false,
};

/// A port at device 3, and what its guest has done.
struct Bench {
    machine: Machine,
    port: Arc<RootPort>,
    answers: Arc<Mutex<Vec<SlotAnswer>>>,
}

impl Bench {
    fn new() -> Self {
        let machine = Machine::new();
        let (port, function) = RootPort::new("port", &*machine.platform, CONFIG).unwrap();
        machine.root.plug(Some(Slot::new(3, 0).unwrap()), &function).unwrap();
        let answers = Arc::<Mutex<Vec<SlotAnswer>>>::default();
        let log = Arc::clone(&answers);
        port.connect(Box::new(move |answer| log.lock().unwrap().push(answer)));
        Self { machine, port, answers }
    }

    /// Numbers the bus below, as firmware would.
    fn number(&self) {
        self.machine.set_config_u32(3, BUSES, u32::from(BUS) << 16 | u32::from(BUS) << 8);
    }

    fn plug(&self) -> Arc<Recorder> {
        let (function, device) = made();
        self.port.bridge().segment().plug(None, &function).unwrap();
        device
    }

    /// Configuration space of the device below.
    fn at(register: u16) -> u64 {
        ECAM + (u64::from(BUS) << 20) + u64::from(register)
    }

    fn below(&self, register: u16) -> u32 {
        let mut data = [0; 4];
        self.machine.mmio.read(Self::at(register), &mut data);
        u32::from_le_bytes(data)
    }

    fn set_below(&self, register: u16, value: u32) {
        self.machine.mmio.write(Self::at(register), &value.to_le_bytes());
    }

    fn express(&self) -> u16 {
        self.capability(0x10)
    }

    /// Where the port's capability `id` is.
    fn capability(&self, id: u8) -> u16 {
        let mut at = self.machine.config_u32(3, 0x34) as u8;
        while at != 0 {
            let header = self.machine.config_u32(3, at.into());
            if header as u8 == id {
                return at.into();
            }
            at = (header >> 8) as u8;
        }
        panic!("the port has no capability {id:#x}");
    }

    fn slot(&self, register: u16) -> u16 {
        let at = self.express() + register;
        (self.machine.config_u32(3, at & !3) >> (8 * (at & 3))) as u16
    }

    fn set_slot(&self, register: u16, value: u16) {
        let at = ECAM + (3 << 15) + u64::from(self.express() + register);
        self.machine.mmio.write(at, &value.to_le_bytes());
    }
}

#[test]
fn a_port_is_a_bridge_with_a_hotplug_slot() {
    let bench = Bench::new();
    assert_eq!(bench.machine.config_u32(3, 0), 0x000c_1b36);
    assert_eq!(bench.machine.config_u32(3, 0x08), 0x0604_0000);
    assert_eq!(bench.machine.config_u32(3, 0x0c) >> 16 & 0xff, 1, "type 1");
    let express = bench.express();
    assert_eq!(bench.machine.config_u32(3, express) >> 16, 0x0142, "a root port with a slot");
    let slot = bench.machine.config_u32(3, express + 0x14);
    assert_eq!((slot >> 19, slot & 0x7f), (33, 0x7b));
    assert_ne!(bench.machine.root.bridges(), 0);
}

#[test]
fn configuration_accesses_follow_the_bus_number() {
    let bench = Bench::new();
    bench.plug();
    assert_eq!(bench.below(0), u32::MAX, "the bus has no number yet");
    bench.number();
    assert_eq!(bench.below(0), 0x1042_1af4);
    // The other way to get there.
    bench.machine.outl(0xcf8, 1 << 31 | u32::from(BUS) << 16);
    assert_eq!(bench.machine.inl(0xcfc), 0x1042_1af4);
    bench.machine.outl(0xcf8, 1 << 31 | u32::from(BUS) << 16 | 1 << 11);
    assert_eq!(bench.machine.inl(0xcfc), u32::MAX, "a link has one device");
    bench.machine.root.reset();
    assert_eq!(bench.below(0), u32::MAX, "a reset takes the number");
}

#[test]
fn bars_decode_only_inside_the_windows() {
    let bench = Bench::new();
    let device = bench.plug();
    bench.number();
    bench.set_below(0x10, 0xe010_0000);
    bench.set_below(COMMAND, COMMAND_MEMORY.into());
    assert!(!device.take().contains(&Heard::Mapped(0, Some(0xe010_0000))));
    // 0xe0100000 to 0xe01fffff.
    bench.machine.set_config_u32(3, MEMORY_WINDOW, 0xe010_e010);
    assert_eq!(device.take(), [], "the port forwards nothing yet");
    bench.machine.set_command(3, COMMAND_MEMORY);
    assert_eq!(device.take(), [Heard::Mapped(0, Some(0xe010_0000))]);
    assert_eq!(bench.machine.peek(0xe010_0005), 0);
    // Base above limit: nothing is forwarded.
    bench.machine.set_config_u32(3, MEMORY_WINDOW, 0xe000_e010);
    assert_eq!(device.take(), [Heard::Mapped(0, None)]);
    assert_eq!(bench.machine.peek(0xe010_0005), 0xff);
}

#[test]
fn a_bar_above_4_gib_passes_the_prefetchable_window() {
    let bench = Bench::new();
    let device = bench.plug();
    bench.number();
    bench.machine.set_command(3, COMMAND_MEMORY);
    bench.machine.set_config_u32(3, 0x28, 3);
    bench.machine.set_config_u32(3, 0x2c, 3);
    bench.machine.set_config_u32(3, 0x24, 0x0010_0010);
    bench.set_below(0x20, 0x0010_0000);
    bench.set_below(0x24, 3);
    bench.set_below(COMMAND, COMMAND_MEMORY.into());
    assert!(device.take().contains(&Heard::Mapped(4, Some(0x3_0010_0000))));
}

#[test]
fn a_link_has_one_device() {
    let bench = Bench::new();
    bench.plug();
    let (function, _) = made();
    let segment = bench.port.bridge().segment();
    let slot = |device| Some(Slot::new(device, 0).unwrap());
    assert!(matches!(segment.plug(slot(0), &function), Err(PlugError::InUse { .. })));
    assert!(matches!(
        segment.plug(slot(2), &function),
        Err(PlugError::OneDevice { device: 2, .. })
    ));
    assert!(segment.is_full());
}

#[test]
fn events_interrupt_by_pin_until_msix_is_on() {
    let bench = Bench::new();
    let line = bench.machine.platform.lines[root_bus_gsi(3, 0) as usize].clone();
    // Presence changes, command completed, the button; and interrupts.
    bench.set_slot(SLOT_CONTROL, 0x0039);
    assert!(line.high(), "the command is completed");
    bench.set_slot(SLOT_STATUS, 0x0010);
    assert!(!line.high());
    bench.port.came();
    assert!(line.high());
    assert_eq!(bench.slot(SLOT_STATUS), 0x0049);
    bench.set_slot(SLOT_STATUS, 0x0009);
    assert!(!line.high());
    assert_eq!(bench.slot(SLOT_STATUS), 0x0040, "the card stays");
    assert_eq!(bench.slot(0x12) & 1 << 13, 1 << 13, "the link is up");
}

#[test]
fn each_event_is_a_message_once_msix_is_on() {
    let bench = Bench::new();
    let vector = bench.machine.platform.vector(0);
    let msix = ECAM + (3 << 15) + u64::from(bench.capability(0x11));
    bench.machine.mmio.write(msix + 2, &0x8000u16.to_le_bytes());
    bench.set_slot(SLOT_CONTROL, 0x0029);
    bench.set_slot(SLOT_STATUS, 0x0010);
    for _ in 0..3 {
        assert!(!vector.pending());
        bench.port.came();
        assert!(vector.pending());
        nix::unistd::read(vector.eventfd(), &mut [0; 8]).unwrap();
        bench.port.came();
        assert!(!vector.pending(), "the guest knows");
        bench.set_slot(SLOT_STATUS, 0x0009);
    }
}

#[test]
fn switching_the_slot_off_ejects() {
    let bench = Bench::new();
    bench.plug();
    bench.port.present();
    bench.set_slot(SLOT_CONTROL, 0x0039 | 0x01 << 8);
    assert_eq!(bench.port.request(), SlotRequest::Asked);
    bench.set_slot(SLOT_CONTROL, 0x0039 | 0x02 << 8);
    assert_eq!(bench.port.request(), SlotRequest::Busy);
    bench.set_slot(SLOT_CONTROL, 0x0039 | 0x07 << 8);
    assert_eq!(*bench.answers.lock().unwrap(), [SlotAnswer::Released]);
    assert_eq!(bench.slot(SLOT_STATUS) & 0x48, 0x08, "the card has gone");
}
