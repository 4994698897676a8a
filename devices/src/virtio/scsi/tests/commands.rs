//! Every command that moves data or fails, and where its bytes go.

use super::*;

const LBA_RANGE: Sense = Sense::LBA_RANGE;

#[test]
fn every_read_reads_what_every_write_wrote() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        let writes: [&[u8]; 8] = [
            &[0x0a, 0, 0, 8, 4, 0],
            &cdb10(0x2a, 0, 16, 4),
            &cdb10(0x2a, 0x18, 24, 4),
            &[0xaa, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0],
            &cdb16(0x8a, 0, 40, 4),
            &cdb16(0x8a, 0x08, 48, 4),
            &cdb10(0x2e, 0, 56, 4),
            &[0xae, 0, 0, 0, 0, 64, 0, 0, 0, 4, 0, 0],
        ];
        for (n, cdb) in writes.into_iter().enumerate() {
            let data = pattern(2048, n as u8 * 31);
            let answer = rig.run(A, cdb, Data::Out(&data)).await;
            assert_eq!((answer.residual, answer.len), (0, 108), "{cdb:x?}");
            answer.good();
            let lba = 8 + 8 * n as u8;
            let reads: [&[u8]; 4] = [
                &[0x08, 0, 0, lba, 4, 0],
                &cdb10(0x28, 0x18, lba.into(), 4),
                &[0xa8, 0, 0, 0, 0, lba, 0, 0, 0, 4, 0, 0],
                &cdb16(0x88, 0, lba.into(), 4),
            ];
            for cdb in reads {
                let answer = rig.run(A, cdb, Data::In(2048)).await;
                assert_eq!((answer.residual, answer.len), (0, 108 + 2048), "{cdb:x?}");
                assert_eq!(answer.good(), data, "{cdb:x?}");
            }
        }
        // 0 in a CDB of 6 bytes stands for 256 blocks; elsewhere for none.
        assert_eq!(
            rig.run(A, &[8, 0, 0, 0, 0, 0], Data::In(256 * 512)).await.good().len(),
            131_072
        );
        rig.run(A, &cdb10(0x28, 0, 0, 0), Data::None).await.good();
        rig.run(A, &cdb10(0x2a, 0, 2048, 0), Data::None).await.good();
        let counters = rig.scsi.metrics()[REQUESTS];
        assert_eq!(counters.bytes_written, 8 * 2048);
        assert_eq!(counters.bytes_read, 32 * 2048 + 131_072);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn blocks_past_the_end_do_not_exist() {
    on_reactors(1, |reactors| async move {
        let (mut rig, disk) = Rig::with_disk(&reactors, MIB).await;
        let data = vec![1; 1024];
        for lba in [2047, 2048, u32::MAX] {
            for code in [0x28, 0x2f] {
                let data = if code == 0x28 { Data::In(1024) } else { Data::None };
                rig.run(A, &cdb10(code, 0, lba, 2), data).await.fails_with(LBA_RANGE);
            }
            rig.run(A, &cdb10(0x2a, 0, lba, 2), Data::Out(&data)).await.fails_with(LBA_RANGE);
        }
        let past = cdb16(0x8a, 0, u64::MAX, 2);
        let answer = rig.run(A, &past, Data::Out(&data)).await;
        assert_eq!(answer.residual, 1024, "nothing was moved");
        answer.fails_with(LBA_RANGE);
        rig.run(A, &cdb16(0x93, 1, 1, u32::MAX), Data::None).await.fails_with(LBA_RANGE);
        rig.run(A, &cdb10(0x35, 0, 2049, 0), Data::None).await.fails_with(LBA_RANGE);
        rig.run(A, &cdb10(0x2b, 0, 2049, 0), Data::None).await.fails_with(LBA_RANGE);
        let list = unmap_list(&[(2000, 49)]);
        let unmap = cdb10(0x42, 0, 0, list.len() as u16);
        rig.run(A, &unmap, Data::Out(&list)).await.fails_with(LBA_RANGE);
        assert_eq!(rig.read10(A, 2046, 2).await.good(), vec![0; 1024], "{}", disk.name());
        rig.virtio.shutdown().await;
    });
}

