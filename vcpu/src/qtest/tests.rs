use super::*;
use crate::address_space::AddressSpace;
use crate::bus::{BusDevice, Space};
use crate::irq::{MsiMessage, MsiVector, Platform};
use crate::memory::{self, Ram, RamConfig};
use reactor::sync::Notify;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress};

const RAM: u64 = 2 << 20;

/// A device that keeps the accesses it saw.
#[derive(Default)]
struct Recorder {
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
    written: Notify,
}

impl BusDevice for Recorder {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
        self.writes.lock().unwrap().push((offset, Vec::from([data.len() as u8])));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.writes.lock().unwrap().push((offset, data.to_vec()));
        self.written.notify_one();
    }
}

struct Stage {
    ram: Arc<Ram>,
    mmio: Arc<AddressSpace>,
    device: Arc<Recorder>,
    memory: PhysicalMemory,
}

/// RAM, a device right behind it, and nothing else.
fn stage() -> Stage {
    let ram = memory::build(&RamConfig::new(RAM)).unwrap();
    let mmio = AddressSpace::with_unclaimed(Space::Mmio, 0);
    let device = Arc::new(Recorder::default());
    mmio.map(RAM, 0x100, 0, device.clone()).unwrap();
    let memory = PhysicalMemory::new(Arc::clone(&ram), &mmio);
    Stage { ram, mmio, device, memory }
}

fn signal(vector: &dyn MsiVector) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the kernel reads the 8 bytes of this array.
    let len = unsafe { libc::write(vector.eventfd().as_raw_fd(), one.as_ptr().cast(), one.len()) };
    assert_eq!(len, 8);
}

#[test]
fn accesses_go_to_ram_and_to_devices_in_their_width() {
    let stage = stage();
    stage.memory.write(RAM - 2, &[1, 2, 3, 4, 5, 6]);
    let mut bytes = [0xff; 4];
    stage.memory.read(RAM - 2, &mut bytes[..2]);
    assert_eq!(bytes, [1, 2, 0xff, 0xff]);
    stage.memory.read(RAM + 0x10, &mut bytes);
    assert_eq!(bytes, [0x10; 4]);
    let seen = stage.device.writes.lock().unwrap().clone();
    assert_eq!(seen, [(0, vec![3, 4, 5, 6]), (0x10, vec![4])]);
    // Past the device, and past the last address, nobody answers.
    stage.memory.read(RAM + 0x100, &mut bytes);
    assert_eq!(bytes, [0; 4]);
    stage.memory.read(u64::MAX - 1, &mut bytes);
    stage.memory.write(u64::MAX - 1, &bytes);
    assert_eq!(bytes, [0; 4]);
    assert!(stage.memory.is_ram(RAM - 4, 4) && !stage.memory.is_ram(RAM - 3, 4));
}

#[test]
fn memory_does_not_keep_its_devices_alive() {
    let stage = stage();
    drop(stage.mmio);
    let mut bytes = [0xff; 2];
    stage.memory.read(RAM, &mut bytes);
    assert_eq!(bytes, [0; 2]);
}

#[test]
fn a_message_is_a_store_and_waits_while_it_is_masked() {
    reactor::run(reactor::Config::with_cores(vec![0]), |reactors| async move {
        let stage = stage();
        let platform = Qtest::new(stage.memory.clone(), |_, _| {});
        assert!(platform.msi_vector().is_err(), "nobody would store its messages");
        platform.attach(reactors.iohandler().clone());
        let vector = platform.msi_vector().unwrap();
        signal(&*vector);
        assert!(vector.pending());
        let at = GuestAddress(0x1000);
        vector.route(Some(MsiMessage { address: at.0, data: 0x1234_5678 })).unwrap();
        assert!(!vector.pending());
        assert_eq!(stage.ram.read_obj::<u32>(at).unwrap(), 0x1234_5678);
        // To a device: by the task, which also answers later signals.
        let message = |data| Some(MsiMessage { address: RAM + 8, data });
        vector.route(message(7)).unwrap();
        signal(&*vector);
        stage.device.written.notified().await;
        vector.route(None).unwrap();
        signal(&*vector);
        assert!(vector.pending());
        vector.route(message(9)).unwrap();
        stage.device.written.notified().await;
        let seen = stage.device.writes.lock().unwrap().clone();
        assert_eq!(seen, [(8, vec![7, 0, 0, 0]), (8, vec![9, 0, 0, 0])]);
    })
    .unwrap();
}

#[test]
fn lines_tell_of_each_change() {
    let stage = stage();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let platform = Qtest::new(stage.memory, move |n, high| log.lock().unwrap().push((n, high)));
    let line = platform.irq_line(17);
    line.set_level(true);
    line.set_level(true);
    line.set_level(false);
    assert_eq!(*seen.lock().unwrap(), [(17, true), (17, false)]);
}
