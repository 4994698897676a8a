//! Random descriptor tables: no panic, no hang, no access outside of guest memory.

use super::*;
use crate::virtio::status;
use crate::virtio::testing::{EventPlatform, RawDescriptor};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use std::time::Duration;
use vm_memory::{GuestRegionMmap, MmapRegion};

const MIB: usize = 1 << 20;
/// Guest RAM is the first and the last part of one mapping; between them lies what no guest may
/// reach.
const MAPPING: usize = 64 * MIB;
const FORBIDDEN: std::ops::Range<usize> = MIB..2 * MIB;
const CANARY: u8 = 0xc3;

/// Guest RAM with a hole that is mapped in the host: an access there is seen, not refused.
struct Ram {
    ram: Arc<crate::virtio::Ram>,
    // Dropped last: owns the memory that `ram` refers to.
    mapping: MmapRegion,
}

impl Ram {
    fn new() -> Self {
        let mapping = MmapRegion::new(MAPPING).unwrap();
        let part = |range: std::ops::Range<usize>| {
            // SAFETY: inside of `mapping`, which lives longer; such a region does not unmap.
            let region = unsafe {
                MmapRegion::build_raw(
                    mapping.as_ptr().add(range.start),
                    range.len(),
                    mapping.prot(),
                    mapping.flags(),
                )
            };
            GuestRegionMmap::new(region.unwrap(), GuestAddress(range.start as u64)).unwrap()
        };
        let regions = vec![part(0..FORBIDDEN.start), part(FORBIDDEN.end..MAPPING)];
        let ram = Arc::new(crate::virtio::Ram::from_regions(regions).unwrap());
        let new = Self { ram, mapping };
        new.forbidden().fill(CANARY);
        new
    }

    #[expect(clippy::mut_from_ref, reason = "the canary belongs to nobody else")]
    fn forbidden(&self) -> &mut [u8] {
        // SAFETY: mapped while `mapping` lives; a device that behaves never touches it.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.mapping.as_ptr().add(FORBIDDEN.start),
                FORBIDDEN.len(),
            )
        }
    }
}

/// An address that is likely to mean something: around the borders of RAM, in the request area, in
/// the rings, or anywhere.
fn address(area: u64) -> impl Strategy<Value = u64> {
    let around = |at: usize| {
        (0u64..1024).prop_map(move |n| (at as u64 + n).wrapping_sub(512))
    };
    prop_oneof![
        8 => (0u64..64).prop_map(move |n| area + 64 * n),
        2 => around(0),
        2 => around(FORBIDDEN.start),
        2 => around(FORBIDDEN.end),
        2 => around(MAPPING),
        1 => any::<u64>(),
    ]
}

fn descriptor(area: u64) -> impl Strategy<Value = RawDescriptor> {
    let len = prop_oneof![
        4 => Just(16u32),
        2 => Just(1u32),
        4 => (1u32..9).prop_map(|n| n * 512),
        1 => Just(0u32),
        1 => any::<u32>(),
        1 => 0u32..2_000_000,
    ];
    let flags = prop_oneof![8 => 0u16..4, 2 => 4u16..8, 1 => any::<u16>()];
    let next = prop_oneof![10 => 0u16..16, 1 => any::<u16>()];
    (address(area), len, flags, next)
        .prop_map(|(address, len, flags, next)| RawDescriptor { address, len, flags, next })
}

#[derive(Clone, Debug)]
struct Case {
    table: Vec<RawDescriptor>,
    heads: Vec<u16>,
    idx: Option<u16>,
    kinds: Vec<u32>,
    sectors: Vec<u64>,
}

fn case(area: u64) -> impl Strategy<Value = Case> {
    let kinds = prop_oneof![Just(0u32), Just(1), Just(4), Just(8), Just(11), Just(13), any::<u32>()];
    let sectors = prop_oneof![8 => 0u64..2048, 1 => any::<u64>()];
    (
        prop::collection::vec(descriptor(area), 16),
        prop::collection::vec(prop_oneof![10 => 0u16..16, 1 => any::<u16>()], 1..16),
        prop_oneof![10 => Just(None), 1 => any::<u16>().prop_map(Some)],
        prop::collection::vec(kinds, 64),
        prop::collection::vec(sectors, 64),
    )
        .prop_map(|(table, heads, idx, kinds, sectors)| Case { table, heads, idx, kinds, sectors })
}

/// Offers the case to the device and waits until it has answered all or asked for a reset.
async fn offer(rig: &mut Rig, area: u64, case: &Case) {
    rig.start(USUAL, 1, 16);
    for (n, (kind, sector)) in case.kinds.iter().zip(&case.sectors).enumerate() {
        rig.write(area + 64 * n as u64, &header(*kind, *sector));
    }
    for (n, descriptor) in case.table.iter().enumerate() {
        rig.queues[0].write_descriptor(n as u16, *descriptor);
        // The same table serves as an indirect one.
        rig.write(area + 2048 + 16 * n as u64, &descriptor.bytes());
    }
    for head in &case.heads {
        rig.queues[0].offer(*head);
    }
    if let Some(idx) = case.idx {
        rig.queues[0].set_available_idx(idx);
    }
    rig.queues[0].ring();
    let all = case.heads.len() as u16;
    // A random buffer may well lie over the used ring: then only the device knows.
    while rig.blk.metrics()[0].requests % (1 << 32) < u64::from(all)
        && rig.driver.status() & status::NEEDS_RESET == 0
    {
        if case.idx.is_some() {
            break;
        }
        reactor::yield_now().await;
    }
}

#[test]
fn random_descriptor_tables_do_no_harm() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB as u64);
        let memory = Ram::new();
        let mut runner = TestRunner::new(Config { cases: 1, ..Config::default() });
        for round in 0..400 {
            let platform = EventPlatform::new(round % 2 == 0);
            let machine = TestMachine::with_ram(Arc::clone(&memory.ram), platform);
            let area = machine.alloc(64 * 1024);
            let case = case(area).new_tree(&mut runner).unwrap().current();
            let disk = open_file(FileOptions::new(file.path())).await.unwrap();
            let mut rig = Rig::in_machine(&machine, &reactors, disk, BlkOptions::default());
            let patience = Duration::from_secs(10);
            let ended = reactor::timeout(patience, offer(&mut rig, area, &case)).await;
            assert!(ended.is_ok(), "the device hangs on {case:#?}");
            rig.driver.reset().await;
            assert!(memory.forbidden().iter().all(|byte| *byte == CANARY), "{case:#?}");
            rig.start(USUAL, 1, 16);
            assert_eq!(rig.read_sectors(0, 512).await.0, OK, "{case:#?}");
            rig.close().await;
        }
        drop(memory.ram);
    });
}