#[test]
fn what_is_not_understood_is_refused() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        for code in [0x01, 0x04, 0x3b, 0x5e, 0x5f, 0x7f, 0xa4, 0xb5, 0xff, 0x43, 0x46, 0x4a] {
            let answer = rig.run(A, &[code], Data::None).await;
            answer.fails_with(Sense::new(5, 0x20, 0));
        }
        let invalid: [&[u8]; 10] = [
            &[0x12, 0, 0x80, 0, 36, 0],
            &[0x12, 1, 0x84, 0, 36, 0],
            &[0x1a, 0, 0x0e, 0, 36, 0],
            &[0x1a, 0, 0x08, 1, 36, 0],
            &cdb10(0x28, 0x20, 0, 1),
            &cdb10(0x2f, 0x02, 0, 0),
            &cdb10(0x41, 0x10, 0, 0),
            &cdb16(0x9e, 0x12, 0, 0),
            &[0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 36, 0, 0],
            &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0],
        ];
        for cdb in invalid {
            let answer = rig.run(A, cdb, Data::In(4096)).await;
            assert_eq!(answer.residual, 4096);
            assert_eq!(answer.len, 108);
            answer.fails_with(Sense::new(5, 0x24, 0));
        }
        // Saved mode pages there are none.
        let saved = rig.run(A, &[0x1a, 0, 0xc8, 0, 36, 0], Data::In(36)).await;
        saved.fails_with(Sense::new(5, 0x39, 0));
        rig.virtio.shutdown().await;
    });
}

