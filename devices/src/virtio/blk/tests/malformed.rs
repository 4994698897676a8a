//! Drivers that break the rules: the device says so, and works again after a reset.

use super::*;
use crate::virtio::status;
use crate::virtio::testing::{INDIRECT, NEXT, RawDescriptor, WRITE};

/// Puts one malformed chain on the queue, sees the device ask for a reset, resets it, and reads a
/// sector to see that it works.
async fn breaks(name: &str, rig: &mut Rig, chain: impl FnOnce(&mut Rig)) {
    rig.start(USUAL, 1, 16);
    chain(rig);
    rig.queues[0].ring();
    rig.driver.config_vector().wait().await;
    assert_ne!(rig.driver.status() & status::NEEDS_RESET, 0, "{name}");
    assert_eq!(rig.driver.read_isr() & 2, 2, "{name}");
    // Broken is broken: nothing is taken any more.
    let request = rig.request(vb::VIRTIO_BLK_T_IN, 0, 512);
    let before = rig.queues[0].used_idx();
    rig.queues[0].offer(9);
    rig.queues[0].ring();
    reactor::yield_now().await;
    assert_eq!(rig.queues[0].used_idx(), before, "{name}");
    assert_eq!(rig.status(request), UNTOUCHED);
    rig.driver.reset().await;
    assert_eq!(rig.driver.status(), 0, "{name}");
    rig.start(USUAL, 1, 16);
    assert_eq!(rig.read_sectors(1, 512).await.0, OK, "{name}");
    rig.driver.reset().await;
}

/// Of a descriptor: address, length, flags, next.
type Fields = (u64, u32, u16, u16);

fn describe(rig: &mut Rig, descriptors: &[Fields]) {
    for (n, (address, len, flags, next)) in descriptors.iter().copied().enumerate() {
        let descriptor = RawDescriptor { address, len, flags, next };
        rig.queues[0].write_descriptor(n as u16, descriptor);
    }
    rig.queues[0].offer(0);
}

#[test]
fn broken_chains_need_a_reset() {
    on_reactors(1, |reactors| async move {
        let file = image(1 << 20);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        let r = rig.request(vb::VIRTIO_BLK_T_IN, 0, 8192);
        let (head, status, data) = (r.header(), r.status(), r.data());
        let beyond = 64 << 20;
        let chains: [(&str, &[Fields]); 17] = [
            ("a chain that is a circle", &[(head, 16, NEXT, 1), (data, 512, NEXT | WRITE, 1)]),
            ("a chain that leads back", &[(head, 16, NEXT, 1), (data, 8, NEXT, 0)]),
            ("a next index past the table", &[(head, 16, NEXT, 16)]),
            ("a zero-length header", &[(head, 0, NEXT, 1), (status, 1, WRITE, 0)]),
            (
                "zero-length data",
                &[(head, 16, NEXT, 1), (data, 0, NEXT | WRITE, 2), (status, 1, WRITE, 0)],
            ),
            ("a header outside of RAM", &[(beyond, 16, NEXT, 1), (status, 1, WRITE, 0)]),
            ("a header across the end of RAM", &[(beyond - 8, 16, NEXT, 1), (status, 1, WRITE, 0)]),
            (
                "data outside of RAM",
                &[(head, 16, NEXT, 1), (beyond, 512, NEXT | WRITE, 2), (status, 1, WRITE, 0)],
            ),
            (
                "data that wraps around",
                &[
                    (head, 16, NEXT, 1),
                    (u64::MAX - 255, 512, NEXT | WRITE, 2),
                    (status, 1, WRITE, 0),
                ],
            ),
            ("a status outside of RAM", &[(head, 16, NEXT, 1), (u64::MAX, 1, WRITE, 0)]),
            (
                "the wrong direction: readable behind writable",
                &[(head, 16, NEXT, 1), (status, 1, NEXT | WRITE, 2), (data, 512, 0, 0)],
            ),
            ("no status", &[(head, 16, 0, 0)]),
            ("no header", &[(status, 1, WRITE, 0)]),
            ("half a header", &[(head, 15, NEXT, 1), (status, 1, WRITE, 0)]),
            ("an indirect table of odd length", &[(data, 24, INDIRECT, 0)]),
            ("an empty indirect table", &[(data, 0, INDIRECT, 0)]),
            ("an indirect table outside of RAM", &[(beyond, 32, INDIRECT, 0)]),
        ];
        for (name, chain) in chains {
            breaks(name, &mut rig, |rig| describe(rig, chain)).await;
        }
        rig.close().await;
    });
}

