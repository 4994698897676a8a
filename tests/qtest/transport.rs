//! The PCI transport of virtio, seen by a driver: registers, features, resets, interrupts, rings.

use crate::blk::{Disk, disk};
use crate::machine::Machine;
use crate::pc::with_disk;
use crate::pci::Slot;
use crate::virtio::{
    ACKNOWLEDGE, CONFIG_VECTOR, DRIVER, DRIVER_FEATURE, DRIVER_OK, DRIVER_SELECT, Device,
    EVENT_IDX, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, NO_VECTOR, NUM_QUEUES, QUEUE_DESC,
    QUEUE_ENABLE, QUEUE_RESET, QUEUE_SELECT, QUEUE_SIZE, RING_RESET, STATUS, VERSION_1,
};
use std::path::PathBuf;

const SIZE: u64 = 1 << 20;

fn device() -> (Machine, Device, (PathBuf, tempfile::TempDir)) {
    let (mut m, path, dir) = with_disk(SIZE, &[]);
    let device = Device::new(&mut m, 4);
    (m, device, (path, dir))
}

#[test]
fn a_modern_device_says_who_it_is() {
    let (mut m, device, _image) = device();
    assert_eq!(device.slot.read32(&mut m, 0), 0x1042_1af4);
    assert_eq!(device.slot.read8(&mut m, 8), 1, "revision 1: no transitional device");
    assert_eq!(device.slot.read8(&mut m, 0x3d), 1, "INTA");
}

#[test]
fn all_four_structures_are_in_one_bar_and_msix_in_another() {
    let (mut m, device, _image) = device();
    let bar = device.structures[0].bar;
    for structure in device.structures {
        assert!(structure.len > 0 && structure.bar == bar, "{structure:?}");
    }
    let table = device.slot.read32(&mut m, device.msix + 4) & 7;
    let pba = device.slot.read32(&mut m, device.msix + 8) & 7;
    assert_eq!(table, pba);
    assert_ne!(table, u32::from(bar));
}

#[test]
fn features_that_change_formats_are_not_offered() {
    let (mut m, device, _image) = device();
    let offered = device.offered(&mut m);
    assert_eq!(offered & VERSION_1, VERSION_1);
    assert_eq!(offered & (INDIRECT_DESC | EVENT_IDX), INDIRECT_DESC | EVENT_IDX);
    // RING_PACKED, IN_ORDER, NOTIFICATION_DATA.
    assert_eq!(offered & (1 << 34 | 1 << 35 | 1 << 38), 0);
}

#[test]
fn the_drivers_features_can_be_read_back() {
    let (mut m, device, _image) = device();
    device.set_status(&mut m, ACKNOWLEDGE | DRIVER);
    device.accept(&mut m, VERSION_1 | EVENT_IDX);
    for (select, expected) in [(0, EVENT_IDX as u32), (1, 1), (2, 0)] {
        m.writel(device.common + DRIVER_SELECT, select);
        assert_eq!(m.readl(device.common + DRIVER_FEATURE), expected, "{select}");
    }
}

#[test]
fn features_past_the_second_word_are_none() {
    let (mut m, device, _image) = device();
    m.writel(device.common, 2);
    assert_eq!(m.readl(device.common + 4), 0);
}

#[test]
fn what_was_not_offered_is_refused() {
    let (mut m, device, _image) = device();
    assert!(!device.negotiate(&mut m, VERSION_1 | 1 << 34));
    assert!(!device.negotiate(&mut m, EVENT_IDX), "nor a driver from before version 1");
    assert!(device.negotiate(&mut m, VERSION_1));
}

#[test]
fn features_are_frozen_once_agreed() {
    let (mut m, device, _image) = device();
    assert!(device.negotiate(&mut m, VERSION_1));
    device.accept(&mut m, VERSION_1 | EVENT_IDX);
    m.writel(device.common + DRIVER_SELECT, 0);
    assert_eq!(m.readl(device.common + DRIVER_FEATURE), 0);
}