#[test]
fn residuals_say_what_was_not_moved() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        // Room for more than the CDB asks for, and a CDB that asks for more than there is.
        let answer = rig.run(A, &[0x12, 0, 0, 0, 255, 0], Data::In(300)).await;
        assert_eq!((answer.residual, answer.len), (300 - 36, 108 + 36));
        assert_eq!(answer.good().len(), 36);
        let answer = rig.run(A, &[0x12, 0, 0, 0, 5, 0], Data::In(300)).await;
        assert_eq!((answer.residual, answer.data.len()), (295, 5));
        let answer = rig.run(A, &cdb10(0x28, 0, 0, 1), Data::In(4096)).await;
        assert_eq!((answer.residual, answer.good().len()), (4096 - 512, 512));
        let answer = rig.run(A, &cdb10(0x2a, 0, 0, 1), Data::Out(&[7; 4096])).await;
        assert_eq!(answer.residual, 4096 - 512);
        answer.good();
        assert_eq!(rig.read10(A, 0, 2).await.good(), [vec![7; 512], vec![0; 512]].concat());
        // Less than the CDB asks for: an overrun, and nothing is done.
        for (cdb, data) in [
            (cdb10(0x28, 0, 0, 2), Data::In(1023)),
            (cdb10(0x28, 0, 0, 1), Data::None),
            (cdb10(0x2a, 0, 0, 2), Data::Out(&[9; 512])),
            (cdb10(0x2a, 0, 0, 1), Data::In(512)),
            (cdb10(0x41, 0, 0, 1), Data::None),
        ] {
            rig.run(A, &cdb, data).await.responds(1);
        }
        assert_eq!(rig.read10(A, 0, 1).await.good(), vec![7; 512]);
        rig.virtio.shutdown().await;
    });
}

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let bytes = 16 * ranges.len() as u16;
    let mut list = (bytes + 6).to_be_bytes().to_vec();
    list.extend(bytes.to_be_bytes());
    list.extend([0; 4]);
    for (lba, count) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(count.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

#[test]
fn write_same_and_unmap_reach_the_disk() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        let ones = vec![1; 65536];
        for lba in (0..2048).step_by(128) {
            rig.write10(A, lba, &ones).await.good();
        }
        // Zeroes from data, and without any.
        rig.run(A, &cdb10(0x41, 0, 2, 3), Data::Out(&[0; 512])).await.good();
        rig.run(A, &cdb10(0x41, 1, 10, 3), Data::None).await.good();
        rig.run(A, &cdb16(0x93, 0x09, 16, 8), Data::None).await.good();
        let blocks = rig.read10(A, 0, 32).await.good();
        let zero: Vec<usize> =
            (0..32).filter(|n| blocks[n * 512..(n + 1) * 512].iter().all(|b| *b == 0)).collect();
        let expected: Vec<usize> = (2..5).chain(10..13).chain(16..24).collect();
        assert_eq!(zero, expected);
        // Other data, in more than one request to the disk.
        let block: Vec<u8> = pattern(512, 9);
        rig.run(A, &cdb16(0x93, 0, 100, 900), Data::Out(&block)).await.good();
        for (lba, n) in [(100, 128), (600, 128), (999, 1)] {
            assert_eq!(rig.read10(A, lba, n).await.good(), block.repeat(n.into()));
        }
        assert_eq!(rig.read10(A, 99, 1).await.good(), vec![1; 512]);
        assert_eq!(rig.read10(A, 1000, 1).await.good(), vec![1; 512]);
        // Neither "up to the end" nor more than the limits page says.
        rig.run(A, &cdb10(0x41, 1, 0, 0), Data::None).await.fails_with(Sense::INVALID_FIELD);

        let list = unmap_list(&[(1024, 8), (1040, 0), (1048, 8)]);
        let unmap = cdb10(0x42, 0, 0, list.len() as u16);
        rig.run(A, &unmap, Data::Out(&list)).await.good();
        let blocks = rig.read10(A, 1024, 32).await.good();
        assert_eq!(blocks[..8 * 512], vec![0; 8 * 512]);
        assert_eq!(blocks[8 * 512..24 * 512], vec![1; 16 * 512]);
        assert_eq!(blocks[24 * 512..], vec![0; 8 * 512]);
        // Lists that do not hold together.
        rig.run(A, &cdb10(0x42, 0, 0, 0), Data::None).await.good();
        let length = Sense::PARAMETER_LENGTH;
        for n in [4, 8, 23] {
            let cdb = cdb10(0x42, 0, 0, n);
            rig.run(A, &cdb, Data::Out(&list[..n.into()])).await.fails_with(length);
        }
        rig.run(A, &cdb10(0x42, 1, 0, 24), Data::Out(&list)).await.fails_with(Sense::INVALID_FIELD);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn a_read_only_disk_and_a_cd_refuse_what_writes() {
    on_reactors(1, |reactors| async move {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MIB).unwrap();
        let options = FileOptions { read_only: true, ..FileOptions::new(file.path()) };
        let disk = open_file(options).await.unwrap();
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        rig.scsi.plug(A, unit(Kind::Disk, Some(Arc::clone(&disk)))).unwrap();
        rig.scsi.plug(B, unit(Kind::Cd, Some(Arc::clone(&disk)))).unwrap();
        rig.start(USUAL, 3, 64);
        let protected = Sense::new(7, 0x27, 0);
        for address in [A, B] {
            rig.power_on(address).await;
            let blocks = [1; 2048];
            let n = if address == A { 4 } else { 1 };
            rig.run(address, &cdb10(0x2a, 0, 0, n), Data::Out(&blocks)).await.fails_with(protected);
            rig.run(address, &cdb16(0x8a, 0, 0, n.into()), Data::Out(&blocks))
                .await
                .fails_with(protected);
            let answer = rig.run(address, &cdb10(0x28, 0, 0, n), Data::In(2048)).await;
            assert_eq!(answer.good(), vec![0; 2048]);
        }
        let list = unmap_list(&[(0, 1)]);
        let unmap = cdb10(0x42, 0, 0, list.len() as u16);
        rig.run(A, &unmap, Data::Out(&list)).await.fails_with(protected);
        rig.run(A, &cdb10(0x41, 1, 0, 1), Data::None).await.fails_with(protected);
        let mode = rig.run(A, &[0x1a, 8, 0x0a, 0, 64, 0], Data::In(64)).await.good();
        assert_eq!(mode[2] & 0x80, 0x80, "MODE SENSE says so");
        rig.virtio.shutdown().await;
        disk.close().await.unwrap();
    });
}

