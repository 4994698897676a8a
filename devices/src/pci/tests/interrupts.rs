//! INTx with sharing, and MSI-X.

use super::*;
use vcpu::irq::MsiMessage;

const TABLE: u64 = 0xe000_0000;
const PBA: u64 = TABLE + 0x800;

fn with_pin(machine: &Machine, slot: u8) -> (Arc<Function>, Arc<IntxPin>) {
    let pin = IntxPin::new();
    let mut spec = FunctionSpec::new(IDENTITY);
    spec.intx(&pin);
    let function = Function::new("pin", spec, Arc::new(Recorder::default()));
    machine.root.plug(Some(Slot::new(slot, 0).unwrap()), &function).unwrap();
    (function, pin)
}

#[test]
fn intx_reaches_the_input_that_the_line_register_names() {
    let machine = Machine::new();
    let (_, pin) = with_pin(&machine, 5);
    let line = machine.config_u32(5, 0x3c);
    assert_eq!(line & 0xffff, 0x0115, "INTA, on input 16 + 5");
    let input = &machine.platform.lines[21];
    pin.set(true);
    pin.set(true);
    assert!(input.high());
    assert_eq!(machine.config_u32(5, 4) >> 16 & 0x8, 0x8, "Interrupt Status");
    pin.set(false);
    assert!(!input.high());
    assert_eq!(machine.config_u32(5, 4) >> 16 & 0x8, 0);
    assert_eq!(input.edges(), 1);
}

#[test]
fn a_shared_input_is_high_while_anyone_drives_it() {
    let machine = Machine::new();
    let (_, first) = with_pin(&machine, 3);
    let (_, second) = with_pin(&machine, 11);
    let input = &machine.platform.lines[19];
    first.set(true);
    second.set(true);
    first.set(false);
    assert!(input.high());
    second.set(false);
    assert!(!input.high());
    assert_eq!(input.edges(), 1);
}

#[test]
fn interrupt_disable_keeps_the_status_and_lowers_the_line() {
    let machine = Machine::new();
    let (_, pin) = with_pin(&machine, 5);
    let input = &machine.platform.lines[21];
    pin.set(true);
    machine.set_command(5, COMMAND_INTX_DISABLE);
    assert!(!input.high());
    assert_eq!(machine.config_u32(5, 4) >> 16 & 0x8, 0x8);
    machine.set_command(5, 0);
    assert!(input.high());
    machine.root.unplug(Slot::new(5, 0).unwrap());
    assert!(!input.high(), "an unplugged function drives nothing");
}

#[test]
fn reset_lowers_the_pin() {
    let machine = Machine::new();
    let (_, pin) = with_pin(&machine, 5);
    pin.set(true);
    machine.set_command(5, COMMAND_INTX_DISABLE);
    machine.root.reset();
    assert!(!pin.asserted() && !machine.platform.lines[21].high());
    pin.set(true);
    assert!(machine.platform.lines[21].high(), "Interrupt Disable is clear again");
}

#[test]
fn a_racing_pin_ends_at_its_last_level() {
    let machine = Machine::new();
    let pins: Vec<_> = [2, 10, 18, 26].map(|slot| with_pin(&machine, slot).1).into();
    std::thread::scope(|scope| {
        for pin in &pins {
            scope.spawn(move || {
                for _ in 0..2000 {
                    pin.set(true);
                    pin.set(false);
                }
            });
        }
    });
    assert!(!machine.platform.lines[18].high());
    pins[3].set(true);
    assert!(machine.platform.lines[18].high());
}

