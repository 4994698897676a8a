//! The PC around the devices: configuration mechanism #1, fw_cfg, clocks, resets.

use crate::machine::Machine;
use crate::pci::{BAR0, COMMAND, ENABLE, STATUS, Slot};
use serde_json::json;

/// A machine with a block device in slot 4.
pub fn with_disk(size: u64, args: &[&str]) -> (Machine, std::path::PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d0", path.display());
    let mut all = vec!["-drive", &drive, "-device", "virtio-blk-pci,drive=d0,addr=04.0,id=v0"];
    all.extend(args);
    (Machine::start(&all), path, dir)
}

#[test]
fn the_host_bridge_is_where_a_pc_has_it() {
    let mut m = Machine::start(&[]);
    assert_eq!(Slot(0).read32(&mut m, 0), 0x1237_8086);
    assert_eq!(Slot(0).read32(&mut m, 8) >> 16, 0x0600);
}

#[test]
fn what_the_program_has_is_told() {
    let m = Machine::start(&[]);
    let mut qmp = m.qmp();
    let cpus = qmp.execute("query-cpu-definitions");
    for cpu in cpus.as_array().unwrap() {
        assert_eq!(cpu["unavailable-features"], json!(["kvm"]), "no vCPU runs: {cpu}");
    }
    let names = |types: &serde_json::Value| -> Vec<String> {
        let types = types.as_array().unwrap().iter();
        types.map(|ty| ty["name"].as_str().unwrap().to_owned()).collect()
    };
    let of_pci = json!({"implements": "pci-device"});
    let concrete = names(&qmp.execute_with("qom-list-types", of_pci.clone()));
    assert!(concrete.contains(&"virtio-blk-pci".to_owned()), "{concrete:?}");
    assert!(!concrete.contains(&"virtio-pci".to_owned()), "abstract");
    let all = json!({"implements": "pci-device", "abstract": true});
    assert!(names(&qmp.execute_with("qom-list-types", all)).contains(&"virtio-pci".to_owned()));
    // Every CPU model is a type.
    let models = names(&qmp.execute_with("qom-list-types", json!({"implements": "cpu"})));
    for cpu in cpus.as_array().unwrap() {
        assert!(models.contains(&cpu["typename"].as_str().unwrap().to_owned()), "{models:?}");
    }
}

#[test]
fn empty_slots_read_all_ones() {
    let mut m = Machine::start(&[]);
    for slot in 5..32 {
        assert_eq!(Slot(slot).read32(&mut m, 0), u32::MAX, "{slot}");
    }
    // Without the enable bit nobody answers.
    m.outl(0xcf8, 0);
    assert_eq!(m.inl(0xcfc), u32::MAX);
}

#[test]
fn register_offsets_may_be_unaligned_with_the_data_at_the_first_port() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    let whole = Slot(4).read32(&mut m, 0).to_le_bytes();
    for (offset, byte) in whole.into_iter().enumerate() {
        assert_eq!(Slot(4).read8(&mut m, offset as u8), byte);
    }
    assert_eq!(Slot(4).read16(&mut m, 2), u16::from_le_bytes([whole[2], whole[3]]));
}

#[test]
fn the_low_bits_of_the_data_port_count_too() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    let whole = Slot(4).read32(&mut m, 0).to_le_bytes();
    m.outl(0xcf8, 1 << 31 | 4 << 11);
    for (offset, byte) in whole.into_iter().enumerate() {
        assert_eq!(m.inb(0xcfc + offset as u16), byte);
    }
    m.outl(0xcf8, 1 << 31 | 4 << 11 | 1);
    assert_eq!(m.inb(0xcfc + 2), whole[3], "offset 1 or 2");
}

#[test]
fn the_address_register_takes_whole_words_only() {
    let mut m = Machine::start(&[]);
    m.outl(0xcf8, 0x8000_0008);
    m.outw(0xcf8, 0x1234);
    m.outb(0xcf8, 0xff);
    assert_eq!(m.inl(0xcf8), 0x8000_0008);
}

#[test]
fn command_bits_read_back() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    assert_eq!(Slot(4).read16(&mut m, COMMAND) & ENABLE, 0);
    Slot(4).enable(&mut m);
    assert_eq!(Slot(4).read16(&mut m, COMMAND) & ENABLE, ENABLE);
}

