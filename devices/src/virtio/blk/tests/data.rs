//! Every request type, and where its bytes go.

use super::*;
use crate::block::{Cache, Discard};

const MIB: u64 = 1 << 20;

#[test]
fn reads_and_writes_move_the_right_bytes() {
    on_reactors(1, |reactors| async move {
        let file = image(4 * MIB);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.start(USUAL, 1, 64);
        for (sector, len) in [(0, 512), (7, 4096), (100, 65536), (8191, 512)] {
            let (status, data) = rig.read_sectors(sector, len).await;
            assert_eq!(status, OK);
            assert_eq!(data, file_bytes(file.path(), sector * 512, len as usize));
        }
        let data: Vec<u8> = (0..40960u32).map(|n| (n * 7 % 251) as u8).collect();
        assert_eq!(rig.write_sectors(33, &data).await, OK);
        assert_eq!(rig.flush().await, OK);
        assert_eq!(file_bytes(file.path(), 33 * 512, data.len()), data);
        let (_, back) = rig.read_sectors(33, data.len() as u32).await;
        assert_eq!(back, data);
        let counters = rig.blk.metrics()[0];
        assert_eq!((counters.requests, counters.failed), (7, 0));
        assert_eq!(counters.bytes_written, 40960);
        assert_eq!(counters.bytes_read, 512 + 4096 + 65536 + 512 + 40960);
        rig.close().await;
    });
}

#[test]
fn a_request_may_be_cut_into_descriptors_anywhere() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.start(USUAL, 1, 64);
        // The header in three pieces, data in odd ones, the status byte behind data.
        let request = rig.request(vb::VIRTIO_BLK_T_IN, 5, 2048);
        let at = request.data();
        let buffers = [
            Buffer::readable(request.header(), 3),
            Buffer::readable(request.header() + 3, 12),
            Buffer::readable(request.header() + 15, 1),
            Buffer::writable(at, 1),
            Buffer::writable(at + 1, 700),
            Buffer::writable(at + 701, 323 + 1),
        ];
        let head = rig.queues[0].add(&buffers);
        rig.queues[0].kick();
        assert_eq!(rig.queues[0].wait_used(1).await, [Used { head, len: 1025 }]);
        assert_eq!(rig.read(at, 1024), file_bytes(file.path(), 5 * 512, 1024));
        assert_eq!(rig.read(at + 1024, 1), [OK]);

        let request = rig.request(vb::VIRTIO_BLK_T_OUT, 9, 2048);
        let data: Vec<u8> = (0..1024u32).map(|n| (n % 13) as u8).collect();
        rig.write(request.data(), &data[100..]);
        let table = rig.machine.alloc(4096);
        let joined = rig.machine.alloc(4096);
        rig.write(joined, &header(vb::VIRTIO_BLK_T_OUT, 9));
        rig.write(joined + 16, &data[..100]);
        let buffers = [
            Buffer::readable(joined, 116),
            Buffer::readable(request.data(), 924),
            Buffer::writable(request.status(), 1),
        ];
        let head = rig.queues[0].add_indirect(table, &buffers);
        rig.queues[0].kick();
        assert_eq!(rig.queues[0].wait_used(1).await, [Used { head, len: 1 }]);
        assert_eq!(rig.status(request), OK);
        assert_eq!(file_bytes(file.path(), 9 * 512, 1024), data);
        rig.close().await;
    });
}