/// A function with three MSI-X vectors in BAR 1, which is placed and on.
fn with_msix(machine: &Machine) -> (Arc<Msix>, Arc<Recorder>, u16) {
    let msix = Msix::new(&*machine.platform, 3).unwrap();
    let device = Arc::new(Recorder::default());
    let mut spec = FunctionSpec::new(IDENTITY);
    spec.bar(1, Bar::memory32(0x1000)).unwrap();
    let place = MsixPlace { table_bar: 1, table_offset: 0, pba_bar: 1, pba_offset: 0x800 };
    spec.msix(&msix, place).unwrap();
    let function = Function::new("msix", spec, device.clone());
    machine.root.plug(Some(Slot::new(4, 0).unwrap()), &function).unwrap();
    machine.set_config_u32(4, 0x14, TABLE as u32);
    machine.set_command(4, COMMAND_MEMORY);
    device.take();
    let capability = machine.config_u32(4, 0x34) as u8;
    (msix, device, capability.into())
}

fn control(machine: &Machine, capability: u16, value: u16) {
    let at = ECAM + (4 << 15) + u64::from(capability) + 2;
    machine.mmio.write(at, &value.to_le_bytes());
}

fn program(machine: &Machine, vector: u64, address: u64, data: u32, masked: bool) {
    let entry = TABLE + vector * 16;
    machine.mmio.write(entry, &address.to_le_bytes());
    machine.mmio.write(entry + 8, &data.to_le_bytes());
    machine.mmio.write(entry + 12, &u32::from(masked).to_le_bytes());
}

#[test]
fn the_capability_tells_size_and_places() {
    let machine = Machine::new();
    let (msix, _, capability) = with_msix(&machine);
    assert_eq!(machine.config_u32(4, 4) >> 16 & 0x10, 0x10, "there is a capability list");
    assert_eq!(machine.config_u32(4, capability), 2 << 16 | 0x11);
    assert_eq!(machine.config_u32(4, capability + 4), 1);
    assert_eq!(machine.config_u32(4, capability + 8), 0x801);
    assert_eq!((msix.table_size(), msix.pba_size()), (48, 8));
    control(&machine, capability, 0x3fff);
    assert_eq!(machine.config_u32(4, capability) >> 16, 2, "the table size is read-only");
}

