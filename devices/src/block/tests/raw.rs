//! The raw data handle: alignment, short transfers, zeroes, cancellation.

use super::super::options::Discard;
use super::super::raw::{DirectAlign, RawFiles, RawQueue};
use super::super::{Cache, FileOptions, Request, open_file};
use super::{RAM_BYTES, Rig, SEGMENTS, SLOTS, pattern, ram};
use crate::virtio::testing::on_core;
use reactor::Fd;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::Poll;

const MIB: usize = 1 << 20;

fn image(bytes: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&pattern(bytes, 0), 0).unwrap();
    file
}

fn content(file: &tempfile::NamedTempFile, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open(file.path()).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// A data handle on any descriptor.
fn rig_on(file: Fd, direct: Option<DirectAlign>) -> Rig {
    let files = RawFiles {
        file,
        buffered: None,
        direct,
        discard: Discard::Unmap,
        no_flush: false,
        written: Arc::default(),
    };
    let ram = ram();
    let queue = Box::new(RawQueue::new(&files, &ram, SLOTS, SEGMENTS));
    Rig { ram, queue }
}

#[test]
fn every_cache_mode_moves_the_same_bytes_at_any_alignment() {
    on_core(|_| async {
        for cache in
            [Cache::NONE, Cache::WRITEBACK, Cache::UNSAFE, Cache::WRITETHROUGH, Cache::DIRECTSYNC]
        {
            let file = image(2 * MIB);
            let disk =
                open_file(FileOptions { cache, ..FileOptions::new(file.path()) }).await.unwrap();
            let mut rig = Rig::new(&*disk);
            let mut round = 0;
            for address in [0x10_0000u64, 0x10_0001, 0x10_0004, 0x10_01ff] {
                for (offset, len) in [(0, 512), (512, 1024), (4096, 65536), (1024, 600 * 1024)] {
                    let request = Request::Read { offset };
                    assert_eq!(rig.run(request, &[(address, len)]).await, Ok(()));
                    assert_eq!(
                        rig.memory(address, len as usize),
                        content(&file, offset, len as usize)
                    );
                    round += 1;
                    let data = pattern(len as usize, round);
                    rig.fill(address, &data);
                    let request = Request::Write { offset, stable: !cache.writeback };
                    assert_eq!(rig.run(request, &[(address, len)]).await, Ok(()));
                    assert_eq!(content(&file, offset, len as usize), data, "{cache:?}");
                }
            }
            assert_eq!(rig.run(Request::Flush, &[]).await, Ok(()));
            drop(rig);
            disk.close().await.unwrap();
        }
    });
}

#[test]
fn segments_that_direct_io_cannot_take_go_through_a_buffer() {
    on_core(|_| async {
        let file = image(4 * MIB);
        let options = FileOptions { cache: Cache::NONE, ..FileOptions::new(file.path()) };
        let disk = open_file(options).await.unwrap();
        let mut rig = Rig::new(&*disk);
        // More at once than there are buffers; odd places and odd pieces, whole blocks in sum.
        for slot in 0..SLOTS {
            let at = (slot * 4096 * 2) as u64;
            let parts = [(at + 1, 1000), (at + 1500, 24), (at + 2000, 3072)];
            rig.submit(slot, Request::Read { offset: slot as u64 * 4096 }, &parts);
        }
        for _ in 0..SLOTS {
            assert_eq!(rig.done().await.result, Ok(()));
        }
        for slot in 0..SLOTS {
            let at = (slot * 4096 * 2) as u64;
            let mut found = rig.memory(at + 1, 1000);
            found.extend(rig.memory(at + 1500, 24));
            found.extend(rig.memory(at + 2000, 3072));
            assert_eq!(found, content(&file, slot as u64 * 4096, 4096), "slot {slot}");
        }
        assert_eq!(rig.queue.in_flight(), 0);
        drop(rig);
        disk.close().await.unwrap();
    });
}

#[test]
fn blocks_larger_than_sectors_are_reached_through_the_page_cache() {
    on_core(|_| async {
        let file = image(MIB);
        let open = |flags: i32| {
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = std::fs::OpenOptions::new();
            Fd::from(options.read(true).write(true).custom_flags(flags).open(file.path()).unwrap())
        };
        let files = RawFiles {
            file: open(libc::O_DIRECT),
            buffered: Some(open(0)),
            direct: Some(DirectAlign { memory: 4096, offset: 4096 }),
            discard: Discard::Unmap,
            no_flush: false,
            written: Arc::default(),
        };
        let ram = ram();
        let queue = Box::new(RawQueue::new(&files, &ram, SLOTS, SEGMENTS));
        let mut rig = Rig { ram, queue };
        for (offset, len) in [(512, 512u32), (4096, 512), (3584, 1024), (8192, 8192)] {
            let data = pattern(len as usize, offset);
            rig.fill(0, &data);
            let request = Request::Write { offset, stable: false };
            assert_eq!(rig.run(request, &[(0, len)]).await, Ok(()));
            assert_eq!(rig.run(Request::Read { offset }, &[(0x10000, len)]).await, Ok(()));
            assert_eq!(rig.memory(0x10000, len as usize), data);
            assert_eq!(content(&file, offset, len as usize), data);
        }
        let zero = Request::WriteZeroes { offset: 512, len: 512, unmap: false, stable: false };
        assert_eq!(rig.run(zero, &[]).await, Ok(()));
        assert_eq!(content(&file, 512, 512), [0; 512]);
    });
}

#[test]
fn a_short_transfer_goes_on_where_it_stopped() {
    on_core(|_| async {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut rig = rig_on(Fd::from(reader), None);
        let parts = [(0x1000, 1000), (0x3000, 2096), (0x8000, 1000)];
        rig.submit(3, Request::Read { offset: 0 }, &parts);
        let data = pattern(4096, 5);
        let writer = Fd::from(writer);
        for piece in [0..1, 1..999, 999..1001, 1001..4000, 4000..4096] {
            let bytes = data[piece].to_vec();
            assert!(poll_fn(|cx| Poll::Ready(rig.queue.poll_done(cx).is_pending())).await);
            let (result, _) = reactor::io::write_all(&writer, bytes).await;
            result.unwrap();
        }
        let done = rig.done().await;
        assert_eq!((done.slot, done.result), (3, Ok(())));
        let found: Vec<u8> =
            parts.iter().flat_map(|(at, len)| rig.memory(*at, *len as usize)).collect();
        assert_eq!(found, data);
    });
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    on_core(|_| async {
        let file = image(MIB);
        let disk = open_file(FileOptions::new(file.path())).await.unwrap();
        let mut rig = Rig::new(&*disk);
        file.as_file().set_len(4096 + 512).unwrap();
        let read = Request::Read { offset: 4096 };
        assert_eq!(rig.run(read, &[(0, 1024)]).await, Err(libc::EIO));
        assert_eq!(rig.run(read, &[(0, 512)]).await, Ok(()));
        drop(rig);
        disk.close().await.unwrap();
    });
}

#[test]
fn zeroes_are_written_where_the_file_system_has_no_better_way() {
    on_core(|_| async {
        // A memory file can punch holes and cannot zero ranges; a pipe's other end shows writes.
        let memfd = nix::sys::memfd::memfd_create(c"zeroes", nix::sys::memfd::MFdFlags::empty());
        let memfd: OwnedFd = memfd.unwrap();
        let file = std::fs::File::from(memfd.try_clone().unwrap());
        file.write_all_at(&pattern(4 * MIB, 3), 0).unwrap();
        let mut rig = rig_on(Fd::from(memfd), None);
        let (offset, len) = (1024u64, 3 * MIB as u64 + 512);
        for unmap in [false, true] {
            file.write_all_at(&vec![0xff; 4 * MIB], 0).unwrap();
            let request = Request::WriteZeroes { offset, len, unmap, stable: true };
            assert_eq!(rig.run(request, &[]).await, Ok(()));
            let mut bytes = vec![0; 4 * MIB];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let (from, to) = (offset as usize, (offset + len) as usize);
            assert!(bytes[from..to].iter().all(|byte| *byte == 0));
            assert!(bytes[..from].iter().chain(&bytes[to..]).all(|byte| *byte == 0xff));
        }
        let request = Request::Discard { offset: 0, len: MIB as u64 };
        assert_eq!(rig.run(request, &[]).await, Ok(()));
    });
}

#[test]
fn flushes_cost_what_the_cache_mode_says() {
    on_core(|reactors| async move {
        let sqes = || reactors.core(0).counters().sqes;
        let file = image(MIB);
        for (cache, per_flush) in [(Cache::UNSAFE, 0), (Cache::WRITEBACK, 1)] {
            let disk =
                open_file(FileOptions { cache, ..FileOptions::new(file.path()) }).await.unwrap();
            let mut rig = Rig::new(&*disk);
            for (each, flushes) in [(true, 10), (false, 0)] {
                // What was there before is made stable first.
                assert_eq!(rig.run(Request::Flush, &[]).await, Ok(()));
                reactor::yield_now().await;
                let before = sqes();
                for _ in 0..10 {
                    if each {
                        let request = Request::Write { offset: 0, stable: false };
                        assert_eq!(rig.run(request, &[(0, 512)]).await, Ok(()));
                    }
                    assert_eq!(rig.run(Request::Flush, &[]).await, Ok(()));
                }
                reactor::yield_now().await;
                let writes = if each { 10 } else { 0 };
                assert_eq!(sqes() - before, writes + flushes * per_flush, "{cache:?}");
            }
            drop(rig);
            disk.close().await.unwrap();
        }
    });
}

#[test]
fn abort_ends_what_would_wait_for_ever() {
    on_core(|_| async {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        let align = DirectAlign { memory: 1, offset: 512 };
        // Direct I/O as far as the handle knows: unaligned requests queue for buffers.
        let mut rig = rig_on(Fd::from(reader), Some(align));
        for slot in 0..SLOTS {
            let parts = [(slot as u64 * 4096, 500), (slot as u64 * 4096 + 600, 12)];
            rig.submit(slot, Request::Read { offset: 0 }, &parts);
        }
        assert_eq!(rig.queue.in_flight(), SLOTS);
        rig.queue.abort();
        for _ in 0..SLOTS {
            assert_eq!(rig.done().await.result, Err(libc::ECANCELED));
        }
        assert_eq!(rig.queue.in_flight(), 0);
    });
}

#[test]
fn dropping_a_queue_in_flight_leaves_memory_alone() {
    on_core(|_| async {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let Rig { ram, mut queue } = rig_on(Fd::from(reader), None);
        for slot in 0..4 {
            let mut segments = queue.segments(slot);
            segments.push(vm_memory::GuestAddress(slot as u64 * 4096), 4096).unwrap();
            queue.submit(slot, Request::Read { offset: 0 });
        }
        // Two have reached the kernel by then, two have not even been submitted.
        reactor::yield_now().await;
        let mut segments = queue.segments(4);
        segments.push(vm_memory::GuestAddress(0), RAM_BYTES as u32).unwrap();
        queue.submit(4, Request::Read { offset: 0 });
        drop(queue);
        assert!(Arc::strong_count(&ram) > 1, "kept while the kernel may write to it");
        while Arc::strong_count(&ram) > 1 {
            reactor::yield_now().await;
        }
        // The reader's end is closed with the last reference: nobody is left to take data.
        assert_eq!(nix::unistd::write(&writer, b"late"), Err(nix::Error::EPIPE));
    });
}