#[test]
fn broken_rings_and_tables_need_a_reset() {
    on_reactors(1, |reactors| async move {
        let file = image(1 << 20);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        breaks("a head past the table", &mut rig, |rig| rig.queues[0].offer(16)).await;
        breaks("a head of 65535", &mut rig, |rig| rig.queues[0].offer(u16::MAX)).await;
        breaks("an index that jumps", &mut rig, |rig| rig.queues[0].set_available_idx(17)).await;
        breaks("an index that goes back", &mut rig, |rig| {
            rig.queues[0].set_available_idx(u16::MAX);
        })
        .await;
        breaks("indirect in indirect", &mut rig, |rig| {
            let table = rig.machine.alloc(4096);
            let inner = RawDescriptor { address: table, len: 32, flags: INDIRECT, next: 0 };
            rig.write(table, &inner.bytes());
            describe(rig, &[(table, 16, INDIRECT, 0)]);
        })
        .await;
        breaks("an indirect table that is a circle", &mut rig, |rig| {
            let table = rig.machine.alloc(4096);
            let circle = RawDescriptor { address: table, len: 16, flags: NEXT, next: 0 };
            rig.write(table, &circle.bytes());
            describe(rig, &[(table, 16, INDIRECT, 0)]);
        })
        .await;
        breaks("an indirect chain longer than the queue", &mut rig, |rig| {
            let (table, request) = (rig.machine.alloc(16 * 300), rig.machine.alloc(4096));
            for n in 0..300u16 {
                let entry = RawDescriptor { address: request, len: 16, flags: NEXT, next: n + 1 };
                rig.write(table + 16 * u64::from(n), &entry.bytes());
            }
            describe(rig, &[(table, 16 * 300, INDIRECT, 0)]);
        })
        .await;
        rig.close().await;
    });
}

#[test]
fn one_request_offered_over_and_over_needs_a_reset() {
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        rig.start(USUAL, 1, 16);
        let request = rig.request(vb::VIRTIO_BLK_T_IN, 0, 512);
        let head = rig.queues[0].add(&request.read_buffers(512));
        for round in 0..2 {
            for _ in 0..if round == 0 { 15 } else { 1 } {
                rig.queues[0].offer(head);
            }
            rig.queues[0].ring();
            while held.in_flight() < 16 {
                reactor::yield_now().await;
            }
        }
        rig.driver.config_vector().wait().await;
        assert_ne!(rig.driver.status() & status::NEEDS_RESET, 0);
        assert_eq!(held.in_flight(), 16, "no more than the queue has room for");
        rig.driver.set_status(0);
        held.end_all(Ok(()));
        rig.driver.reset().await;
        rig.close().await;
    });
}

#[test]
fn queues_in_impossible_places_need_a_reset() {
    on_reactors(1, |reactors| async move {
        let file = image(1 << 20);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        let good = (0x1000u64, 0x2000u64, 0x3000u64);
        for (name, (descriptors, available, used)) in [
            ("a table outside of RAM", (64u64 << 20, good.1, good.2)),
            ("a table across its end", ((64 << 20) - 16, good.1, good.2)),
            ("a table that wraps", (!15, good.1, good.2)),
            ("an odd table", (0x1008, good.1, good.2)),
            ("an odd available ring", (good.0, 0x2001, good.2)),
            ("an available ring nowhere", (good.0, 0, good.2)),
            ("an odd used ring", (good.0, good.1, 0x3002)),
            ("a used ring in a BAR", (good.0, good.1, 0xe008_0000)),
            ("nothing set at all", (0, 0, 0)),
        ] {
            let driver = &rig.driver;
            assert!(driver.negotiate(USUAL & driver.offered()));
            driver.use_vectors(1);
            driver.write(0x16, &0u16.to_le_bytes());
            driver.write(0x20, &descriptors.to_le_bytes());
            // Halves in either order do as well.
            driver.write(0x2c, &((available >> 32) as u32).to_le_bytes());
            driver.write(0x28, &(available as u32).to_le_bytes());
            driver.write(0x30, &used.to_le_bytes());
            driver.write(0x1c, &1u16.to_le_bytes());
            assert_ne!(driver.status() & status::NEEDS_RESET, 0, "{name}");
            assert_eq!(driver.read16(0x1c), 0, "{name}: not enabled");
            // Before DRIVER_OK nobody is interrupted; then the driver is told.
            assert!(!driver.config_vector().raised());
            driver.driver_ok();
            assert_eq!(driver.config_vector().wait().await, 1, "{name}");
            driver.reset().await;
        }
        rig.start(USUAL, 1, 16);
        assert_eq!(rig.read_sectors(0, 512).await.0, OK);
        rig.close().await;
    });
}
