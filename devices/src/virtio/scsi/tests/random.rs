//! Random commands and chains: no panic, no hang, no access outside of guest memory.

use super::*;
use crate::virtio::status;
use crate::virtio::testing::{
    EventPlatform, GuardedRam, NEXT, RawDescriptor, WRITE, address, descriptor,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::time::Duration;

/// A CDB that is likely to be one.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let codes: Vec<u8> = vec![
        0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2f, 0x35,
        0x41, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x55, 0x5a, 0x88, 0x8a, 0x91, 0x93, 0x9e, 0xa0, 0xa3,
        0xa8, 0xaa, 0xbd,
    ];
    let code = prop_oneof![20 => prop::sample::select(codes), 1 => any::<u8>()];
    let byte = prop_oneof![6 => Just(0u8), 2 => 0u8..16, 1 => any::<u8>()];
    (code, prop::collection::vec(byte, 15)).prop_map(|(code, rest)| {
        let mut cdb = vec![code];
        cdb.extend(rest);
        cdb
    })
}

/// A request as drivers make it: CDB, data, which way, which unit.
#[derive(Clone, Debug)]
struct Request {
    cdb: Vec<u8>,
    data: Vec<(u64, u32)>,
    write: bool,
    lun: [u8; 8],
}

fn request(area: u64) -> impl Strategy<Value = Request> {
    let place = prop_oneof![
        20 => (0..16u64).prop_map(move |n| area + 8192 + 512 * n),
        1 => address(area),
    ];
    let len = prop_oneof![20 => (1..17u32).prop_map(|n| 512 * n), 4 => 1u32..64, 1 => any::<u32>()];
    let lun = prop_oneof![
        10 => (0u8..2).prop_map(|target| [1, target, 0, 0, 0, 0, 0, 0]),
        1 => any::<[u8; 8]>(),
    ];
    (cdb(), prop::collection::vec((place, len), 0..3), any::<bool>(), lun)
        .prop_map(|(cdb, data, write, lun)| Request { cdb, data, write, lun })
}

/// Requests for one queue, and descriptors that replace those of some of them.
#[derive(Clone, Debug)]
struct Case {
    queue: usize,
    requests: Vec<Request>,
    wild: Vec<(usize, RawDescriptor)>,
}

fn case(area: u64) -> impl Strategy<Value = Case> {
    let queue = prop_oneof![8 => Just(REQUESTS), 1 => Just(0usize)];
    let wild = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::collection::vec((0usize..16, descriptor(area)), 1..4),
    ];
    (queue, prop::collection::vec(request(area), 1..4), wild)
        .prop_map(|(queue, requests, wild)| Case { queue, requests, wild })
}

/// Offers the case and waits until all is answered, or the device asks for a reset.
async fn offer(rig: &mut Rig, area: u64, case: &Case) {
    rig.start(USUAL, 3, 16);
    for address in [A, Address { target: 1, lun: 0 }] {
        rig.power_on(address).await;
    }
    let before = rig.scsi.metrics()[case.queue].requests;
    let (mut descriptors, mut heads) = (Vec::new(), Vec::new());
    for (n, request) in case.requests.iter().enumerate() {
        let at = area + 1024 * n as u64;
        let mut header = request.lun.to_vec();
        header.extend([n as u8; 11]);
        header.extend(&request.cdb);
        header.resize(51, 0);
        rig.write(at, &header);
        let mut buffers = vec![(at, 51, 0), (at + 512, 108, WRITE)];
        let place = if request.write { 2 } else { 1 };
        for (address, len) in &request.data {
            buffers.insert(place, (*address, *len, if request.write { WRITE } else { 0 }));
        }
        heads.push(descriptors.len() as u16);
        for (k, (address, len, flags)) in buffers.iter().copied().enumerate() {
            let last = k + 1 == buffers.len();
            let next = descriptors.len() as u16 + 1;
            let flags = flags | if last { 0 } else { NEXT };
            descriptors.push(RawDescriptor { address, len, flags, next });
        }
    }
    for (at, other) in &case.wild {
        let at = at % descriptors.len();
        descriptors[at] = *other;
    }
    for (n, descriptor) in descriptors.iter().enumerate() {
        rig.queues[case.queue].write_descriptor(n as u16, *descriptor);
    }
    for head in &heads {
        rig.queues[case.queue].offer(*head);
    }
    rig.queues[case.queue].ring();
    // A random buffer may well lie over the used ring, so the device is asked, not the ring.
    let all = before + heads.len() as u64;
    let queue = case.queue;
    until(|| {
        rig.scsi.metrics()[queue].requests >= all
            || rig.driver.status() & status::NEEDS_RESET != 0
            || (queue == 0 && rig.queues[0].used_idx() as usize >= heads.len())
    })
    .await;
}

#[test]
fn random_commands_and_chains_do_no_harm() {
    on_reactors(1, |reactors| async move {
        let memory = GuardedRam::new();
        let mut runner = TestRunner::default();
        let (mut sound, mut failed, mut broken) = (0, 0, 0);
        for round in 0..1000 {
            let machine =
                TestMachine::with_ram(Arc::clone(&memory.ram), EventPlatform::new(round % 2 == 0));
            let area = machine.alloc(64 * 1024);
            let case = case(area).new_tree(&mut runner).unwrap().current();
            let disk = scratch(MIB).await.unwrap();
            let cd = scratch(MIB).await.unwrap();
            let mut rig = Rig::in_machine(&machine, &reactors, ScsiOptions::default());
            rig.scsi.plug(A, unit(Kind::Disk, Some(disk))).unwrap();
            rig.scsi.plug(Address { target: 1, lun: 0 }, unit(Kind::Cd, Some(cd))).unwrap();
            let patience = Duration::from_secs(10);
            let ended = reactor::timeout(patience, offer(&mut rig, area, &case)).await;
            assert!(ended.is_ok(), "the device hangs on {case:#x?}");
            broken += u64::from(rig.driver.status() & status::NEEDS_RESET != 0);
            rig.driver.reset().await;
            let counters = rig.scsi.metrics()[REQUESTS];
            sound += counters.requests - counters.failed;
            failed += counters.failed - 2;
            assert!(memory.untouched(), "{case:#x?}");
            rig.start(USUAL, 3, 16);
            rig.power_on(A).await;
            rig.read10(A, 0, 1).await.good();
            rig.virtio.shutdown().await;
        }
        // The generator is worth its time only while it reaches all of these.
        assert!(sound > 100 && failed > 100 && broken > 20, "{sound} {failed} {broken}");
        drop(memory.ram);
    });
}
