use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Answers each byte with a mark of its own and remembers what it was asked.
struct Probe {
    mark: u8,
    log: Mutex<Vec<(u64, usize)>>,
    written: AtomicU64,
}

impl Probe {
    fn new(mark: u8) -> Arc<Self> {
        Arc::new(Self { mark, log: Mutex::default(), written: AtomicU64::new(0) })
    }

    fn log(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl BusDevice for Probe {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.log.lock().unwrap().push((offset, data.len()));
        data.fill(self.mark);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.log.lock().unwrap().push((offset, data.len()));
        let mut bytes = [0; 8];
        bytes[..data.len()].copy_from_slice(data);
        self.written.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

fn read<const N: usize>(space: &AddressSpace, address: u64) -> [u8; N] {
    let mut data = [0x5a; N];
    space.read(address, &mut data);
    data
}

#[test]
fn an_access_reaches_the_device_with_its_offset_and_width() {
    let pio = AddressSpace::new(Space::Pio);
    let serial = Probe::new(7);
    pio.map(0x3f8, 8, 0, serial.clone()).unwrap();
    assert_eq!(read::<1>(&pio, 0x3fd), [7]);
    pio.write(0x3f8, &0x1234u16.to_le_bytes());
    assert_eq!(serial.log(), [(5, 1), (0, 2)]);
    assert_eq!(serial.written.load(Ordering::Relaxed), 0x1234);
}

#[test]
fn unclaimed_addresses_float_high_and_swallow_writes() {
    let mmio = AddressSpace::new(Space::Mmio);
    assert_eq!(read::<4>(&mmio, 0xd000_0000), [0xff; 4]);
    mmio.write(0xd000_0000, &[1, 2, 3, 4]);
    assert_eq!(read::<4>(&AddressSpace::with_unclaimed(Space::Mmio, 0), 0x10), [0; 4]);
}

#[test]
fn an_access_across_a_border_is_split_at_it() {
    let mmio = AddressSpace::new(Space::Mmio);
    let (low, high) = (Probe::new(1), Probe::new(2));
    mmio.map(0x1000, 0x10, 0, low.clone()).unwrap();
    mmio.map(0x1010, 0x10, 0, high.clone()).unwrap();
    assert_eq!(read::<8>(&mmio, 0x100d), [1, 1, 1, 2, 2, 2, 2, 2]);
    assert_eq!(low.log(), [(0xd, 2), (0xf, 1)]);
    assert_eq!(high.log(), [(0, 4), (4, 1)]);
    assert_eq!(read::<4>(&mmio, 0xffe), [0xff, 0xff, 1, 1]);
    assert_eq!(read::<4>(&mmio, 0x101e), [2, 2, 0xff, 0xff]);
}

#[test]
fn the_last_address_of_a_space_can_be_claimed_and_run_past() {
    let pio = AddressSpace::new(Space::Pio);
    pio.map(0xffff, 1, 0, Probe::new(3)).unwrap();
    assert_eq!(read::<2>(&pio, 0xffff), [3, 0xff]);
    let mmio = AddressSpace::new(Space::Mmio);
    mmio.map(u64::MAX, 1, 0, Probe::new(4)).unwrap();
    assert_eq!(read::<4>(&mmio, u64::MAX - 1), [0xff, 4, 0xff, 0xff]);
    mmio.write(u64::MAX, &[1, 2]);
}

#[test]
fn a_region_that_fits_nowhere_is_refused() {
    let pio = AddressSpace::new(Space::Pio);
    assert_eq!(pio.map(0, 0, 0, Probe::new(0)).unwrap_err(), MapError::Empty(Space::Pio));
    let error = pio.map(0xfffc, 8, 0, Probe::new(0)).unwrap_err();
    assert_eq!(error.to_string(), "0x8 bytes at 0xfffc do not fit Pio space");
    let id = pio.map(0x10, 8, 0, Probe::new(1)).unwrap();
    assert!(pio.remap(id, 0xfffc).is_err());
    assert_eq!(read::<1>(&pio, 0x10), [1], "a refused move leaves the region where it was");
    pio.unmap(id);
    assert_eq!(pio.remap(id, 0), Err(MapError::NoRegion(Space::Pio)));
    assert!(AddressSpace::new(Space::Mmio).map(1, u64::MAX, 0, Probe::new(0)).is_ok());
}

#[test]
fn priorities_settle_overlaps_and_the_later_of_equals_wins() {
    let mmio = AddressSpace::new(Space::Mmio);
    mmio.map(0, 0x100, 0, Probe::new(1)).unwrap();
    let top = mmio.map(0x40, 0x10, 5, Probe::new(2)).unwrap();
    mmio.map(0x48, 0x10, 0, Probe::new(3)).unwrap();
    let row = |space: &AddressSpace| [0x3f, 0x40, 0x4f, 0x50, 0x58].map(|a| read::<1>(space, a)[0]);
    assert_eq!(row(&mmio), [1, 2, 2, 3, 1]);
    mmio.unmap(top);
    assert_eq!(row(&mmio), [1, 1, 3, 3, 1]);
}

#[test]
fn a_device_may_move_its_own_region_during_an_access() {
    struct Mover(std::sync::OnceLock<(Arc<AddressSpace>, RegionId)>);
    impl BusDevice for Mover {
        fn read(&self, _: u64, data: &mut [u8]) {
            data.fill(9);
        }
        fn write(&self, _: u64, data: &[u8]) {
            let (space, id) = self.0.get().unwrap();
            space.remap(*id, u64::from(data[0]) << 12).unwrap();
        }
    }
    let mmio = AddressSpace::new(Space::Mmio);
    let device = Arc::new(Mover(std::sync::OnceLock::new()));
    let id = mmio.map(0x1000, 0x1000, 0, device.clone()).unwrap();
    assert!(device.0.set((mmio.clone(), id)).is_ok());
    mmio.write(0x1000, &[0x20]);
    assert_eq!((read::<1>(&mmio, 0x1000), read::<1>(&mmio, 0x20_000)), ([0xff], [9]));
}

#[derive(Clone, Debug)]
enum Op {
    Map { base: u64, len: u64, priority: i32 },
    Unmap(usize),
    Remap(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0u64..64, 1u64..40, -2i32..3).prop_map(|(base, len, priority)| Op::Map {
            base,
            len,
            priority
        }),
        1 => (0usize..12).prop_map(Op::Unmap),
        2 => (0usize..12, 0u64..64).prop_map(|(i, base)| Op::Remap(i, base)),
    ]
}

/// The naive model: every region in a list, every address searched.
#[derive(Default)]
struct Model(Vec<(RegionId, u64, u64, i32, u8)>);

impl Model {
    fn owner(&self, address: u64) -> u8 {
        self.0
            .iter()
            .filter(|(_, base, len, ..)| (*base..base + len).contains(&address))
            .max_by_key(|(id, _, _, priority, _)| (*priority, *id))
            .map_or(0xff, |region| region.4)
    }
}

proptest! {
    #[test]
    fn every_address_is_answered_as_the_naive_model_says(
        ops in prop::collection::vec(op(), 1..30),
        probes in prop::collection::vec((0u64..110, 1usize..20), 1..10),
    ) {
        let space = AddressSpace::new(Space::Mmio);
        let mut model = Model::default();
        for (mark, op) in ops.into_iter().enumerate() {
            match op {
                Op::Map { base, len, priority } => {
                    let id = space.map(base, len, priority, Probe::new(mark as u8)).unwrap();
                    model.0.push((id, base, len, priority, mark as u8));
                }
                Op::Unmap(i) if i < model.0.len() => space.unmap(model.0.remove(i).0),
                Op::Remap(i, base) if i < model.0.len() => {
                    space.remap(model.0[i].0, base).unwrap();
                    model.0[i].1 = base;
                }
                Op::Unmap(_) | Op::Remap(..) => {}
            }
        }
        for (address, len) in probes {
            let mut data = vec![0x5a; len];
            space.read(address, &mut data);
            let expected: Vec<u8> = (address..).take(len).map(|a| model.owner(a)).collect();
            prop_assert_eq!(data, expected);
        }
    }
}