#[test]
fn a_queue_that_does_not_exist_has_size_0() {
    let (mut m, device, _image) = device();
    assert_eq!(m.readw(device.common + NUM_QUEUES), 1);
    for queue in [1, 2, 0xffff] {
        device.select(&mut m, queue);
        assert_eq!(m.readw(device.common + QUEUE_SIZE), 0);
        m.writew(device.common + QUEUE_SIZE, 16);
        m.writew(device.common + QUEUE_ENABLE, 1);
        assert_eq!(m.readw(device.common + QUEUE_SIZE), 0);
        assert_eq!(m.readw(device.common + QUEUE_ENABLE), 0);
        assert_eq!(device.use_vector(&mut m, queue, 0), NO_VECTOR);
    }
}

#[test]
fn queue_sizes_are_powers_of_two_up_to_the_largest() {
    let (mut m, device, _image) = device();
    device.select(&mut m, 0);
    let most = m.readw(device.common + QUEUE_SIZE);
    assert!(most.is_power_of_two());
    for (written, read) in [(0, most), (3, most), (8, 8), (most * 2, 8), (most, most)] {
        m.writew(device.common + QUEUE_SIZE, written);
        assert_eq!(m.readw(device.common + QUEUE_SIZE), read, "{written}");
    }
}

#[test]
fn a_queue_outside_ram_needs_a_reset() {
    for address in [0u64, 0x1008, 0xe000_0000, !0xf] {
        let (mut m, device, _image) = device();
        assert!(device.negotiate(&mut m, VERSION_1));
        device.select(&mut m, 0);
        for n in 0..3 {
            m.writeq(device.common + QUEUE_DESC + 8 * n, address);
        }
        m.writew(device.common + QUEUE_ENABLE, 1);
        assert_eq!(m.readw(device.common + QUEUE_ENABLE), 0, "{address:#x}");
        assert_eq!(device.status(&mut m) & NEEDS_RESET, NEEDS_RESET, "{address:#x}");
        device.set_status(&mut m, 0);
        assert_eq!(device.status(&mut m), 0);
    }
}

#[test]
fn a_live_queue_cannot_be_moved() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let device = &disk.device;
    m.writew(device.common + QUEUE_SELECT, 0);
    let before = m.readq(device.common + QUEUE_DESC);
    m.writeq(device.common + QUEUE_DESC, 0x7f_0000);
    assert_eq!(m.readq(device.common + QUEUE_DESC), before);
    assert_eq!(disk.flush(&mut m), 0);
}

#[test]
fn the_status_register_takes_only_the_steps_of_the_specification() {
    let (mut m, device, _image) = device();
    device.set_status(&mut m, DRIVER_OK);
    assert_eq!(device.status(&mut m), 0);
    device.set_status(&mut m, ACKNOWLEDGE | DRIVER);
    device.set_status(&mut m, ACKNOWLEDGE);
    assert_eq!(device.status(&mut m), ACKNOWLEDGE | DRIVER, "no bit is taken back");
    device.set_status(&mut m, ACKNOWLEDGE | DRIVER | 128);
    assert_eq!(device.status(&mut m), ACKNOWLEDGE | DRIVER | 128);
    device.set_status(&mut m, 0);
    assert_eq!(device.status(&mut m), 0);
}

/// What is set before a reset, by the state that the device is taken to.
fn reset_from(state: u8) {
    let (mut m, device, _image) = device();
    let steps = [
        ACKNOWLEDGE,
        ACKNOWLEDGE | DRIVER,
        ACKNOWLEDGE | DRIVER | FEATURES_OK,
        ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
    ];
    device.accept(&mut m, VERSION_1 | EVENT_IDX);
    for step in steps.into_iter().filter(|step| *step <= state) {
        if step & DRIVER_OK != 0 {
            device.queue(&mut m, 0, true);
        }
        device.set_status(&mut m, step);
        assert_eq!(device.status(&mut m), step);
    }
    m.writew(device.common + CONFIG_VECTOR, 0);
    device.set_status(&mut m, 0);
    assert_eq!(device.status(&mut m), 0, "visible at the next read");
    device.select(&mut m, 0);
    assert_eq!(m.readw(device.common + QUEUE_ENABLE), 0);
    assert_eq!(m.readq(device.common + QUEUE_DESC), 0);
    assert_eq!(m.readw(device.common + CONFIG_VECTOR), NO_VECTOR);
    m.writel(device.common + DRIVER_SELECT, 0);
    assert_eq!(m.readl(device.common + DRIVER_FEATURE), 0);
    assert!(device.negotiate(&mut m, VERSION_1), "it can be driven again");
}

