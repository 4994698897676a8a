//! The configuration space, and requests of the shapes it allows.

use super::*;
use crate::virtio::status;

#[test]
fn the_configuration_says_what_there_is() {
    on_reactors(1, |reactors| async move {
        let usual = ScsiOptions::default();
        let options = ScsiOptions { num_queues: 3, queue_size: 128, cmd_per_lun: 7, ..usual };
        let rig = Rig::new(&reactors, options);
        let word = |at| u32::from_le_bytes(rig.driver.device_config(at));
        assert_eq!((word(0), word(4), word(8), word(12)), (3, 126, 0xffff, 7));
        assert_eq!((word(16), word(20), word(24)), (16, 96, 32));
        assert_eq!((word(28), word(32)), (255 << 16, 16383));
        assert_eq!(word(36), 0);
        assert_eq!(rig.driver.offered() & 0xff, 0b111, "INOUT, HOTPLUG, CHANGE and no T10_PI");
        rig.virtio.shutdown().await;
    });
}

#[test]
fn the_driver_may_choose_the_sizes_of_cdb_and_sense() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        rig.driver.device_config_write(20, &10u32.to_le_bytes());
        rig.driver.device_config_write(24, &6u32.to_le_bytes());
        // Impossible ones are not taken.
        rig.driver.device_config_write(20, &100_000u32.to_le_bytes());
        rig.driver.device_config_write(24, &256u32.to_le_bytes());
        rig.driver.device_config_write(0, &9u32.to_le_bytes());
        assert_eq!(u32::from_le_bytes(rig.driver.device_config(20)), 10);
        assert_eq!(u32::from_le_bytes(rig.driver.device_config(24)), 6);
        assert_eq!(u32::from_le_bytes(rig.driver.device_config(0)), 1);
        let at = rig.machine.alloc(8192);
        rig.write(at, &[1, 0, 0, 0, 0, 0, 0, 0]);
        rig.write(at + 19, &[0xff, 0, 0, 0, 0, 0]);
        // Header and answer in odd pieces.
        let buffers = [
            Buffer::readable(at, 5),
            Buffer::readable(at + 5, 20),
            Buffer::writable(at + 4096, 3),
            Buffer::writable(at + 4099, 19),
        ];
        rig.queues[REQUESTS].add(&buffers);
        rig.queues[REQUESTS].kick();
        assert_eq!(rig.queues[REQUESTS].wait_used(1).await[0].len, 22);
        let answer = rig.read(at + 4096, 23);
        assert_eq!(answer[..4], 10u32.to_le_bytes());
        assert_eq!((answer[10], answer[11], answer[14]), (2, 0, 5), "ILLEGAL REQUEST");
        rig.driver.reset().await;
        assert_eq!(u32::from_le_bytes(rig.driver.device_config(20)), 96, "as at power-on");
        rig.virtio.shutdown().await;
    });
}

#[test]
fn requests_that_cannot_be_answered_need_a_reset() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        let at = rig.machine.alloc(8192);
        let (readable, writable) = (Buffer::readable, Buffer::writable);
        let broken: [(usize, Vec<Buffer>); 7] = [
            (REQUESTS, vec![readable(at, 50), writable(at + 4096, 108)]),
            (REQUESTS, vec![readable(at, 51), writable(at + 4096, 107)]),
            (REQUESTS, vec![readable(at, 51)]),
            (REQUESTS, vec![writable(at, 4096)]),
            (0, vec![readable(at, 23), writable(at + 4096, 1)]),
            (0, vec![readable(at, 24)]),
            (0, vec![readable(at, 3), writable(at + 4096, 1)]),
        ];
        for (queue, buffers) in broken {
            rig.driver.reset().await;
            rig.start(USUAL, 3, 64);
            rig.queues[queue].add(&buffers);
            rig.queues[queue].kick();
            until(|| rig.driver.status() & status::NEEDS_RESET != 0).await;
        }
        // An event's buffer is looked at when there is an event.
        rig.driver.reset().await;
        rig.start(USUAL, 3, 64);
        let before = rig.scsi.metrics()[1].doorbells;
        rig.queues[1].add(&[Buffer::writable(at, 15)]);
        rig.queues[1].ring();
        until(|| rig.scsi.metrics()[1].doorbells > before).await;
        rig.scsi.size_changed(A);
        until(|| rig.driver.status() & status::NEEDS_RESET != 0).await;
        rig.driver.reset().await;
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        rig.read10(A, 0, 1).await.good();
        rig.virtio.shutdown().await;
    });
}

#[test]
fn gigabytes_over_one_buffer_are_neither_gathered_nor_copied() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        let at = rig.machine.alloc(8192);
        let table = rig.machine.alloc(4096);
        for cdb in [cdb10(0x28, 0, 0, 1), cdb10(0x2a, 0, 0, 1)] {
            rig.write(at, &[1, 0, 0, 0, 0, 0, 0, 0]);
            rig.write(at + 19, &cdb);
            let write = cdb[0] == 0x28;
            let mut buffers = vec![Buffer::readable(at, 51)];
            // 32 MiB of RAM, 64 times.
            let data = Buffer { address: 4096, len: 32 << 20, write };
            if !write {
                buffers.extend([data; 63]);
            }
            buffers.push(Buffer::writable(at + 4096, 108));
            if write {
                buffers.extend([data; 63]);
            }
            rig.queues[REQUESTS].add_indirect(table, &buffers);
            rig.queues[REQUESTS].kick();
            let used = rig.queues[REQUESTS].wait_used(1).await;
            assert_eq!(used[0].len, if write { 108 + 512 } else { 108 });
            let answer = rig.read(at + 4096, 12);
            assert_eq!((answer[10], answer[11]), (0, 0));
            let residual = 63u32 * (32 << 20) - 512;
            assert_eq!(answer[4..8], residual.to_le_bytes());
        }
        rig.virtio.shutdown().await;
    });
}

#[test]
fn data_both_ways_needs_the_feature() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        for (features, response) in [(USUAL, 0), (USUAL & !config::INOUT, 9)] {
            rig.driver.reset().await;
            rig.start(features, 3, 64);
            rig.power_on(A).await;
            let at = rig.machine.alloc(8192);
            rig.write(at, &[1, 0, 0, 0, 0, 0, 0, 0]);
            rig.write(at + 19, &cdb10(0x28, 0, 0, 1));
            let buffers = [Buffer::readable(at, 51 + 512), Buffer::writable(at + 4096, 108 + 512)];
            rig.queues[REQUESTS].add(&buffers);
            rig.queues[REQUESTS].kick();
            rig.queues[REQUESTS].wait_used(1).await;
            assert_eq!(rig.read(at + 4096 + 11, 1), [response]);
        }
        rig.virtio.shutdown().await;
    });
}