#[test]
fn what_does_not_fit_the_disk_is_an_error() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.start(USUAL, 1, 64);
        let sectors = MIB / 512;
        for (sector, len) in [
            (sectors, 512),
            (sectors - 1, 1024),
            (u64::MAX, 512),
            (u64::MAX / 512 + 1, 512),
            (u64::MAX / 512, 512),
            (0, 511),
            (0, 513),
            (3, 100),
        ] {
            assert_eq!(rig.read_sectors(sector, len).await.0, IOERR, "{len} at {sector}");
            assert_eq!(rig.write_sectors(sector, &vec![1; len as usize]).await, IOERR);
        }
        // Past the end with no data at all, and nothing at a place that exists.
        let request = rig.request(vb::VIRTIO_BLK_T_IN, sectors + 1, 0);
        let buffers = request.bare_buffers();
        assert_eq!(rig.run(request, &buffers).await, (IOERR, 1));
        let request = rig.request(vb::VIRTIO_BLK_T_OUT, 0, 0);
        assert_eq!(rig.run(request, &buffers_of(request)).await, (OK, 1));
        assert_eq!(file_bytes(file.path(), 0, 1024), file_bytes(image(MIB).path(), 0, 1024));
        rig.close().await;
    });
}

fn buffers_of(request: RequestAt) -> Vec<Buffer> {
    request.bare_buffers()
}

#[test]
fn get_id_returns_the_serial_and_other_types_are_unsupported() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let options = BlkOptions { serial: Some("disk-7".to_owned()), ..BlkOptions::default() };
        let mut rig = Rig::new(&reactors, file.path(), options).await;
        rig.start(USUAL, 1, 64);
        for len in [20, 64, 4] {
            let request = rig.request(vb::VIRTIO_BLK_T_GET_ID, 0, 64);
            rig.write(request.data(), &[0xaa; 64]);
            let buffers = request.read_buffers(len);
            assert_eq!(rig.run(request, &buffers).await, (OK, len + 1));
            let expected: Vec<u8> =
                b"disk-7".iter().copied().chain([0; 14]).chain([0xaa; 44]).collect();
            let n = len.min(20) as usize;
            assert_eq!(rig.read(request.data(), n), expected[..n]);
            assert_eq!(rig.read(request.data() + n as u64, 8), [0xaa; 8]);
        }
        let request = rig.request(vb::VIRTIO_BLK_T_GET_ID, 0, 0);
        let buffers = request.bare_buffers();
        assert_eq!(rig.run(request, &buffers).await.0, IOERR);
        for kind in [2, 3, 5, 9, 10, 12, 14, 15, 0x8000_0001, u32::MAX] {
            let request = rig.request(kind, 0, 512);
            let buffers = request.read_buffers(512);
            assert_eq!(rig.run(request, &buffers).await.0, UNSUPP, "type {kind}");
        }
        rig.close().await;
    });
}

#[test]
fn a_read_only_disk_refuses_everything_that_writes() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let options = FileOptions { read_only: true, ..FileOptions::new(file.path()) };
        let disk = open_file(options).await.unwrap();
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        let offered = rig.driver.offered();
        assert_ne!(offered & 1 << vb::VIRTIO_BLK_F_RO, 0);
        assert_eq!(offered & 1 << vb::VIRTIO_BLK_F_DISCARD, 0);
        rig.start(USUAL | 1 << vb::VIRTIO_BLK_F_RO, 1, 64);
        assert_eq!(rig.write_sectors(0, &[1; 512]).await, IOERR);
        for kind in [vb::VIRTIO_BLK_T_DISCARD, vb::VIRTIO_BLK_T_WRITE_ZEROES] {
            assert_eq!(range_request(&mut rig, kind, 0, 8, 0).await, IOERR);
        }
        assert_eq!(rig.flush().await, OK);
        let (status, data) = rig.read_sectors(1, 512).await;
        assert_eq!((status, data), (OK, file_bytes(file.path(), 512, 512)));
        rig.close().await;
    });
}

/// A discard or write-zeroes request.
async fn range_request(rig: &mut Rig, kind: u32, sector: u64, sectors: u32, flags: u32) -> u8 {
    let request = rig.request(kind, 0, 16);
    let mut range = [0; 16];
    range[..8].copy_from_slice(&sector.to_le_bytes());
    range[8..12].copy_from_slice(&sectors.to_le_bytes());
    range[12..].copy_from_slice(&flags.to_le_bytes());
    rig.write(request.data(), &range);
    let buffers = request.write_buffers(16);
    rig.run(request, &buffers).await.0
}