#[test]
fn reset_at_power_on() {
    reset_from(0);
}

#[test]
fn reset_when_acknowledged() {
    reset_from(ACKNOWLEDGE);
}

#[test]
fn reset_with_a_driver() {
    reset_from(ACKNOWLEDGE | DRIVER);
}

#[test]
fn reset_when_features_are_agreed() {
    reset_from(ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

#[test]
fn reset_when_live() {
    reset_from(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

#[test]
fn reset_with_requests_in_flight_is_over_at_the_next_read() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    for _ in 0..20 {
        let before = disk.queue.used_index;
        for sector in 0..8 {
            let (head, _) = disk.prepare(&mut m, 0, sector, 4096, true);
            disk.queue.offer(&mut m, head);
        }
        disk.queue.ring(&mut m);
        disk.device.set_status(&mut m, 0);
        assert_eq!(disk.device.status(&mut m), 0);
        let used = disk.queue.device_used(&mut m);
        disk.start(&mut m, VERSION_1);
        assert!(used.wrapping_sub(before) <= 8);
        assert_eq!(disk.flush(&mut m), 0);
    }
}

#[test]
fn machine_reset_with_requests_in_flight() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let mut qmp = m.qmp();
    let (head, _) = disk.prepare(&mut m, 0, 0, 65536, true);
    disk.queue.offer(&mut m, head);
    disk.queue.ring(&mut m);
    qmp.execute("system_reset");
    qmp.wait_event("RESET");
    disk.device = Device::new(&mut m, 4);
    assert_eq!(disk.device.status(&mut m), 0);
    disk.start(&mut m, VERSION_1);
    assert_eq!(disk.flush(&mut m), 0);
}

#[test]
fn intx_rises_after_the_used_index_and_falls_when_isr_is_read() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    m.ok("irq_intercept_in ioapic");
    for _ in 0..3 {
        let before = disk.queue.used_index;
        disk.submit_flush(&mut m);
        assert_eq!(m.next_irq(), (16 + 4, true));
        assert_eq!(disk.queue.device_used(&mut m), before.wrapping_add(1), "used index first");
        assert_eq!(m.readb(disk.device.isr), 1);
        assert_eq!(m.next_irq(), (16 + 4, false));
        assert_eq!(m.readb(disk.device.isr), 0);
        disk.queue.take(&mut m);
    }
}

#[test]
fn the_interrupt_line_register_says_which_input_it_is() {
    let (mut m, device, _image) = device();
    assert_eq!(device.slot.read8(&mut m, 0x3c), 16 + 4);
}

#[test]
fn intx_can_be_disabled() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    m.ok("irq_intercept_in ioapic");
    let command = disk.device.slot.read16(&mut m, 4);
    disk.device.slot.write16(&mut m, 4, command | 1 << 10);
    assert_eq!(disk.flush(&mut m), 0);
    assert_eq!(disk.device.slot.read16(&mut m, 6) & 1 << 3, 1 << 3, "Interrupt Status shows it");
    assert_eq!(m.irqs(), []);
    disk.device.slot.write16(&mut m, 4, command);
    assert_eq!(m.irqs(), [(20, true)]);
}