#[test]
fn errors_of_the_disk_become_sense_data() {
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(MIB);
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        rig.scsi.plug(A, unit(Kind::Disk, Some(disk))).unwrap();
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        let read = (cdb10(0x28, 0, 0, 1), Data::In(512));
        let write = (cdb10(0x2a, 0, 0, 1), Data::Out(&[0; 512]));
        let flush = (cdb10(0x35, 0, 0, 0), Data::None);
        for ((cdb, data), errno, sense) in [
            (read, libc::EIO, (3, 0x11, 0x00)),
            (write, libc::EIO, (3, 0x0c, 0x00)),
            (flush, libc::EIO, (3, 0x0c, 0x00)),
            (write, libc::ENOSPC, (7, 0x27, 0x07)),
            (write, libc::EROFS, (7, 0x27, 0x00)),
            (read, libc::ENOMEDIUM, (2, 0x3a, 0x00)),
            (read, libc::ENOMEM, (4, 0x44, 0x00)),
            (read, libc::ECANCELED, (0x0b, 0x00, 0x06)),
        ] {
            let at = rig.offer(super::super::request::encoded(A), &cdb, data);
            until(|| held.in_flight() == 1).await;
            held.end_all(Err(errno));
            let used = rig.queues[REQUESTS].wait_used(1).await;
            let answer = rig.answer(at, data, used[0].len);
            let (key, asc, ascq) = sense;
            assert_eq!(answer.len, 108);
            answer.fails_with(Sense::new(key, asc, ascq));
        }
        let at = rig.offer(super::super::request::encoded(A), &read.0, read.1);
        until(|| held.in_flight() == 1).await;
        held.end_all(Err(libc::EBUSY));
        let used = rig.queues[REQUESTS].wait_used(1).await;
        let answer = rig.answer(at, read.1, used[0].len);
        assert_eq!((answer.response, answer.status, answer.sense), (0, 8, None), "BUSY");
        rig.virtio.shutdown().await;
    });
}

