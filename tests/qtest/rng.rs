//! The entropy device (Virtual I/O Device 1.2, section 5.4).

use crate::machine::Machine;
use crate::queue::Queue;
use crate::virtio::{Device, EVENT_IDX, NEEDS_RESET, RING_RESET, STATUS, VERSION_1};
use serde_json::json;

/// A machine with an entropy device in slot 4, live.
fn rng(properties: &str, args: &[&str]) -> (Machine, Device, Queue) {
    let device = format!("virtio-rng-pci,id=r0,addr=4{properties}");
    let mut all = vec!["-device", &device];
    all.extend(args);
    let mut m = Machine::start(&all);
    let device = Device::new(&mut m, 4);
    let queue = start(&mut m, &device, VERSION_1);
    (m, device, queue)
}

fn start(m: &mut Machine, device: &Device, features: u64) -> Queue {
    assert!(device.negotiate(m, features));
    let queue = device.queue(m, 0, features & EVENT_IDX != 0);
    device.driver_ok(m);
    queue
}

/// Offers a buffer of `len` bytes; its address.
fn offer(m: &mut Machine, queue: &mut Queue, len: u32) -> u64 {
    let at = m.alloc(len.into());
    let head = queue.chain(m, &[(at, len, true)]);
    queue.offer(m, head);
    queue.ring(m);
    at
}

fn read(m: &mut Machine, queue: &mut Queue, len: u32) -> Vec<u8> {
    let at = offer(m, queue, len);
    let (_, written) = queue.take(m);
    m.read(at, written as usize)
}

#[test]
fn it_says_who_it_is_and_has_one_queue() {
    let (mut m, device, _queue) = rng("", &[]);
    assert_eq!(device.slot.read32(&mut m, 0), 0x1044_1af4);
    device.select(&mut m, 1);
    assert_eq!(m.readw(device.common + 0x18), 0);
    assert_eq!(m.readq(device.config), 0, "no configuration");
}

#[test]
fn bytes_are_never_the_same() {
    let (mut m, _device, mut queue) = rng("", &[]);
    let first = read(&mut m, &mut queue, 64);
    assert_eq!(first.len(), 64);
    assert_ne!(first, read(&mut m, &mut queue, 64));
    assert_ne!(first, [0; 64]);
}

#[test]
fn a_chain_of_several_buffers_is_filled_in_order() {
    let (mut m, _device, mut queue) = rng("", &[]);
    let at = m.alloc(4096);
    let buffers = [(at, 16, true), (at + 64, 16, true), (at + 128, 1, true)];
    let head = queue.chain(&mut m, &buffers);
    queue.offer(&mut m, head);
    queue.ring(&mut m);
    assert_eq!(queue.take(&mut m), (head, 33));
    assert_ne!(m.read(at + 64, 16), [0; 16]);
    assert_eq!(m.read(at + 16, 48), [0; 48], "nothing between them");
}

#[test]
fn indirect_chains_and_event_index_work() {
    let (mut m, device, _) = rng("", &[]);
    let mut queue = start(&mut m, &device, VERSION_1 | EVENT_IDX | 1 << 28);
    let at = m.alloc(4096);
    for _ in 0..3 {
        let head = queue.indirect(&mut m, &[(at, 8, true), (at + 8, 8, true)]);
        queue.offer(&mut m, head);
        queue.ring(&mut m);
        assert_eq!(queue.take(&mut m), (head, 16));
    }
    let next = queue.available_index;
    m.until("the device listens for the next", |m| queue.available_event(m) == next);
}

#[test]
fn no_period_gives_more_than_its_bytes() {
    let (mut m, _device, mut queue) = rng(",max-bytes=16,period=250", &[]);
    assert_eq!(read(&mut m, &mut queue, 64).len(), 16);
    for period in 1..5u64 {
        offer(&mut m, &mut queue, 64);
        // Not a nanosecond early, whatever the host's clock says.
        let before = queue.device_used(&mut m);
        assert_eq!(m.next_deadline(), period * 250_000_000);
        assert_eq!(queue.take(&mut m).1, 16);
        assert_eq!(before.wrapping_add(1), queue.used_index);
    }
}

#[test]
fn a_reset_lets_go_of_buffers_that_wait() {
    let (mut m, device, mut queue) = rng(",max-bytes=4,period=1000", &[]);
    assert_eq!(read(&mut m, &mut queue, 8).len(), 4);
    let at = offer(&mut m, &mut queue, 8);
    device.set_status(&mut m, 0);
    assert_eq!(device.status(&mut m), 0);
    m.step(10_000_000_000);
    assert_eq!(m.read(at, 8), [0; 8]);
    let mut queue = start(&mut m, &device, VERSION_1);
    assert_eq!(read(&mut m, &mut queue, 8).len(), 4);
}

#[test]
fn its_queue_can_be_reset_alone() {
    let (mut m, device, _) = rng("", &[]);
    let mut queue = start(&mut m, &device, VERSION_1 | RING_RESET);
    for _ in 0..3 {
        assert_eq!(read(&mut m, &mut queue, 8).len(), 8);
        device.select(&mut m, 0);
        m.writew(device.common + 0x3a, 1);
        assert_eq!(m.readw(device.common + 0x3a), 0);
        queue = device.queue(&mut m, 0, false);
    }
}

#[test]
fn a_chain_without_room_needs_a_reset() {
    let (mut m, device, mut queue) = rng("", &[]);
    let at = m.alloc(16);
    let head = queue.chain(&mut m, &[(at, 16, false)]);
    queue.offer(&mut m, head);
    queue.ring(&mut m);
    let status = device.common + STATUS;
    m.until("NEEDS_RESET", |m| m.readb(status) & NEEDS_RESET != 0);
    let mut queue = start(&mut m, &device, VERSION_1);
    assert_eq!(read(&mut m, &mut queue, 8).len(), 8);
}

#[test]
fn bytes_come_from_the_source_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bytes");
    std::fs::write(&path, b"0123456789abcdef").unwrap();
    let object = format!("rng-random,id=source,filename={}", path.display());
    let (mut m, _device, mut queue) = rng(",rng=source", &["-object", &object]);
    assert_eq!(read(&mut m, &mut queue, 6), b"012345");
    assert_eq!(read(&mut m, &mut queue, 6), b"6789ab");
}

#[test]
fn it_comes_and_goes() {
    let (mut m, _device, mut queue) = rng("", &[]);
    let mut qmp = m.qmp();
    offer(&mut m, &mut queue, 8);
    for _ in 0..2 {
        qmp.execute_with("device_del", json!({"id": "r0"}));
        m.outl(0xae08, 1 << 4);
        qmp.wait_event("DEVICE_DELETED");
        let add = json!({"driver": "virtio-rng-pci", "id": "r0", "addr": "4"});
        qmp.execute_with("device_add", add);
        let device = Device::new(&mut m, 4);
        let mut queue = start(&mut m, &device, VERSION_1);
        assert_eq!(read(&mut m, &mut queue, 8).len(), 8);
    }
}