/// A disk that signals queue 0 by vector 1, which stores 0xabcd0001 at the address returned.
fn with_msix(features: u64, masked: bool) -> (Machine, Disk, u64) {
    let (mut m, mut disk) = disk(SIZE, &[], features);
    disk.device.set_status(&mut m, 0);
    let target = m.alloc(8);
    disk.device.enable_msix(&mut m);
    disk.device.set_vector(&mut m, 1, target, 0xabcd_0001, masked);
    disk.start_with(&mut m, features, |m, device| {
        assert_eq!(device.use_vector(m, 0, 1), 1);
    });
    (m, disk, target)
}

#[test]
fn a_message_is_a_store_of_four_bytes_to_ram() {
    let (mut m, mut disk, target) = with_msix(VERSION_1, false);
    m.ok("irq_intercept_in ioapic");
    m.writeq(target, u64::MAX);
    disk.submit_flush(&mut m);
    m.until("the message", |m| m.readl(target) == 0xabcd_0001);
    assert_eq!(disk.queue.device_used(&mut m), 1, "used index first");
    assert_eq!(m.readl(target + 4), u32::MAX, "no byte more");
    assert_eq!(m.irqs(), [], "and no INTx");
}

#[test]
fn each_batch_of_used_buffers_has_its_message() {
    let (mut m, mut disk, target) = with_msix(VERSION_1, false);
    for _ in 0..10 {
        m.writel(target, 0);
        disk.submit_flush(&mut m);
        m.until("the message", |m| m.readl(target) == 0xabcd_0001);
        disk.queue.take(&mut m);
    }
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let (mut m, mut disk, target) = with_msix(VERSION_1, true);
    disk.submit_flush(&mut m);
    disk.queue.take(&mut m);
    let pba = disk.device.msix_pba;
    m.until("the pending bit", |m| m.readq(pba) == 1 << 1);
    assert_eq!(m.readl(target), 0);
    let entry = disk.device.msix_table + 16;
    m.writel(entry + 12, 0);
    assert_eq!(m.readl(target), 0xabcd_0001, "delivered by the write that unmasks");
    assert_eq!(m.readq(pba), 0);
}

#[test]
fn the_function_mask_masks_all_vectors() {
    let (mut m, mut disk, target) = with_msix(VERSION_1, false);
    let (slot, control) = (disk.device.slot, disk.device.msix + 2);
    slot.write16(&mut m, control, 0xc000);
    disk.submit_flush(&mut m);
    disk.queue.take(&mut m);
    let pba = disk.device.msix_pba;
    m.until("the pending bit", |m| m.readq(pba) == 1 << 1);
    assert_eq!(m.readl(target), 0);
    slot.write16(&mut m, control, 0x8000);
    assert_eq!(m.readl(target), 0xabcd_0001);
}

#[test]
fn a_vector_can_be_pointed_elsewhere() {
    let (mut m, mut disk, target) = with_msix(VERSION_1, false);
    let other = m.alloc(4);
    disk.device.set_vector(&mut m, 1, other, 5, false);
    disk.submit_flush(&mut m);
    m.until("the message", |m| m.readl(other) == 5);
    assert_eq!(m.readl(target), 0);
}

#[test]
fn vectors_past_the_table_are_refused() {
    let (mut m, device, _image) = device();
    device.enable_msix(&mut m);
    let vectors = (device.slot.read16(&mut m, device.msix + 2) & 0x7ff) + 1;
    assert_eq!(device.use_vector(&mut m, 0, vectors - 1), vectors - 1);
    assert_eq!(device.use_vector(&mut m, 0, vectors), NO_VECTOR);
    m.writew(device.common + CONFIG_VECTOR, vectors);
    assert_eq!(m.readw(device.common + CONFIG_VECTOR), NO_VECTOR);
}

#[test]
fn a_message_to_nowhere_is_lost() {
    let (mut m, mut disk, _) = with_msix(VERSION_1, false);
    for address in [0xfee0_0000, 0xe800_0000, !3] {
        disk.device.set_vector(&mut m, 1, address, 7, false);
        assert_eq!(disk.flush(&mut m), 0, "{address:#x}");
    }
}

