//! Mechanism #1, ECAM, and who is found where.

use super::*;

const ADDRESS: u64 = 0xcf8;
const DATA: u64 = 0xcfc;

fn select(machine: &Machine, slot: u32, register: u32) {
    machine.outl(ADDRESS, 1 << 31 | slot << 11 | register);
}

#[test]
fn the_host_bridge_is_found_by_both_mechanisms() {
    let machine = Machine::new();
    select(&machine, 0, 0);
    assert_eq!(machine.inl(DATA), 0x1237_8086);
    assert_eq!(machine.config_u32(0, 0), 0x1237_8086);
    assert_eq!(machine.config_u32(0, 8) >> 8, 0x06_00_00);
}

#[test]
fn absent_functions_read_all_ones_and_swallow_writes() {
    let machine = Machine::new();
    select(&machine, 7, 0);
    assert_eq!(machine.inl(DATA), u32::MAX);
    machine.outl(DATA, 0x1234_5678);
    assert_eq!(machine.config_u32(7, 0), u32::MAX);
    // Function 1 of the host bridge, and another bus.
    machine.outl(ADDRESS, 1 << 31 | 1 << 8);
    assert_eq!(machine.inl(DATA), u32::MAX);
    machine.outl(ADDRESS, 1 << 31 | 1 << 16);
    assert_eq!(machine.inl(DATA), u32::MAX);
}

#[test]
fn nothing_answers_while_the_enable_bit_is_clear() {
    let machine = Machine::new();
    machine.outl(ADDRESS, 0);
    assert_eq!(machine.inl(DATA), u32::MAX);
    assert_eq!(machine.inl(ADDRESS), 0);
}

#[test]
fn every_width_at_every_data_port() {
    let machine = Machine::new();
    let (_, _) = plain(&machine, 4);
    select(&machine, 4, 0x2c);
    let whole = machine.config_u32(4, 0x2c).to_le_bytes();
    for width in [1usize, 2, 4] {
        for port in (0..4).step_by(width) {
            let mut data = vec![0; width];
            machine.pio.read(DATA + port as u64, &mut data);
            assert_eq!(data, whole[port..port + width], "{width} bytes at port {port}");
        }
    }
}

#[test]
fn the_low_byte_of_the_address_or_the_port_is_the_register() {
    let machine = Machine::new();
    plain(&machine, 4);
    let read_u16 = |port| {
        let mut data = [0; 2];
        machine.pio.read(port, &mut data);
        u16::from_le_bytes(data)
    };
    // An unaligned register, with the data always at 0xcfc.
    select(&machine, 4, 0x2e);
    assert_eq!(read_u16(DATA), 0x1100);
    // Both say the same: OR, not a sum.
    assert_eq!(read_u16(DATA + 2), 0x1100);
    select(&machine, 4, 0x06);
    machine.pio.write(DATA, &[0xff, 0xff]);
    assert_eq!(machine.config_u32(4, 4), 0, "the status register is read-only, no capabilities");
    select(&machine, 4, 0x04);
    machine.pio.write(DATA, &[0x07]);
    assert_eq!(machine.config_u32(4, 4) & 0x7, 0x7, "IO, MEM and MASTER read back");
}

#[test]
fn an_access_past_the_last_register_reads_ones_there() {
    let machine = Machine::new();
    select(&machine, 0, 0xff);
    assert_eq!(machine.inl(DATA), 0xffff_ff00);
    machine.outl(DATA, 0);
}

#[test]
fn only_a_dword_write_latches_the_address() {
    let machine = Machine::new();
    select(&machine, 0, 0);
    machine.pio.write(ADDRESS, &[0x40]);
    machine.pio.write(ADDRESS, &[0x40, 0]);
    machine.pio.write(ADDRESS + 3, &[1]);
    assert_eq!(machine.inl(ADDRESS), 1 << 31);
    // The probe that Linux makes for mechanism #1.
    machine.pio.write(0xcfb, &[1]);
    machine.outl(ADDRESS, 0x8000_0000);
    assert_eq!(machine.inl(ADDRESS), 0x8000_0000);
}

#[test]
fn the_reset_control_register_resets_on_a_rising_bit() {
    let machine = Machine::new();
    let resets = || *machine.resets.lock().unwrap();
    machine.pio.write(u64::from(RESET_PORT), &[0x02]);
    assert_eq!(resets(), 0);
    machine.pio.write(u64::from(RESET_PORT), &[0x06]);
    assert_eq!(resets(), 1);
    machine.pio.write(u64::from(RESET_PORT), &[RESET_VALUE]);
    assert_eq!(resets(), 2);
    assert_eq!(machine.inl(ADDRESS), 0, "the address latch is not involved");
}

