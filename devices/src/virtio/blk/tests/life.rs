//! Reset with requests in flight, and what the guest is told.

use super::*;
use crate::block::Request;
use crate::virtio::status;

#[test]
fn status_reads_0_only_when_nothing_is_in_flight() {
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        rig.start(USUAL, 1, 64);
        let request = rig.request(vb::VIRTIO_BLK_T_IN, 0, 4096);
        for _ in 0..4 {
            rig.queues[0].add(&request.read_buffers(4096));
        }
        rig.queues[0].kick();
        until(|| held.in_flight() == 4).await;

        rig.driver.set_status(0);
        until(|| held.aborted()).await;
        for _ in 0..100 {
            assert_ne!(rig.driver.status(), 0, "four requests may still write to the guest");
            reactor::yield_now().await;
        }
        // A driver in a hurry is not let in.
        rig.driver.set_status(status::ACKNOWLEDGE);
        rig.driver.accept(features::COMMON);
        assert_ne!(rig.driver.status(), status::ACKNOWLEDGE);
        assert!(rig.machine.platform.doorbells().is_empty());
        held.end_all(Ok(()));
        until(|| rig.driver.status() == 0).await;
        // What ended during the reset was not reported.
        assert_eq!(rig.queues[0].used_idx(), 0);
        assert_eq!(rig.status(request), UNTOUCHED);
        assert!(!rig.driver.queue_vector(0).raised());
        rig.driver.write(0x08, &0u32.to_le_bytes());
        assert_eq!(rig.driver.read32(0x0c), 0, "driver_feature is back to 0");

        rig.start(USUAL, 1, 64);
        rig.queues[0].add(&request.read_buffers(4096));
        rig.queues[0].kick();
        until(|| held.in_flight() == 1).await;
        held.end_all(Err(libc::EIO));
        assert_eq!(rig.queues[0].wait_used(1).await.len(), 1);
        assert_eq!(rig.status(request), IOERR);
        assert_eq!(rig.blk.metrics()[0].failed, 1);
        held.end_all(Ok(()));
        rig.close().await;
    });
}

#[test]
fn after_a_reset_the_device_leaves_guest_memory_alone() {
    on_reactors(2, |reactors| async move {
        let file = image(16 << 20);
        let options = BlkOptions { num_queues: 2, ..BlkOptions::default() };
        let mut rig = Rig::new(&reactors, file.path(), options).await;
        let area = rig.machine.alloc(8 << 20);
        for round in 0..20u64 {
            rig.start(USUAL, 2, 64);
            rig.write(area, &vec![0; 8 << 20]);
            for n in 0..8 {
                let request = rig.request(vb::VIRTIO_BLK_T_IN, n * 2048, 0);
                let mut buffers = request.bare_buffers();
                buffers.insert(1, Buffer::writable(area + (n << 20), 1 << 20));
                rig.queues[(n % 2) as usize].add(&buffers);
            }
            rig.queues[0].kick();
            rig.queues[1].kick();
            // Resets hit the requests at all stages.
            for _ in 0..round * 3 {
                reactor::yield_now().await;
            }
            rig.driver.reset().await;
            let mark = vec![0xa5; 8 << 20];
            rig.write(area, &mark);
            let used = rig.queues[0].used_idx();
            for core in reactors.cores() {
                core.spawn("settle", reactor::yield_now()).await.unwrap();
            }
            assert!(rig.read(area, 8 << 20) == mark, "memory changed after the reset");
            assert_eq!(rig.queues[0].used_idx(), used);
        }
        rig.close().await;
    });
}

#[test]
fn a_machine_reset_is_a_device_reset() {
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        rig.start(USUAL, 1, 64);
        let request = rig.request(vb::VIRTIO_BLK_T_IN, 0, 4096);
        rig.queues[0].add(&request.read_buffers(4096));
        rig.queues[0].kick();
        until(|| held.in_flight() == 1).await;
        rig.machine.root.reset();
        assert!(rig.machine.platform.doorbells().is_empty());
        held.end_all(Ok(()));
        rig.virtio.quiesced().await;
        assert_eq!(rig.status(request), UNTOUCHED);
        // The firmware, or the kernel, starts from nothing.
        rig.driver = Driver::new(&rig.machine, rig.driver.slot, 0);
        assert_eq!(rig.driver.status(), 0);
        rig.start(USUAL, 1, 64);
        rig.queues[0].add(&request.read_buffers(4096));
        rig.queues[0].kick();
        until(|| held.in_flight() == 1).await;
        held.end_all(Ok(()));
        assert_eq!(rig.queues[0].wait_used(1).await.len(), 1);
        assert_eq!(rig.status(request), OK);
        rig.close().await;
    });
}

#[test]
fn requests_become_what_the_disk_is_asked_for() {
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        // A driver without FLUSH cannot make writes stable: they have to be.
        for (features, stable) in [(USUAL, false), (features::COMMON, true)] {
            rig.start(features, 1, 64);
            let request = rig.request(vb::VIRTIO_BLK_T_OUT, 3, 4096);
            rig.queues[0].add(&request.write_buffers(512));
            rig.queues[0].kick();
            until(|| held.in_flight() == 1).await;
            let last = held.requests().pop();
            assert_eq!(last, Some(Request::Write { offset: 3 * 512, stable }));
            held.end_all(Ok(()));
            rig.queues[0].wait_used(1).await;
            rig.driver.reset().await;
        }
        rig.close().await;
    });
}

#[test]
fn a_new_size_is_shown_and_announced() {
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        rig.start(USUAL, 1, 64);
        assert_eq!(u64::from_le_bytes(rig.driver.device_config(0)), 2048);
        let generation = rig.driver.read8(0x15);
        held.set_size(2 << 20);
        rig.blk.size_changed();
        assert_eq!(rig.driver.config_vector().wait().await, 1);
        assert_eq!(u64::from_le_bytes(rig.driver.device_config(0)), 4096);
        assert_ne!(rig.driver.read8(0x15), generation);
        assert_eq!(rig.driver.read_isr(), 3, "both bits");
        assert_eq!(rig.driver.read_isr(), 0, "reading clears");
        // The same again is no news.
        rig.blk.size_changed();
        assert!(!rig.driver.config_vector().raised());
        // Requests go by the new size at once.
        let request = rig.request(vb::VIRTIO_BLK_T_IN, 4095, 512);
        rig.queues[0].add(&request.read_buffers(512));
        rig.queues[0].kick();
        until(|| held.in_flight() == 1).await;
        held.end_all(Ok(()));
        rig.queues[0].wait_used(1).await;
        assert_eq!(rig.status(request), OK);
        rig.close().await;
    });
}

#[test]
fn a_closed_disk_makes_the_device_ask_for_a_reset() {
    on_reactors(1, |reactors| async move {
        let file = image(1 << 20);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.disk.close().await.unwrap();
        rig.start(USUAL, 1, 64);
        assert_eq!(rig.driver.config_vector().wait().await, 1);
        assert_ne!(rig.driver.status() & status::NEEDS_RESET, 0);
        rig.driver.reset().await;
        assert_eq!(rig.driver.status(), 0);
        rig.close().await;
    });
}