#[test]
fn zeroes_and_discards_reach_the_file() {
    use std::os::unix::fs::MetadataExt;
    on_reactors(1, |reactors| async move {
        let file = image(4 * MIB);
        let options = FileOptions { discard: Discard::Unmap, ..FileOptions::new(file.path()) };
        let disk = open_file(options).await.unwrap();
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        rig.start(USUAL, 1, 64);
        let blocks = || std::fs::metadata(file.path()).unwrap().blocks();
        let before = file_bytes(file.path(), 0, 4 * MIB as usize);

        let kind = vb::VIRTIO_BLK_T_WRITE_ZEROES;
        assert_eq!(range_request(&mut rig, kind, 3, 5, 0).await, OK);
        assert_eq!(range_request(&mut rig, kind, 2048, 2048, 1).await, OK);
        let after = file_bytes(file.path(), 0, 4 * MIB as usize);
        assert!(after[3 * 512..8 * 512].iter().all(|byte| *byte == 0));
        assert!(after[2048 * 512..4096 * 512].iter().all(|byte| *byte == 0));
        assert_eq!(after[..3 * 512], before[..3 * 512]);
        assert_eq!(after[8 * 512..2048 * 512], before[8 * 512..2048 * 512]);
        assert_eq!(after[4096 * 512..], before[4096 * 512..]);
        let full = blocks();

        assert_eq!(range_request(&mut rig, vb::VIRTIO_BLK_T_DISCARD, 4096, 4096, 0).await, OK);
        assert!(blocks() + 2048 < full, "a discarded range takes no space");
        assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 4 * MIB);
        rig.close().await;
    });
}

#[test]
fn discard_is_ignored_unless_asked_for() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let before = file_bytes(file.path(), 0, MIB as usize);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.start(USUAL, 1, 64);
        assert_eq!(range_request(&mut rig, vb::VIRTIO_BLK_T_DISCARD, 0, 2048, 0).await, OK);
        assert_eq!(file_bytes(file.path(), 0, MIB as usize), before);
        rig.close().await;
    });
}

#[test]
fn ranges_are_checked() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.start(USUAL, 1, 64);
        let (discard, zero) = (vb::VIRTIO_BLK_T_DISCARD, vb::VIRTIO_BLK_T_WRITE_ZEROES);
        for kind in [discard, zero] {
            assert_eq!(range_request(&mut rig, kind, 2048, 1, 0).await, IOERR);
            assert_eq!(range_request(&mut rig, kind, 2047, 2, 0).await, IOERR);
            assert_eq!(range_request(&mut rig, kind, u64::MAX, u32::MAX, 0).await, IOERR);
            assert_eq!(range_request(&mut rig, kind, u64::MAX / 512, 1, 0).await, IOERR);
            assert_eq!(range_request(&mut rig, kind, 0, 8, 2).await, UNSUPP);
            assert_eq!(range_request(&mut rig, kind, 0, 8, 1 << 31).await, UNSUPP);
            for len in [0, 15, 17, 32] {
                let request = rig.request(kind, 0, 64);
                let mut buffers = request.write_buffers(len);
                if len == 0 {
                    buffers = request.bare_buffers();
                }
                assert_eq!(rig.run(request, &buffers).await.0, IOERR, "{len} bytes of range");
            }
        }
        assert_eq!(range_request(&mut rig, discard, 0, 8, 1).await, UNSUPP);
        assert_eq!(range_request(&mut rig, zero, 0, 0, 0).await, OK);
        assert_eq!(file_bytes(file.path(), 0, 4096), file_bytes(image(MIB).path(), 0, 4096));
        rig.close().await;
    });
}