#[test]
fn devices_are_where_they_were_asked_for_in_every_notation() {
    for addr in ["6", "0x6", "06", "06.0", "6.0", "0x6.0"] {
        let device = format!("virtio-blk-pci,drive=d1,addr={addr}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, [0; 512]).unwrap();
        let drive = format!("file={},format=raw,if=none,id=d1", path.display());
        let mut m = Machine::start(&["-drive", &drive, "-device", &device]);
        assert_eq!(Slot(6).read32(&mut m, 0), 0x1042_1af4, "{addr}");
    }
}

#[test]
fn bars_are_sized_and_left_for_the_driver_to_place() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    let slot = Slot(4);
    for (index, size) in [(1u8, 0x1000), (4, 0x4000)] {
        assert_eq!(slot.read32(&mut m, BAR0 + 4 * index) & !0xf, 0, "BAR {index} is not placed");
        assert_eq!(slot.bar_size(&mut m, index), size);
    }
    assert_eq!(slot.read32(&mut m, BAR0 + 16) & 0xf, 0b0100, "64 bits");
    assert_eq!(slot.read32(&mut m, BAR0 + 20), 0);
}

#[test]
fn the_low_half_of_a_64_bit_bar_is_enough() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    Slot(4).place(&mut m, 4, 0xe000_0000);
    assert_eq!(m.readb(0xe000_0014), 0);
    Slot(4).enable(&mut m);
    // num_queues of the common configuration.
    assert_eq!(m.readw(0xe000_0012), 1);
}

#[test]
fn a_bar_that_moves_answers_at_its_new_place_only() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    Slot(4).enable(&mut m);
    Slot(4).place(&mut m, 4, 0xe000_0000);
    Slot(4).place(&mut m, 4, 0xe100_0000);
    assert_eq!((m.readw(0xe000_0012), m.readw(0xe100_0012)), (0, 1));
    Slot(4).write16(&mut m, COMMAND, 0);
    assert_eq!(m.readw(0xe100_0012), 0);
}

#[test]
fn a_reset_takes_configuration_space_back_to_power_on() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    let mut qmp = m.qmp();
    let slot = Slot(4);
    let before: Vec<u32> = (0..64).map(|n| slot.read32(&mut m, 4 * n)).collect();
    slot.enable(&mut m);
    slot.place(&mut m, 1, 0xe000_0000);
    slot.place(&mut m, 4, 0xe010_0000);
    slot.write32(&mut m, 0x3c, 0x5a);
    m.writel(0xe000_0000, 0x1234_5678);
    qmp.execute("system_reset");
    let event = qmp.wait_event("RESET");
    assert_eq!(event["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
    assert_eq!(qmp.execute("query-status")["status"], "running");
    assert_eq!(m.inl(0xcf8), 0);
    let after: Vec<u32> = (0..64).map(|n| slot.read32(&mut m, 4 * n)).collect();
    assert_eq!(after, before);
    assert_eq!(m.readl(0xe000_0000), 0, "nothing decodes");
    slot.enable(&mut m);
    slot.place(&mut m, 1, 0xe000_0000);
    assert_eq!(m.readl(0xe000_0000), 0, "the MSI-X table is cleared");
    assert_eq!(m.readl(0xe000_000c), 1, "and masked");
}

#[test]
fn memory_keeps_its_content_over_a_reset() {
    let mut m = Machine::start(&[]);
    let mut qmp = m.qmp();
    m.writel(0x10_0000, 0xfeed_f00d);
    qmp.execute("system_reset");
    qmp.wait_event("RESET");
    assert_eq!(m.readl(0x10_0000), 0xfeed_f00d);
}

#[test]
fn the_reset_control_register_resets() {
    let mut m = Machine::start(&[]);
    let mut qmp = m.qmp();
    m.outb(0xcf9, 0x0e);
    assert_eq!(qmp.wait_event("RESET")["data"]["reason"], "guest-reset");
}

fn fw_cfg(m: &mut Machine, key: u16, len: usize) -> Vec<u8> {
    m.outw(0x510, key);
    (0..len).map(|_| m.inb(0x511)).collect()
}

#[test]
fn fw_cfg_tells_signature_memory_and_processors() {
    let mut m = Machine::start(&["-smp", "3", "-m", "96"]);
    assert_eq!(fw_cfg(&mut m, 0, 4), b"QEMU");
    assert_eq!(fw_cfg(&mut m, 3, 8), (96u64 << 20).to_le_bytes());
    assert_eq!(fw_cfg(&mut m, 5, 2), [3, 0]);
}

#[test]
fn there_are_128_mib_by_default() {
    let mut m = Machine::start(&[]);
    assert_eq!(fw_cfg(&mut m, 3, 8), (128u64 << 20).to_le_bytes());
    m.writel((128 << 20) - 4, 7);
    m.writel(128 << 20, 7);
    assert_eq!((m.readl((128 << 20) - 4), m.readl(128 << 20)), (7, 0));
    let size = m.qmp().execute("query-memory-size-summary");
    assert_eq!(size["base-memory"], 128 << 20);
}

#[test]
fn memory_goes_on_above_four_gigabytes() {
    let mut m = Machine::start(&["-m", "4G"]);
    m.writel(0xbfff_fffc, 1);
    m.writel(0xc000_0000 - 2, 0x0102_0304);
    m.writel(0x1_3fff_fffc, 2);
    assert_eq!((m.readw(0xbfff_fffe), m.readl(0x1_3fff_fffc)), (0x0304, 2));
    m.writel(0x1_4000_0000, 3);
    assert_eq!(m.readl(0x1_4000_0000), 0);
}

fn rtc(m: &mut Machine, register: u8) -> u8 {
    m.outb(0x70, register);
    m.inb(0x71)
}

#[test]
fn the_clock_chip_goes_by_the_virtual_clock() {
    let mut m = Machine::start(&[]);
    // Stopped while it is set to 23:59:58 on 31 December, in BCD.
    let date = [(0, 0x58), (2, 0x59), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99)];
    for (register, value) in [(0x0b, 0x82)].into_iter().chain(date).chain([(0x0b, 0x02)]) {
        m.outb(0x70, register);
        m.outb(0x71, value);
    }
    assert_eq!([rtc(&mut m, 0), rtc(&mut m, 4)], [0x58, 0x23]);
    m.step(2_000_000_000);
    let date = [4, 2, 0, 7, 8, 9].map(|register| rtc(&mut m, register));
    assert_eq!(date, [0, 0, 0, 1, 1, 0]);
}

