//! Random descriptor tables: no panic, no hang, no access outside of guest memory.

use super::*;
use crate::virtio::status;
use crate::virtio::testing::{
    EventPlatform, GuardedRam, INDIRECT, NEXT, RawDescriptor, WRITE, address, descriptor,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::time::Duration;

/// What a driver offers: descriptors in the table and in memory for indirect tables, and heads.
#[derive(Clone, Debug)]
struct Case {
    table: Vec<RawDescriptor>,
    indirect: Vec<RawDescriptor>,
    heads: Vec<u16>,
    idx: Option<u16>,
    kinds: Vec<u32>,
    sectors: Vec<u64>,
}

/// Requests as drivers make them: 16 headers and status bytes in `area`.
#[derive(Clone, Debug)]
struct Chain {
    data: Vec<(u64, u32)>,
    write: bool,
    indirect: bool,
}

fn chain(area: u64) -> impl Strategy<Value = Chain> {
    let place = prop_oneof![
        12 => (0..32u64).prop_map(move |n| area + 4096 + 512 * n),
        1 => address(area),
    ];
    let len = prop_oneof![12 => (1..17u32).prop_map(|n| 512 * n), 1 => any::<u32>()];
    (prop::collection::vec((place, len), 0..3), any::<bool>(), any::<bool>())
        .prop_map(|(data, write, indirect)| Chain { data, write, indirect })
}

/// Rarely, one field of one descriptor is another one.
fn mutation(area: u64) -> impl Strategy<Value = Option<(usize, RawDescriptor, u8)>> {
    prop_oneof![
        3 => Just(None),
        1 => (0..64usize, descriptor(area), 0..4u8).prop_map(Some),
    ]
}

fn build(area: u64, chains: &[Chain], mutation: Option<(usize, RawDescriptor, u8)>) -> Case {
    let (mut table, mut indirect, mut heads) = (Vec::new(), Vec::new(), Vec::new());
    for (n, chain) in chains.iter().enumerate() {
        let header = area + 64 * n as u64;
        let mut buffers = vec![(header, 16, 0)];
        let write = if chain.write { WRITE } else { 0 };
        buffers.extend(chain.data.iter().map(|(address, len)| (*address, *len, write)));
        buffers.push((header + 32, 1, WRITE));
        let into = if chain.indirect { &mut indirect } else { &mut table };
        let first = if chain.indirect { 0 } else { into.len() };
        let start = area + 2048 + 16 * into.len() as u64;
        for (k, (address, len, flags)) in buffers.iter().copied().enumerate() {
            let last = k + 1 == buffers.len();
            let (flags, next) = (flags | if last { 0 } else { NEXT }, (first + k + 1) as u16);
            into.push(RawDescriptor { address, len, flags, next });
        }
        heads.push(if chain.indirect { table.len() } else { first } as u16);
        if chain.indirect {
            let len = 16 * buffers.len() as u32;
            table.push(RawDescriptor { address: start, len, flags: INDIRECT, next: 0 });
        }
    }
    if let Some((at, other, field)) = mutation {
        let all = table.len() + indirect.len();
        if let Some(one) = table.iter_mut().chain(&mut indirect).nth(at % all.max(1)) {
            match field {
                0 => one.address = other.address,
                1 => one.len = other.len,
                2 => one.flags = other.flags,
                _ => one.next = other.next,
            }
        }
    }
    Case { table, indirect, heads, idx: None, kinds: Vec::new(), sectors: Vec::new() }
}

fn case(area: u64) -> impl Strategy<Value = Case> {
    let known = prop::sample::select(vec![0u32, 0, 0, 1, 1, 4, 8, 11, 13]);
    let kinds = prop_oneof![8 => known, 1 => any::<u32>()];
    let sectors = prop_oneof![12 => 0u64..2048, 1 => any::<u64>()];
    let sane = (prop::collection::vec(chain(area), 1..4), mutation(area))
        .prop_map(move |(chains, mutation)| build(area, &chains, mutation));
    let wild = (
        prop::collection::vec(descriptor(area), 16),
        prop::collection::vec(prop_oneof![10 => 0u16..16, 1 => any::<u16>()], 1..16),
        prop_oneof![10 => Just(None), 1 => any::<u16>().prop_map(Some)],
    )
        .prop_map(|(table, heads, idx)| Case {
            indirect: table.clone(),
            table,
            heads,
            idx,
            kinds: Vec::new(),
            sectors: Vec::new(),
        });
    let requests = (prop::collection::vec(kinds, 16), prop::collection::vec(sectors, 16));
    (prop_oneof![4 => sane, 1 => wild], requests).prop_map(|(case, (kinds, sectors))| Case {
        kinds,
        sectors,
        ..case
    })
}

/// Offers the case to the device and waits until it has answered all or asked for a reset.
async fn offer(rig: &mut Rig, area: u64, case: &Case) {
    rig.start(USUAL, 1, 16);
    for (n, (kind, sector)) in case.kinds.iter().zip(&case.sectors).enumerate() {
        rig.write(area + 64 * n as u64, &header(*kind, *sector));
    }
    for (n, descriptor) in case.table.iter().take(16).enumerate() {
        rig.queues[0].write_descriptor(n as u16, *descriptor);
    }
    for (n, descriptor) in case.indirect.iter().enumerate() {
        rig.write(area + 2048 + 16 * n as u64, &descriptor.bytes());
    }
    for head in &case.heads {
        rig.queues[0].offer(*head);
    }
    if let Some(idx) = case.idx {
        rig.queues[0].set_available_idx(idx);
        return rig.queues[0].ring();
    }
    rig.queues[0].ring();
    // A random buffer may well lie over the used ring, so the device is asked, not the ring.
    let all = case.heads.len() as u64;
    while rig.blk.metrics()[0].requests < all && rig.driver.status() & status::NEEDS_RESET == 0 {
        reactor::yield_now().await;
    }
}

#[test]
fn random_descriptor_tables_do_no_harm() {
    on_reactors(1, |reactors| async move {
        let file = image(1 << 20);
        let memory = GuardedRam::new();
        let mut runner = TestRunner::default();
        let (mut sound, mut refused, mut broken) = (0, 0, 0);
        for round in 0..1000 {
            let platform = EventPlatform::new(round % 2 == 0);
            let machine = TestMachine::with_ram(Arc::clone(&memory.ram), platform);
            let area = machine.alloc(64 * 1024);
            let case = case(area).new_tree(&mut runner).unwrap().current();
            let disk = open_file(FileOptions::new(file.path())).await.unwrap();
            let mut rig = Rig::in_machine(&machine, &reactors, disk, BlkOptions::default());
            let patience = Duration::from_secs(10);
            let ended = reactor::timeout(patience, offer(&mut rig, area, &case)).await;
            assert!(ended.is_ok(), "the device hangs on {case:#?}");
            broken += u64::from(rig.driver.status() & status::NEEDS_RESET != 0);
            rig.driver.reset().await;
            let counters = rig.blk.metrics()[0];
            sound += counters.requests - counters.failed;
            refused += counters.failed;
            assert!(memory.untouched(), "{case:#?}");
            rig.start(USUAL, 1, 16);
            assert_eq!(rig.read_sectors(0, 512).await.0, OK, "{case:#?}");
            rig.close().await;
        }
        // The generator is worth its time only while it reaches all of these.
        assert!(sound > 100 && refused > 20 && broken > 20, "{sound} {refused} {broken}");
        drop(memory.ram);
    });
}
