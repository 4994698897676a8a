//! Units that come and go, and what guests hear of it.

use super::*;
use crate::virtio::scsi::request::encoded;

const RESET: u32 = 1;
const CHANGE: u32 = 3;
const MISSED: u32 = 1 << 31;

#[test]
fn units_are_found_at_their_places_only() {
    on_reactors(1, |reactors| async move {
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        let mut disks = Vec::new();
        for (n, address) in [A, B, Address { target: 3, lun: 1 }].into_iter().enumerate() {
            let disk = scratch((n as u64 + 1) * MIB).await.unwrap();
            rig.scsi.plug(address, unit(Kind::Disk, Some(Arc::clone(&disk)))).unwrap();
            disks.push(disk);
        }
        assert!(rig.scsi.plug(B, unit(Kind::Cd, None)).is_err(), "taken");
        assert!(rig.scsi.plug(Address { target: 0, lun: 16384 }, unit(Kind::Cd, None)).is_err());
        rig.start(USUAL, 3, 64);
        let report = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        let luns = rig.run(B, &report, Data::In(256)).await.good();
        let expected =
            [&[0, 0, 0, 24, 0, 0, 0, 0, 0, 0][..], &[0; 6], &[0, 1], &[0; 6], &[0x41, 44], &[0; 6]];
        assert_eq!(luns, expected.concat());
        let capacity = cdb10(0x25, 0, 0, 0);
        for (address, size) in [(A, 1), (B, 2), (Address { target: 3, lun: 1 }, 3)] {
            rig.power_on(address).await;
            let data = rig.run(address, &capacity, Data::In(8)).await.good();
            assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()), size * 2048 - 1);
        }
        // No unit, but a target: it answers for itself.
        let absent = Address { target: 3, lun: 2 };
        let data = rig.run(absent, &[0x12, 0, 0, 0, 36, 0], Data::In(36)).await.good();
        assert_eq!((data[0], data.len()), (0x7f, 36));
        rig.run(absent, &[0x00], Data::None).await.fails_with(Sense::new(5, 0x25, 0));
        let sense = rig.run(absent, &[0x03, 0, 0, 0, 18, 0], Data::In(18)).await.good();
        assert_eq!((sense[2], sense[12]), (5, 0x25));
        assert_eq!(rig.run(absent, &report, Data::In(256)).await.good().len(), 32);
        // No target, and places that are none.
        rig.run(Address { target: 9, lun: 0 }, &[0x00], Data::None).await.responds(3);
        for lun in [
            [0, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0x80, 0, 0, 0, 0, 0],
            [1, 0, 0x01, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 1],
            [0xc1, 1, 0, 0, 0, 0, 0, 0],
        ] {
            rig.run_at(lun, &[0x00], Data::None).await.responds(3);
        }
        // Flat addressing works for small numbers as well.
        rig.run_at([1, 3, 0x40, 1, 0, 0, 0, 0], &[0x00], Data::None).await.good();
        rig.virtio.shutdown().await;
    });
}

#[test]
fn the_guest_hears_of_units_and_their_targets_tell_it_too() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        let beside = Address { target: 0, lun: 1 };
        rig.scsi.plug(beside, unit(Kind::Cd, None)).unwrap();
        // No buffer was there: an event was missed. The command comes to the same core later.
        until(|| rig.scsi.metrics()[1].doorbells > 0).await;
        rig.read10(A, 0, 1).await.fails_with(Sense::new(6, 0x3f, 0x0e));
        assert_eq!(rig.event().await, (MISSED, [0; 8], 0));
        rig.read10(A, 0, 1).await.good();

        rig.offer_events(1);
        rig.scsi.size_changed(A);
        assert_eq!(rig.queues[1].wait_used(1).await.len(), 1);
        rig.read10(A, 0, 1).await.fails_with(Sense::new(6, 0x2a, 9));

        // With buffers at hand nothing is missed.
        rig.offer_events(2);
        let gone = rig.scsi.unplug(beside).unwrap();
        gone.await;
        assert!(rig.scsi.unplug(beside).is_none());
        rig.scsi.plug(B, unit(Kind::Cd, None)).unwrap();
        let used = rig.queues[1].wait_used(2).await;
        assert_eq!(used.len(), 2);
        rig.read10(A, 0, 1).await.fails_with(Sense::new(6, 0x3f, 0x0e));
        rig.virtio.shutdown().await;
    });
}

#[test]
fn a_driver_that_is_ready_hears_of_what_comes_before_its_queues_are_served() {
    on_reactors(1, |reactors| async move {
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        let (go, held) = std::sync::mpsc::channel::<()>();
        reactors.core(0).schedule_bh(move || held.recv().unwrap());
        rig.start(USUAL, 3, 64);
        rig.scsi.plug(B, unit(Kind::Cd, None)).unwrap();
        go.send(()).unwrap();
        assert_eq!(rig.event().await, (RESET, encoded(B), 1));
        rig.virtio.shutdown().await;
        // A driver that comes later finds it by itself.
        rig.scsi.size_changed(B);
        rig.start(USUAL, 3, 64);
        let at = rig.machine.alloc(4096);
        rig.queues[1].add(&[Buffer::writable(at, 16)]);
        rig.queues[1].kick();
        rig.scsi.unplug(B).unwrap().await;
        rig.queues[1].wait_used(1).await;
        assert_eq!(rig.read(at, 4), RESET.to_le_bytes());
        assert_eq!(rig.read(at + 12, 4), 2u32.to_le_bytes());
        rig.virtio.shutdown().await;
    });
}

