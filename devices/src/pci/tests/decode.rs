//! BARs: sizing, placing, moving, and what happens when a guest is wrong.

use super::*;

const BAR0: u16 = 0x10;
const BAR1: u16 = 0x14;
const BAR4: u16 = 0x20;

#[test]
fn sizing_tells_kind_and_size() {
    let machine = Machine::new();
    plain(&machine, 4);
    for (register, sized) in [
        (BAR0, 0xffff_f000),
        (BAR1, 0xffff_ffc1),
        (0x18, 0),
        (0x1c, 0),
        (BAR4, 0xffff_c00c),
        (0x24, 0xffff_ffff),
        (0x30, 0),
    ] {
        machine.set_config_u32(4, register, u32::MAX);
        assert_eq!(machine.config_u32(4, register), sized, "register {register:#x}");
    }
}

#[test]
fn a_bar_larger_than_4g_sizes_in_its_upper_half() {
    let mut config = ConfigBuilder::new(&IDENTITY, false);
    let mut bars = super::super::bar::Bars::default();
    bars.declare(2, Bar::memory64(1 << 33), &mut config).unwrap();
    let config = config.build();
    config.write(0x18, &[0xff; 8]);
    assert_eq!((config.u32(0x18), config.u32(0x1c)), (0b100, 0xffff_fffe));
}

#[test]
fn impossible_bars_cannot_be_declared() {
    let mut spec = FunctionSpec::new(IDENTITY);
    assert!(spec.bar(0, Bar::memory32(0x1800)).is_err());
    assert!(spec.bar(0, Bar::memory32(8)).is_err());
    assert!(spec.bar(0, Bar::memory32(0)).is_err());
    assert!(spec.bar(0, Bar::io(512)).is_err());
    assert!(spec.bar(6, Bar::io(4)).is_err());
    assert!(spec.bar(5, Bar::memory64(16)).is_err());
    spec.bar(2, Bar::memory64(0x1000)).unwrap();
    assert!(spec.bar(2, Bar::io(4)).is_err());
    assert!(spec.bar(3, Bar::io(4)).is_err(), "the upper half of BAR 2");
    assert!(spec.bar(1, Bar::memory64(0x1000)).is_err(), "would reach into BAR 2");
}

#[test]
fn regions_follow_enable_bits_and_moves() {
    let machine = Machine::new();
    let (function, device) = plain(&machine, 4);
    machine.set_config_u32(4, BAR0, 0xe000_0000);
    machine.set_config_u32(4, BAR1, 0xc000);
    assert_eq!(machine.peek(0xe000_0001), 0xff, "memory is still off");
    machine.set_command(4, COMMAND_MEMORY);
    assert_eq!(
        device.take(),
        [Heard::Command(COMMAND_MEMORY), Heard::Mapped(0, Some(0xe000_0000)),]
    );
    machine.set_command(4, COMMAND_MEMORY | COMMAND_IO);
    assert_eq!(device.take()[1..], [Heard::Mapped(1, Some(0xc000))]);
    machine.mmio.write(0xe000_0010, &[1, 2, 3, 4]);
    machine.outl(0xc008, 5);
    assert_eq!(
        device.take(),
        [Heard::Wrote(0, 0x10, vec![1, 2, 3, 4]), Heard::Wrote(1, 8, vec![5, 0, 0, 0]),]
    );
    machine.set_config_u32(4, BAR0, 0xe000_3000);
    assert_eq!(device.take(), [Heard::Mapped(0, None), Heard::Mapped(0, Some(0xe000_3000))]);
    assert_eq!(machine.peek(0xe000_0001), 0xff);
    assert_eq!(machine.peek(0xe000_3001), 0);
    assert_eq!(function.bar_address(0), Some(0xe000_3000));
    machine.set_command(4, 0);
    assert_eq!(machine.inl(0xc008), u32::MAX);
    assert_eq!(function.bar_address(0), None);
    assert_eq!(function.bar_address(99), None);
}

#[test]
fn a_64_bit_bar_goes_above_4g_and_below() {
    let machine = Machine::new();
    let (function, device) = plain(&machine, 4);
    machine.set_command(4, COMMAND_MEMORY);
    device.take();
    // Only the low half, as drivers under qtest do.
    machine.set_config_u32(4, BAR4, 0xe000_0000);
    assert_eq!(device.take(), [Heard::Mapped(4, Some(0xe000_0000))]);
    machine.set_config_u32(4, BAR4 + 4, 0x3);
    assert_eq!(function.bar_address(4), Some(0x3_e000_0000));
    assert_eq!(machine.peek(0x3_e000_0000), 4);
}