#[test]
fn a_message_may_go_to_a_register() {
    let (mut m, mut disk, _) = with_msix(VERSION_1, false);
    // Into its own table: vector 0's data.
    let data = disk.device.msix_table + 8;
    disk.device.set_vector(&mut m, 1, data, 0x77, false);
    disk.submit_flush(&mut m);
    m.until("the message", |m| m.readl(data) == 0x77);
    disk.queue.take(&mut m);
    assert_eq!(disk.flush(&mut m), 0);
}

#[test]
fn drivers_can_ask_for_no_interrupts() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    m.ok("irq_intercept_in ioapic");
    disk.queue.suppress(&mut m, true);
    assert_eq!(disk.flush(&mut m), 0);
    assert_eq!(m.readb(disk.device.isr), 0);
    assert_eq!(m.irqs(), []);
    disk.queue.suppress(&mut m, false);
    disk.submit_flush(&mut m);
    assert_eq!(m.next_irq(), (20, true));
}

#[test]
fn the_event_index_says_when_to_interrupt() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | EVENT_IDX);
    m.ok("irq_intercept_in ioapic");
    disk.queue.set_used_event(&mut m, 2);
    for _ in 0..2 {
        disk.submit_flush(&mut m);
        let (at, now) = (disk.queue.used + 2, disk.queue.available_index);
        m.until("the request", |m| m.readw(at) == now);
    }
    assert_eq!(m.irqs(), [], "not before the third");
    disk.submit_flush(&mut m);
    assert_eq!(m.next_irq(), (20, true));
}

#[test]
fn the_available_event_follows_the_available_index() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | EVENT_IDX);
    for n in 1..=5 {
        assert_eq!(disk.flush(&mut m), 0);
        let (at, size) = (disk.queue.used, u64::from(disk.queue.size));
        m.until("the event", |m| m.readw(at + 4 + 8 * size) == n);
    }
    assert_eq!(disk.queue.available_event(&mut m), 5);
}

#[test]
fn a_doorbell_of_any_width_rings() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    for width in [1u32, 2, 4] {
        let head = disk.prepare_flush(&mut m);
        disk.queue.offer(&mut m, head);
        match width {
            1 => m.writeb(disk.queue.doorbell, 0),
            2 => m.writew(disk.queue.doorbell, 0),
            _ => m.writel(disk.queue.doorbell, 0),
        }
        disk.queue.take(&mut m);
    }
}

#[test]
fn doorbells_of_queues_that_are_not_live_do_nothing() {
    let (mut m, device, _image) = device();
    m.writew(device.notify, 0);
    m.writew(device.notify + 0xffc, 1023);
    assert!(device.negotiate(&mut m, VERSION_1));
    m.writew(device.notify, 0);
    assert_eq!(device.status(&mut m) & NEEDS_RESET, 0);
}

#[test]
fn requests_offered_before_driver_ok_are_served_after_it() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    disk.device.set_status(&mut m, 0);
    disk.start_with(&mut m, VERSION_1, |_, _| {});
    assert_eq!(disk.flush(&mut m), 0);
    disk.device.set_status(&mut m, 0);
    assert!(disk.device.negotiate(&mut m, VERSION_1));
    disk.queue = disk.device.queue(&mut m, 0, false);
    let head = disk.prepare_flush(&mut m);
    disk.queue.offer(&mut m, head);
    disk.device.driver_ok(&mut m);
    disk.queue.ring(&mut m);
    disk.queue.take(&mut m);
}

#[test]
fn an_impossible_available_index_needs_a_reset() {
    let (mut m, disk) = disk(SIZE, &[], VERSION_1);
    m.writew(disk.queue.available + 2, disk.queue.size + 1);
    disk.queue.ring(&mut m);
    let status = disk.device.common + STATUS;
    m.until("NEEDS_RESET", |m| m.readb(status) & NEEDS_RESET != 0);
    let isr = disk.device.isr;
    m.until("a configuration change, with both bits", |m| m.readb(isr) == 3);
}

