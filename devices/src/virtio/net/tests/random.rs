//! Random descriptor tables: no panic, no hang, no access outside of guest memory.

use super::*;
use crate::virtio::status;
use crate::virtio::testing::{EventPlatform, GuardedRam, RawDescriptor, address, descriptor};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::time::Duration;

/// What a driver offers on one queue.
#[derive(Clone, Debug)]
struct Case {
    table: Vec<RawDescriptor>,
    heads: Vec<u16>,
}

fn case(area: u64) -> impl Strategy<Value = Case> {
    // Chains as drivers make them, of buffers that are mostly sound, or anything.
    let place = prop_oneof![40 => (0u64..64).prop_map(move |n| area + 64 * n), 1 => address(area)];
    let sound = (prop::collection::vec((place, 1u32..4000), 8), any::<bool>()).prop_map(
        |(buffers, write)| {
            let flags = if write { 2 } else { 0 };
            let table = buffers.iter().enumerate().map(|(n, (address, len))| RawDescriptor {
                address: *address,
                len: *len,
                flags: flags | u16::from(n % 2 == 0),
                next: n as u16 + 1,
            });
            Case { table: table.collect(), heads: vec![0, 2, 4, 6] }
        },
    );
    let wild = (
        prop::collection::vec(descriptor(area), 16),
        prop::collection::vec(prop_oneof![10 => 0u16..16, 1 => any::<u16>()], 1..16),
    )
        .prop_map(|(table, heads)| Case { table, heads });
    prop_oneof![2 => sound, 1 => wild]
}

async fn offer(left: &mut Rig, right: &mut Rig, queue: usize, case: &Case) {
    for (n, descriptor) in case.table.iter().enumerate() {
        left.port.queues[queue].write_descriptor(n as u16, *descriptor);
    }
    for head in &case.heads {
        left.port.queues[queue].offer(*head);
    }
    left.port.queues[queue].ring();
    // So that there is something to write into the buffers.
    for n in 0..4 {
        right.send(&frame(900, n)).await;
    }
    let all = case.heads.len() as u64;
    let met = |rig: &Rig| match queue {
        // Buffers for receiving may be too few for a packet.
        RX => rig.net.metrics()[TX].requests > 0,
        _ => rig.net.metrics()[queue].requests >= all,
    };
    while !met(left) && left.port.driver.status() & status::NEEDS_RESET == 0 {
        reactor::yield_now().await;
        if queue == RX && left.port.driver.status() & status::NEEDS_RESET == 0 {
            left.send(&frame(60, 0)).await;
        }
    }
}

#[test]
fn random_descriptor_tables_do_no_harm() {
    on_reactors(1, |reactors| async move {
        let memory = GuardedRam::new();
        let mut runner = TestRunner::default();
        let (mut answered, mut broken) = (0, 0);
        for round in 0..300 {
            let machine = TestMachine::with_ram(Arc::clone(&memory.ram), EventPlatform::new(true));
            let area = machine.alloc(64 * 1024);
            let case = case(area).new_tree(&mut runner).unwrap().current();
            let (a, b) = sockets(SockType::Stream);
            let options = NetOptions::default();
            let mut left = Rig::in_machine(&machine, &reactors, Some(netdev(a)), &options);
            let mut right = Rig::new(&reactors, Some(netdev(b)), &options);
            left.start(USUAL);
            right.start(USUAL);
            let queue = round % 3;
            let patience = Duration::from_secs(10);
            let offered = offer(&mut left, &mut right, queue, &case);
            let ended = reactor::timeout(patience, offered).await;
            assert!(ended.is_ok(), "queue {queue} hangs on {case:#?}");
            answered += left.net.metrics()[queue].requests;
            broken += u64::from(left.port.driver.status() & status::NEEDS_RESET != 0);
            left.port.driver.reset().await;
            assert!(memory.untouched(), "{case:#?}");
            left.close().await;
            right.close().await;
        }
        // The generator is worth its time only while it reaches both.
        assert!(answered > 50 && broken > 20, "{answered} {broken}");
    });
}