#[test]
fn events_are_in_the_format_of_the_specification() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        let at: Vec<u64> = (0..3).map(|_| rig.machine.alloc(4096)).collect();
        for at in &at {
            rig.queues[1].add(&[Buffer::writable(*at, 32)]);
        }
        rig.queues[1].kick();
        rig.scsi.plug(B, unit(Kind::Cd, None)).unwrap();
        rig.scsi.size_changed(A);
        rig.scsi.unplug(B).unwrap().await;
        assert_eq!(rig.queues[1].wait_used(3).await.len(), 3);
        let event = |at: u64| {
            let bytes = rig.read(at, 16);
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            (word(0), <[u8; 8]>::try_from(&bytes[4..12]).unwrap(), word(12))
        };
        assert_eq!(event(at[0]), (RESET, [1, 3, 0x41, 44, 0, 0, 0, 0], 1));
        assert_eq!(event(at[1]), (CHANGE, [1, 0, 0, 0, 0, 0, 0, 0], 0x092a));
        assert_eq!(event(at[2]), (RESET, [1, 3, 0x41, 44, 0, 0, 0, 0], 2));
        rig.virtio.shutdown().await;
    });
}

#[test]
fn events_that_the_driver_does_not_know_are_not_sent() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        rig.driver.reset().await;
        rig.start(features::COMMON, 3, 64);
        rig.offer_events(4);
        rig.scsi.plug(B, unit(Kind::Cd, None)).unwrap();
        rig.scsi.size_changed(A);
        rig.scsi.unplug(B).unwrap().await;
        rig.power_on(A).await;
        assert_eq!(rig.queues[1].used_idx(), 0);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn a_unit_removed_with_commands_in_flight_answers_all_of_them() {
    on_reactors(2, |reactors| async move {
        let (held, disk) = hold_disk(MIB);
        let options = ScsiOptions { num_queues: 2, ..ScsiOptions::default() };
        let mut rig = Rig::new(&reactors, options);
        let freed = Arc::downgrade(&disk);
        rig.scsi.plug(A, unit(Kind::Disk, Some(disk))).unwrap();
        rig.start(USUAL, 4, 64);
        rig.power_on(A).await;
        let read = cdb10(0x28, 0, 0, 1);
        let mut requests = Vec::new();
        for n in 0..8 {
            let queue = REQUESTS + n % 2;
            requests.push(rig.offer_on(queue, encoded(A), &read, Data::In(512)));
        }
        until(|| held.in_flight() == 8).await;
        let gone = rig.scsi.unplug(A).unwrap();
        // New commands find nobody, whatever is in flight.
        rig.run(A, &read, Data::In(512)).await.responds(3);
        until(|| held.aborted()).await;
        assert_eq!(held.open_queues(), 2, "commands are in flight on it");
        held.end_all(Err(libc::ECANCELED));
        for queue in [REQUESTS, REQUESTS + 1] {
            assert_eq!(rig.queues[queue].wait_used(4).await.len(), 4);
        }
        for at in requests {
            rig.answer(at, Data::None, 108).responds(3);
        }
        gone.await;
        assert_eq!(held.open_queues(), 0);
        // Media that are published go after a grace period too.
        rcu::drain_call_rcu_co().await;
        assert!(freed.upgrade().is_none(), "the disk can be closed");
        rig.virtio.shutdown().await;
    });
}

#[test]
fn units_come_and_go_while_others_work() {
    on_reactors(2, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        let data = pattern(4096, 77);
        rig.write10(A, 8, &data).await.good();
        for round in 0..200u32 {
            let address = Address { target: 1 + (round % 7) as u8, lun: (round % 3) as u16 };
            let disk = scratch(MIB).await.unwrap();
            rig.scsi.plug(address, unit(Kind::Disk, Some(Arc::clone(&disk)))).unwrap();
            rig.power_on(address).await;
            rig.write10(address, 0, &data).await.good();
            for _ in 0..4 {
                rig.offer(encoded(address), &cdb10(0x28, 0, 0, 8), Data::In(4096));
            }
            let gone = rig.scsi.unplug(address).unwrap();
            assert_eq!(rig.queues[REQUESTS].wait_used(4).await.len(), 4, "each is answered");
            gone.await;
            disk.close().await.unwrap();
            assert_eq!(rig.read10(A, 8, 8).await.good(), data);
        }
        rig.virtio.shutdown().await;
    });
}

#[test]
fn reset_in_flight_ends_everything_first() {
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(MIB);
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        rig.scsi.plug(A, unit(Kind::Disk, Some(disk))).unwrap();
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        let at = rig.offer(encoded(A), &cdb10(0x28, 0, 0, 1), Data::In(512));
        until(|| held.in_flight() == 1).await;
        let tmf = rig.offer_tmf(5, A, 0);
        rig.driver.set_status(0);
        until(|| held.aborted()).await;
        for _ in 0..100 {
            assert_ne!(rig.driver.status(), 0, "a request may still write to the guest");
            reactor::yield_now().await;
        }
        held.end_all(Ok(()));
        until(|| rig.driver.status() == 0).await;
        assert_eq!(held.open_queues(), 0);
        assert_eq!(rig.read(at.0 + At::ANSWER, 1), [0xee], "nothing is answered");
        assert_eq!(rig.read(tmf, 1), [0xee]);
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        rig.virtio.shutdown().await;
    });
}