#[test]
fn a_write_that_changes_nothing_maps_nothing_again() {
    let machine = Machine::new();
    let (_, device) = plain(&machine, 4);
    machine.set_config_u32(4, BAR0, 0xe000_0000);
    machine.set_command(4, COMMAND_MEMORY);
    device.take();
    machine.set_config_u32(4, BAR0, 0xe000_0fff);
    machine.set_command(4, COMMAND_MEMORY);
    assert_eq!(device.take(), []);
}

#[test]
fn nonsense_addresses_decode_nowhere() {
    let machine = Machine::new();
    let (function, _) = plain(&machine, 4);
    machine.set_command(4, COMMAND_MEMORY | COMMAND_IO);
    // Zero, all ones, RAM, ECAM, I/O APIC, local APIC, just past each window.
    for base in [0, u32::MAX, 0x10_0000, 0xbfff_f000, 0xc000_0000, 0xfec0_0000, 0xfee0_0000] {
        machine.set_config_u32(4, BAR0, base);
        assert_eq!(function.bar_address(0), None, "{base:#x}");
        machine.set_config_u32(4, BAR4, base);
        assert_eq!(function.bar_address(4), None, "{base:#x}");
    }
    machine.set_config_u32(4, BAR4, 0xfebf_f000);
    assert_eq!(function.bar_address(4), Some(0xfebf_c000), "the last place that fits");
    for (low, high) in [(0, 1), (u32::MAX, u32::MAX), (0, 0x82), (0xffff_c000, 0x81)] {
        machine.set_config_u32(4, BAR4, low);
        machine.set_config_u32(4, BAR4 + 4, high);
        let expected = (high == 0x81).then_some(0x81_ffff_c000);
        assert_eq!(function.bar_address(4), expected, "{high:#x} {low:#x}");
    }
    for port in [0, 0x40, 0xfc0, 0x1_0000, u32::MAX] {
        machine.set_config_u32(4, BAR1, port);
        assert_eq!(function.bar_address(1), None, "{port:#x}");
    }
    machine.set_config_u32(4, BAR1, 0xffc0);
    assert_eq!(function.bar_address(1), Some(0xffc0));
    assert_eq!(machine.config_u32(0, 0), 0x1237_8086, "ECAM is still there");
}

#[test]
fn overlapping_bars_take_turns() {
    let machine = Machine::new();
    let (_, first) = plain(&machine, 4);
    let (_, second) = plain(&machine, 5);
    for slot in [4, 5] {
        machine.set_config_u32(slot, BAR0, 0xe000_0000);
        machine.set_command(slot, COMMAND_MEMORY);
    }
    second.take();
    machine.mmio.write(0xe000_0000, &[1]);
    assert_eq!(second.take(), [Heard::Wrote(0, 0, vec![1])]);
    machine.set_config_u32(5, BAR0, 0xe010_0000);
    first.take();
    machine.mmio.write(0xe000_0000, &[1]);
    assert_eq!(first.take(), [Heard::Wrote(0, 0, vec![1])]);
}

struct Fixed;

impl vcpu::bus::BusDevice for Fixed {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0x77);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

#[test]
fn a_bar_over_a_fixed_device_stays_under_it() {
    let machine = Machine::new();
    machine.pio.map(0xae00, 0x10, FIXED_PRIORITY, Arc::new(Fixed)).unwrap();
    plain(&machine, 4);
    machine.set_config_u32(4, BAR1, 0xae00);
    machine.set_command(4, COMMAND_IO);
    assert_eq!(machine.inl(0xae00), 0x7777_7777);
    assert_eq!(machine.inl(0xae10), 0x1010_1001);
}

#[test]
fn reset_is_power_on() {
    let machine = Machine::new();
    let (function, device) = plain(&machine, 4);
    let before: Vec<u32> = (0..64).map(|i| machine.config_u32(4, i * 4)).collect();
    machine.outl(0xcf8, 0x8000_2000);
    machine.set_config_u32(4, BAR0, 0xe000_0000);
    machine.set_config_u32(4, 0x3c, 0xff);
    machine.set_command(4, COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE);
    device.take();
    machine.root.reset();
    assert_eq!(device.take(), [Heard::Mapped(0, None), Heard::Reset, Heard::Command(0)]);
    let after: Vec<u32> = (0..64).map(|i| machine.config_u32(4, i * 4)).collect();
    assert_eq!(before, after);
    assert_eq!(machine.inl(0xcf8), 0);
    assert_eq!(function.bar_address(0), None);
    assert_eq!(machine.peek(0xe000_0001), 0xff);
}