#[test]
fn the_power_management_timer_counts_exactly() {
    let mut m = Machine::start(&[]);
    let start = m.inl(0x608);
    m.step(1_000_000_000);
    assert_eq!(m.inl(0x608) - start, 3_579_545);
    m.step(1);
    assert_eq!(m.inl(0x608) - start, 3_579_545);
    m.step(279);
    assert_eq!(m.inl(0x608) - start, 3_579_546, "one tick is 279.36 ns");
}

#[test]
fn the_power_button_raises_the_system_control_interrupt() {
    let mut m = Machine::start(&[]);
    let mut qmp = m.qmp();
    m.ok("irq_intercept_in ioapic");
    m.outw(0x602, 1 << 8);
    qmp.execute("system_powerdown");
    assert_eq!(m.next_irq(), (9, true));
    m.outw(0x600, 1 << 8);
    assert_eq!(m.irqs(), [(9, false)]);
}

#[test]
fn the_sleep_register_powers_off() {
    let mut m = Machine::start(&[]);
    let mut qmp = m.qmp();
    m.outw(0x604, 1 << 13);
    let shutdown = qmp.wait_event("SHUTDOWN");
    assert_eq!(shutdown["data"], json!({"guest": true, "reason": "guest-shutdown"}));
    assert_eq!(m.finish(), 0);
}

#[test]
fn the_serial_port_has_its_scratch_register_and_interrupt() {
    let mut m = Machine::start(&[]);
    m.ok("irq_intercept_in ioapic");
    m.outb(0x3ff, 0xa5);
    assert_eq!(m.inb(0x3ff), 0xa5);
    // Transmitter empty, with OUT2 connecting the interrupt.
    m.outb(0x3fc, 1 << 3);
    m.outb(0x3f9, 1 << 1);
    assert_eq!(m.next_irq(), (4, true));
    m.outb(0x3f9, 0);
    m.inb(0x3fa);
    assert_eq!(m.next_irq(), (4, false));
}

#[test]
fn the_status_register_tells_of_capabilities() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    assert_ne!(Slot(4).read16(&mut m, STATUS) & 1 << 4, 0);
    assert_eq!(Slot(4).capabilities(&mut m, 0x11).len(), 1);
    assert_eq!(Slot(4).capabilities(&mut m, 0x09).len(), 5);
}

#[test]
fn queries_show_the_placed_bars() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    let mut qmp = m.qmp();
    Slot(4).place(&mut m, 4, 0xe010_0000);
    Slot(4).enable(&mut m);
    let buses = qmp.execute("query-pci");
    let device = &buses[0]["devices"].as_array().unwrap()[1];
    assert_eq!((&device["slot"], &device["qdev_id"]), (&json!(4), &json!("v0")));
    let regions = device["regions"].as_array().unwrap();
    let bar = regions.iter().find(|region| region["bar"] == 4).unwrap();
    assert_eq!((&bar["address"], &bar["size"]), (&json!(0xe010_0000u32), &json!(0x4000)));
}

#[test]
fn configuration_space_is_in_memory_too() {
    let (mut m, _, _dir) = with_disk(1 << 20, &[]);
    assert_eq!(m.readl(0xc000_0000 + (4 << 15)), 0x1042_1af4);
    assert_eq!(m.readl(0xc000_0000 + (5 << 15)), u32::MAX);
}