#[test]
fn the_configuration_window_reads_the_structures() {
    let (mut m, device, _image) = device();
    let slot = Slot(4);
    let window = slot.capabilities(&mut m, 0x09)[4];
    slot.write32(&mut m, window + 4, 4);
    slot.write32(&mut m, window + 8, NUM_QUEUES as u32);
    slot.write32(&mut m, window + 12, 2);
    assert_eq!(slot.read16(&mut m, window + 16), 1);
    // And writes them: ACKNOWLEDGE.
    slot.write32(&mut m, window + 8, STATUS as u32);
    slot.write32(&mut m, window + 12, 1);
    slot.write32(&mut m, window + 16, 1);
    assert_eq!(device.status(&mut m), ACKNOWLEDGE);
}

#[test]
fn wide_and_odd_accesses_read_the_same_bytes() {
    let (mut m, device, _image) = device();
    let whole = m.read(device.common, 8);
    let mut bytes = Vec::new();
    for n in 0..8 {
        bytes.push(m.readb(device.common + n));
    }
    assert_eq!(bytes, whole);
    assert_eq!(m.readq(device.common).to_le_bytes(), *whole);
}

#[test]
fn a_queue_is_reset_alone_and_comes_back_elsewhere() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | RING_RESET);
    assert_eq!(disk.flush(&mut m), 0);
    for _ in 0..3 {
        disk.device.select(&mut m, 0);
        m.writew(disk.device.common + QUEUE_RESET, 1);
        assert_eq!(m.readw(disk.device.common + QUEUE_RESET), 0, "done at the next read");
        assert_eq!(m.readw(disk.device.common + QUEUE_ENABLE), 0);
        assert_eq!(m.readq(disk.device.common + QUEUE_DESC), 0);
        // What is offered on the old rings is nobody's.
        disk.submit_flush(&mut m);
        let before = disk.queue.used_index;
        assert_eq!(disk.queue.device_used(&mut m), before);
        disk.queue = disk.device.queue(&mut m, 0, false);
        assert_eq!(disk.flush(&mut m), 0);
        assert_eq!(disk.device.status(&mut m) & DRIVER_OK, DRIVER_OK, "the device goes on");
    }
}

#[test]
fn a_queue_is_reset_with_requests_in_flight() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | RING_RESET);
    for _ in 0..5 {
        for _ in 0..8 {
            disk.submit_flush(&mut m);
        }
        disk.device.select(&mut m, 0);
        m.writew(disk.device.common + QUEUE_RESET, 1);
        assert_eq!(m.readw(disk.device.common + QUEUE_RESET), 0);
        let stopped_at = disk.queue.device_used(&mut m);
        disk.queue = disk.device.queue(&mut m, 0, false);
        assert_eq!(disk.flush(&mut m), 0);
        assert!(stopped_at <= 8 + 1, "{stopped_at}");
    }
}

#[test]
fn queue_reset_is_for_drivers_that_have_agreed_to_it() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    disk.device.select(&mut m, 0);
    m.writew(disk.device.common + QUEUE_RESET, 1);
    assert_eq!(m.readw(disk.device.common + QUEUE_ENABLE), 1);
    assert_eq!(disk.flush(&mut m), 0);
}

#[test]
fn features_of_all_devices_can_be_switched_off() {
    let (mut m, _path, _dir) = with_disk(SIZE, &["-device", "virtio-rng-pci,addr=5,event_idx=off"]);
    let all = INDIRECT_DESC | EVENT_IDX | RING_RESET | VERSION_1;
    assert_eq!(Device::new(&mut m, 4).offered(&mut m) & all, all);
    assert_eq!(Device::new(&mut m, 5).offered(&mut m) & all, all & !EVENT_IDX);
    let off = "virtio-rng-pci,addr=5,indirect_desc=off,queue_reset=off";
    let (mut m, _path, _dir) = with_disk(SIZE, &["-device", off]);
    let device = Device::new(&mut m, 5);
    assert_eq!(device.offered(&mut m) & all, EVENT_IDX | VERSION_1);
    assert!(!device.negotiate(&mut m, VERSION_1 | RING_RESET));
}