#[test]
fn the_write_cache_is_the_guests_to_switch() {
    use crate::block::Request;
    on_reactors(1, |reactors| async move {
        let (held, disk) = hold_disk(MIB);
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        rig.scsi.plug(A, unit(Kind::Disk, Some(disk))).unwrap();
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        let caching = [0x1a, 0x08, 0x08, 0, 64, 0];
        let mut page = rig.run(A, &caching, Data::In(64)).await.good()[4..].to_vec();
        assert_eq!((page.len(), page[2]), (20, 4), "WCE");
        // Off: what is in the cache is flushed, and writes are stable from now on.
        page[2] = 0;
        let list = [vec![0; 4], page.clone()].concat();
        let lun = super::super::request::encoded(A);
        let select = [0x15, 0x10, 0, 0, list.len() as u8, 0];
        rig.offer(lun, &select, Data::Out(&list));
        until(|| held.in_flight() == 1).await;
        held.end_all(Ok(()));
        rig.queues[REQUESTS].wait_used(1).await;
        rig.offer(lun, &cdb10(0x2a, 0, 0, 1), Data::Out(&[0; 512]));
        until(|| held.in_flight() == 1).await;
        held.end_all(Ok(()));
        rig.queues[REQUESTS].wait_used(1).await;
        let stable = Request::Write { offset: 0, stable: true };
        assert_eq!(held.requests(), [Request::Flush, stable]);
        assert_eq!(rig.run(A, &caching, Data::In(64)).await.good()[6], 0);
        // Nothing else of the page can be changed, and a bad list changes nothing.
        page[2] = 4;
        page[3] = 1;
        let list = [vec![0; 4], page].concat();
        let answer = rig.run(A, &select, Data::Out(&list)).await;
        answer.fails_with(Sense::INVALID_PARAMETER);
        assert_eq!(rig.run(A, &caching, Data::In(64)).await.good()[6], 0);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn a_cd_tells_of_its_disc_and_tray() {
    on_reactors(1, |reactors| async move {
        let disk = scratch(100 * 2048).await.unwrap();
        let mut rig = Rig::new(&reactors, ScsiOptions::default());
        rig.scsi.plug(A, unit(Kind::Cd, None)).unwrap();
        rig.start(USUAL, 3, 64);
        rig.power_on(A).await;
        let ready = [0x00];
        let event = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
        rig.run(A, &ready, Data::None).await.fails_with(Sense::new(2, 0x3a, 0));
        rig.run(A, &cdb10(0x28, 0, 0, 1), Data::In(2048)).await.fails_with(Sense::NO_MEDIUM);
        rig.run(A, &cdb10(0x25, 0, 0, 0), Data::In(8)).await.fails_with(Sense::NO_MEDIUM);
        assert_eq!(rig.run(A, &event, Data::In(8)).await.good(), [0, 6, 4, 16, 0, 0, 0, 0]);
        // A disc comes.
        rig.scsi.change_medium(A, Some(Arc::clone(&disk))).unwrap().await;
        assert_eq!(rig.run(A, &event, Data::In(8)).await.good(), [0, 6, 4, 16, 2, 2, 0, 0]);
        assert_eq!(rig.run(A, &event, Data::In(8)).await.good(), [0, 6, 4, 16, 0, 2, 0, 0]);
        rig.run(A, &ready, Data::None).await.fails_with(Sense::new(6, 0x28, 0));
        rig.run(A, &ready, Data::None).await.good();
        let capacity = rig.run(A, &cdb10(0x25, 0, 0, 0), Data::In(8)).await.good();
        assert_eq!(capacity, [0, 0, 0, 99, 0, 0, 8, 0]);
        let toc = rig.run(A, &[0x43, 2, 0, 0, 0, 0, 0, 0, 20, 0], Data::In(20)).await.good();
        assert_eq!(toc[..4], [0, 18, 1, 1]);
        assert_eq!(toc[4..12], [0, 0x14, 1, 0, 0, 0, 2, 0]);
        assert_eq!(toc[12..], [0, 0x14, 0xaa, 0, 0, 0, 3, 25]);
        let profile = rig.run(A, &[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0], Data::In(8)).await.good();
        assert_eq!(profile[6..], [0, 8], "CD-ROM");
        // Locked in, it does not come out; unlocked it does.
        let (eject, load) = ([0x1b, 0, 0, 0, 2, 0], [0x1b, 0, 0, 0, 3, 0]);
        rig.run(A, &[0x1e, 0, 0, 0, 1, 0], Data::None).await.good();
        rig.run(A, &eject, Data::None).await.fails_with(Sense::new(5, 0x53, 2));
        rig.run(A, &[0x1e, 0, 0, 0, 0, 0], Data::None).await.good();
        rig.run(A, &eject, Data::None).await.good();
        rig.run(A, &ready, Data::None).await.fails_with(Sense::new(2, 0x3a, 2));
        assert_eq!(rig.run(A, &event, Data::In(8)).await.good(), [0, 6, 4, 16, 3, 1, 0, 0]);
        rig.run(A, &load, Data::None).await.good();
        rig.run(A, &ready, Data::None).await.fails_with(Sense::new(6, 0x28, 0));
        assert_eq!(rig.run(A, &cdb10(0x28, 0, 99, 1), Data::In(2048)).await.good().len(), 2048);
        rig.virtio.shutdown().await;
    });
}

#[test]
fn a_stopped_disk_is_not_ready_until_it_is_started() {
    on_reactors(1, |reactors| async move {
        let (mut rig, _disk) = Rig::with_disk(&reactors, MIB).await;
        rig.run(A, &[0x1b, 0, 0, 0, 0, 0], Data::None).await.good();
        rig.read10(A, 0, 1).await.fails_with(Sense::new(2, 4, 2));
        rig.run(A, &[0x00], Data::None).await.fails_with(Sense::new(2, 4, 2));
        rig.run(A, &[0x1b, 0, 0, 0, 1, 0], Data::None).await.good();
        rig.read10(A, 0, 1).await.good();
        rig.virtio.shutdown().await;
    });
}