#[test]
fn a_vector_is_routed_while_nothing_masks_it() {
    let machine = Machine::new();
    let (msix, device, capability) = with_msix(&machine);
    let vector = machine.platform.vector(1);
    let message = MsiMessage { address: 0xfee0_1000, data: 0x4041 };
    program(&machine, 1, message.address, message.data, false);
    assert_eq!(vector.route_now(), None, "MSI-X is off");
    control(&machine, capability, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    assert_eq!(vector.route_now(), None, "the function is masked");
    control(&machine, capability, MSIX_ENABLE);
    assert_eq!(vector.route_now(), Some(message));
    assert_eq!(machine.platform.vector(0).route_now(), None, "still masked");
    assert!(msix.enabled());
    assert_eq!(device.take(), [Heard::Msix(true)]);
    let routes = vector.routes();
    control(&machine, capability, MSIX_ENABLE);
    program(&machine, 1, message.address, message.data, false);
    assert_eq!(vector.routes(), routes, "what does not change is not told again");
    program(&machine, 1, 0xfee0_2000, 0x42, false);
    assert_eq!(vector.route_now().unwrap().address, 0xfee0_2000);
    program(&machine, 1, 0xfee0_2000, 0x42, true);
    assert_eq!(vector.route_now(), None);
    control(&machine, capability, 0);
    assert!(!msix.enabled());
    assert_eq!(device.take(), [Heard::Msix(false)]);
}

#[test]
fn the_table_reads_back_at_every_width_and_stays_away_from_the_device() {
    let machine = Machine::new();
    let (_, device, _) = with_msix(&machine);
    program(&machine, 2, 0x0000_0001_fee0_3004, 0x4_5678, false);
    let read = |at: u64, len: usize| {
        let mut data = vec![0; len];
        machine.mmio.read(at, &mut data);
        data
    };
    let entry = TABLE + 32;
    assert_eq!(read(entry, 8), 0x0000_0001_fee0_3004u64.to_le_bytes());
    assert_eq!(read(entry + 9, 1), [0x56]);
    assert_eq!(read(entry + 12, 4), [0, 0, 0, 0]);
    assert_eq!(read(TABLE + 12, 4), [1, 0, 0, 0], "masked at power-on");
    machine.mmio.write(TABLE + 12, &u32::MAX.to_le_bytes());
    assert_eq!(read(TABLE + 12, 4), [1, 0, 0, 0], "the rest of vector control is reserved");
    assert_eq!(device.take(), []);
    // Beside the structures the BAR is the device's.
    machine.mmio.write(TABLE + 48, &[9]);
    assert_eq!(device.take(), [Heard::Wrote(1, 48, vec![9])]);
}

#[test]
fn pending_bits_show_what_waits_behind_a_mask() {
    let machine = Machine::new();
    let (_, _, capability) = with_msix(&machine);
    control(&machine, capability, MSIX_ENABLE);
    let vector = machine.platform.vector(2);
    vector.signal();
    assert_eq!(machine.peek(PBA), 0b100);
    machine.mmio.write(PBA, &[0]);
    assert_eq!(machine.peek(PBA), 0b100, "the array is read-only");
    program(&machine, 2, 0xfee0_0000, 0x50, false);
    assert_eq!((machine.peek(PBA), vector.delivered()), (0, 1), "unmasking delivered it");
    assert_eq!(machine.peek(PBA + 7), 0);
    vector.signal();
    assert_eq!(vector.delivered(), 2);
}

#[test]
fn what_was_signalled_before_a_reset_is_not_delivered_after_it() {
    let machine = Machine::new();
    let (_, _, capability) = with_msix(&machine);
    control(&machine, capability, MSIX_ENABLE);
    let vector = machine.platform.vector(0);
    vector.signal();
    machine.root.reset();
    vector.signal();
    machine.set_config_u32(4, 0x14, TABLE as u32);
    machine.set_command(4, COMMAND_MEMORY);
    assert_eq!(machine.peek(PBA), 0);
    program(&machine, 0, 0xfee0_0000, 0x50, false);
    control(&machine, capability, MSIX_ENABLE);
    assert_eq!((machine.peek(PBA), vector.delivered()), (0, 0));
    vector.signal();
    assert_eq!(vector.delivered(), 1);
}

#[test]
fn reset_turns_msix_off_and_masks_every_vector() {
    let machine = Machine::new();
    let (msix, device, capability) = with_msix(&machine);
    program(&machine, 0, 0xfee0_0000, 0x50, false);
    control(&machine, capability, MSIX_ENABLE);
    device.take();
    machine.root.reset();
    assert!(!msix.enabled());
    assert_eq!(machine.platform.vector(0).route_now(), None);
    let heard = device.take();
    assert_eq!(heard[..3], [Heard::Mapped(1, None), Heard::Msix(false), Heard::Reset]);
    assert_eq!(machine.config_u32(4, capability) >> 16, 2);
    let mut data = [0xff; 16];
    msix.read_table(0, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn structures_that_do_not_fit_cannot_be_declared() {
    let machine = Machine::new();
    let msix = Msix::new(&*machine.platform, 200).unwrap();
    let place = |table_bar, table_offset, pba_offset| MsixPlace {
        table_bar,
        table_offset,
        pba_bar: table_bar,
        pba_offset,
    };
    let mut spec = FunctionSpec::new(IDENTITY);
    spec.bar(1, Bar::memory32(0x1000)).unwrap();
    spec.bar(2, Bar::io(0x40)).unwrap();
    assert!(spec.msix(&msix, place(0, 0, 0xff0)).is_err(), "no such BAR");
    assert!(spec.msix(&msix, place(2, 0, 0)).is_err(), "an I/O BAR");
    assert!(spec.msix(&msix, place(1, 0, 0xc00)).is_err(), "they overlap");
    assert!(spec.msix(&msix, place(1, 4, 0xff0)).is_err(), "not aligned");
    assert!(spec.msix(&msix, place(1, 0x800, 0)).is_err(), "past the end");
    assert!(spec.msix(&msix, place(1, 0, 0xfe0)).is_ok());
    assert!(Msix::new(&*machine.platform, 0).is_err());
    assert!(Msix::new(&*machine.platform, 2049).is_err());
}