#[test]
fn a_gigabyte_over_one_buffer_is_not_gathered() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.start(USUAL, 1, 128);
        // 65 descriptors over the same 16 MiB: far more than the disk has.
        let request = rig.request(vb::VIRTIO_BLK_T_OUT, 0, 0);
        let mut buffers = vec![Buffer::readable(request.header(), 16)];
        buffers.extend([Buffer::readable(0, 16 << 20); 63]);
        buffers.push(Buffer::writable(request.status(), 1));
        assert_eq!(rig.run(request, &buffers).await, (IOERR, 1));
        // Over the same page, and inside of the disk: it is done.
        let request = rig.request(vb::VIRTIO_BLK_T_OUT, 0, 0);
        rig.write(0x1000, &[0x5a; 4096]);
        let mut buffers = vec![Buffer::readable(request.header(), 16)];
        buffers.extend([Buffer::readable(0x1000, 4096); 63]);
        buffers.push(Buffer::writable(request.status(), 1));
        assert_eq!(rig.run(request, &buffers).await, (OK, 1));
        assert_eq!(file_bytes(file.path(), 0, 63 * 4096), vec![0x5a; 63 * 4096]);
        rig.close().await;
    });
}

#[test]
fn the_driver_chooses_the_cache_mode_where_it_may() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        // Not accepted: not writable.
        assert!(rig.driver.negotiate(features::COMMON));
        rig.driver.device_config_write(32, &[0]);
        assert_eq!(rig.driver.device_config::<1>(32), [1]);
        rig.driver.reset().await;
        rig.start(USUAL, 1, 64);
        rig.driver.device_config_write(32, &[0]);
        assert_eq!(rig.driver.device_config::<1>(32), [0]);
        // Write-through: the data and its flush are one request to the driver.
        assert_eq!(rig.write_sectors(0, &[9; 4096]).await, OK);
        assert_eq!(file_bytes(file.path(), 0, 4096), [9; 4096]);
        // All else in the configuration is read-only.
        let capacity = rig.driver.device_config::<8>(0);
        rig.driver.device_config_write(0, &[0xff; 8]);
        assert_eq!(rig.driver.device_config::<8>(0), capacity);
        rig.driver.reset().await;
        assert_eq!(rig.driver.device_config::<1>(32), [1], "a reset restores it");
        rig.close().await;
    });
}

#[test]
fn the_configuration_space_describes_the_disk() {
    on_reactors(1, |reactors| async move {
        let file = image(MIB);
        let options = FileOptions {
            discard: Discard::Unmap,
            cache: Cache::WRITETHROUGH,
            ..FileOptions::new(file.path())
        };
        let disk = open_file(options).await.unwrap();
        let options = BlkOptions { num_queues: 3, queue_size: 128, ..BlkOptions::default() };
        let rig = Rig::on(&reactors, disk, options);
        let driver = &rig.driver;
        let u32_at = |offset| u32::from_le_bytes(driver.device_config(offset));
        assert_eq!(u64::from_le_bytes(driver.device_config(0)), 2048, "capacity");
        assert_eq!(u32_at(12), 126, "seg_max: what is left of 128 descriptors");
        assert_eq!(u32_at(20), 512, "blk_size");
        assert_eq!(driver.device_config(24), [3, 0], "physical blocks of 4096, aligned");
        assert_eq!(driver.device_config(32), [0], "write-through");
        assert_eq!(u16::from_le_bytes(driver.device_config(34)), 3, "num_queues");
        assert_eq!((u32_at(36), u32_at(40), u32_at(44)), (0x3f_ffff, 1, 8), "discard");
        assert_eq!((u32_at(48), u32_at(52)), (0x3f_ffff, 1), "write zeroes");
        assert_eq!(driver.device_config(56), [1], "zeroes may unmap");
        assert_eq!(driver.device_config(60), [0; 8]);
        assert_eq!(driver.device_config(0x800), [0; 4]);
        let high = (features::VERSION_1 | features::RING_RESET) >> 32;
        assert_eq!(driver.offered() >> 32, high, "nothing that changes formats");
        rig.close().await;
    });
}