#[test]
fn conventional_functions_end_at_256_bytes_and_express_ones_at_4096() {
    let machine = Machine::new();
    plain(&machine, 4);
    assert_eq!(machine.config_u32(4, 0x100), u32::MAX);
    let mut spec = FunctionSpec::express(IDENTITY);
    let first = spec.config().extended_capability(0x0003, 1, &[1; 8], &[0; 8]).unwrap();
    let second = spec.config().extended_capability(0x000b, 1, &[2; 4], &[0; 4]).unwrap();
    assert_eq!((first, second), (0x100, 0x10c));
    let function = Function::new("express", spec, Arc::new(Recorder::default()));
    machine.root.plug(Some(Slot::new(5, 0).unwrap()), &function).unwrap();
    assert_eq!(machine.config_u32(5, 0x100), 0x10c1_0003);
    assert_eq!(machine.config_u32(5, 0x10c), 0x0001_000b);
    assert_eq!(machine.config_u32(5, 0xffc), 0);
}

#[test]
fn slots_are_given_from_one_upward_and_guarded() {
    let machine = Machine::new();
    let function =
        |id: &str| Function::new(id, FunctionSpec::new(IDENTITY), Arc::new(Recorder::default()));
    let at = |device, number| Some(Slot::new(device, number).unwrap());
    assert_eq!(machine.root.plug(None, &function("a")).unwrap().device(), 1);
    machine.root.plug(at(2, 0), &function("b")).unwrap();
    assert_eq!(machine.root.plug(None, &function("c")).unwrap().device(), 3);

    let taken = machine.root.plug(at(2, 0), &function("d")).unwrap_err();
    assert_eq!(taken.to_string(), "PCI: slot 2 function 0 not available for d, in use by b");
    assert!(matches!(
        machine.root.plug(at(2, 1), &function("e")),
        Err(PlugError::SingleFunction { .. })
    ));
    assert!(Slot::new(32, 0).is_err() && Slot::new(0, 8).is_err());
    for _ in 4..32 {
        machine.root.plug(None, &function("filler")).unwrap();
    }
    assert!(matches!(machine.root.plug(None, &function("late")), Err(PlugError::Full(_))));
}

#[test]
fn several_functions_share_a_device_when_function_zero_says_so() {
    let machine = Machine::new();
    let mut spec = FunctionSpec::new(IDENTITY);
    spec.multifunction(true);
    let zero = Function::new("zero", spec, Arc::new(Recorder::default()));
    let one = Function::new("one", FunctionSpec::new(IDENTITY), Arc::new(Recorder::default()));
    machine.root.plug(Some(Slot::new(6, 0).unwrap()), &zero).unwrap();
    machine.root.plug(Some(Slot::new(6, 1).unwrap()), &one).unwrap();
    assert_eq!(machine.config_u32(6, 0x0c) >> 16 & 0xff, 0x80);
    machine.outl(ADDRESS, 1 << 31 | 6 << 11 | 1 << 8);
    assert_eq!(machine.inl(DATA), 0x1042_1af4);
}

#[test]
fn an_unplugged_function_is_gone_and_its_slot_free() {
    let machine = Machine::new();
    let (function, device) = plain(&machine, 4);
    machine.set_config_u32(4, 0x10, 0xe000_0000);
    machine.set_command(4, COMMAND_MEMORY);
    assert_eq!(machine.peek(0xe000_0001), 0);
    device.take();
    let slot = Slot::new(4, 0).unwrap();
    assert!(Arc::ptr_eq(&machine.root.unplug(slot).unwrap(), &function));
    assert_eq!(device.take(), [Heard::Mapped(0, None)]);
    assert_eq!(machine.config_u32(4, 0), u32::MAX);
    assert_eq!(machine.peek(0xe000_0001), 0xff);
    assert!(machine.root.unplug(slot).is_none());
    assert!(machine.root.unplug(Slot::new(0, 0).unwrap()).is_none(), "the host bridge stays");
    machine.root.plug(Some(slot), &function).unwrap();
    assert_eq!(machine.peek(0xe000_0001), 0, "its registers still ask for that place");
}

#[test]
fn a_hooked_range_is_the_devices() {
    let machine = Machine::new();
    let (_, device) = plain(&machine, 4);
    assert_eq!(machine.config_u32(4, 0x80), 0x5a5a_5a5a);
    assert_eq!(machine.config_u32(4, 0x84), 0);
    machine.set_config_u32(4, 0x80, 0x0403_0201);
    machine.set_config_u32(4, 0x84, 0x0403_0201);
    assert_eq!(device.take(), [Heard::Config(0x80, vec![1, 2, 3, 4])]);
}

#[test]
fn a_machine_that_is_dropped_leaves_nothing_behind() {
    let machine = Machine::new();
    let (function, device) = {
        let (function, device) = plain(&machine, 4);
        (Arc::downgrade(&function), Arc::downgrade(&device))
    };
    machine.set_config_u32(4, 0x10, 0xe000_0000);
    machine.set_command(4, COMMAND_MEMORY);
    let (pio, mmio) = (Arc::downgrade(&machine.pio), Arc::downgrade(&machine.mmio));
    drop(machine);
    // Only deferred reclamation may still hold the spaces' tables; the spaces themselves are gone.
    assert!(pio.upgrade().is_none() && mmio.upgrade().is_none());
    // The table of the space holds the ports, which hold the table of functions: two periods.
    rcu::drain_call_rcu();
    rcu::drain_call_rcu();
    assert!(function.upgrade().is_none() && device.upgrade().is_none());
}
