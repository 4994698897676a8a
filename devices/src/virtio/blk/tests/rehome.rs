//! Queues that move from one context to another while their driver goes on.

use super::*;
use std::time::Duration;

/// More than any move takes.
const LONG: Duration = Duration::from_secs(60);

fn kick_read(rig: &mut Rig, queue: usize) -> RequestAt {
    let request = rig.request(vb::VIRTIO_BLK_T_IN, 0, 4096);
    rig.queues[queue].add(&request.read_buffers(4096));
    rig.queues[queue].kick();
    request
}

/// Starts to move the device to core `n`.
fn moving(rig: &Rig, reactors: &Reactors, n: usize) -> reactor::JoinHandle<Result<(), u16>> {
    let (virtio, core) = (rig.virtio.clone(), reactors.core(n).clone());
    reactors.main().spawn("move", async move { virtio.move_queues_within(vec![core], LONG).await })
}

#[test]
fn what_is_in_flight_is_finished_and_what_comes_goes_on_elsewhere() {
    on_reactors(2, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let options = BlkOptions { num_queues: 2, ..BlkOptions::default() };
        let mut rig = Rig::on(&reactors, disk, options);
        rig.start(USUAL, 2, 64);
        let first = [kick_read(&mut rig, 0), kick_read(&mut rig, 1)];
        until(|| held.in_flight() == 2).await;
        let moved = moving(&rig, &reactors, 1);
        // A queue that has been asked to pause already leaves these for the other core.
        let second = [kick_read(&mut rig, 0), kick_read(&mut rig, 1)];
        until(|| {
            held.end_all(Ok(()));
            moved.is_finished()
        })
        .await;
        moved.await.unwrap().unwrap();
        until(|| held.contexts().len() == 4).await;
        let mut contexts = held.contexts();
        assert_eq!(contexts.split_off(2), ["core-1", "core-1"]);
        for queue in 0..2 {
            until(|| {
                held.end_all(Ok(()));
                rig.queues[queue].used_idx() == 2
            })
            .await;
        }
        for request in first.into_iter().chain(second) {
            assert_eq!(rig.status(request), OK);
        }
        assert!(!held.aborted());
        assert_eq!(held.requests().len(), 4, "none was begun twice");
        rig.close().await;
    });
}

#[test]
fn requests_that_do_not_end_keep_their_queue_where_it_is() {
    on_reactors(2, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let options = BlkOptions { num_queues: 2, ..BlkOptions::default() };
        let mut rig = Rig::on(&reactors, disk, options);
        rig.start(USUAL, 2, 64);
        kick_read(&mut rig, 1);
        until(|| held.in_flight() == 1).await;
        let there = vec![reactors.core(1).clone()];
        // On a busy host the first queue may not make it in time.
        let moved = rig.virtio.move_queues_within(there, Duration::from_millis(100)).await;
        assert!(moved.is_err());
        kick_read(&mut rig, 1);
        until(|| held.in_flight() == 2).await;
        kick_read(&mut rig, 0);
        until(|| held.in_flight() == 3).await;
        held.end_all(Ok(()));
        assert_eq!(rig.queues[1].wait_used(2).await.len(), 2);
        assert_eq!(rig.queues[0].wait_used(1).await.len(), 1);
        let contexts = held.contexts();
        assert_eq!(contexts.last().map(String::as_str), Some("core-0"), "{contexts:?}");
        // With nothing in flight it goes.
        rig.virtio.move_queues(vec![reactors.core(1).clone()]).await.unwrap();
        kick_read(&mut rig, 0);
        until(|| held.in_flight() == 1).await;
        assert_eq!(held.contexts().last().map(String::as_str), Some("core-1"));
        held.end_all(Ok(()));
        rig.queues[0].wait_used(1).await;
        rig.close().await;
    });
}

#[test]
fn a_reset_ends_a_move() {
    on_reactors(2, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        for round in 0..10 {
            rig.start(USUAL, 1, 64);
            let request = kick_read(&mut rig, 0);
            until(|| held.in_flight() == 1).await;
            let moved = moving(&rig, &reactors, round % 2);
            if round % 3 == 0 {
                reactor::yield_now().await;
            }
            rig.driver.set_status(0);
            held.end_all(Ok(()));
            until(|| rig.driver.status() == 0).await;
            moved.await.unwrap().unwrap();
            assert!(matches!(rig.status(request), OK | UNTOUCHED));
            assert_eq!(held.open_queues(), 0);
        }
        rig.start(USUAL, 1, 64);
        kick_read(&mut rig, 0);
        until(|| held.in_flight() == 1).await;
        assert_eq!(held.contexts().last().map(String::as_str), Some("core-1"), "the last wish");
        held.end_all(Ok(()));
        rig.queues[0].wait_used(1).await;
        rig.close().await;
    });
}

#[test]
fn a_device_that_is_not_started_starts_where_it_was_moved_to() {
    on_reactors(2, |reactors| async move {
        let (held, disk) = hold_disk(1 << 20);
        let mut rig = Rig::on(&reactors, disk, BlkOptions::default());
        rig.virtio.move_queues(vec![reactors.core(1).clone()]).await.unwrap();
        rig.start(USUAL, 1, 64);
        kick_read(&mut rig, 0);
        until(|| held.in_flight() == 1).await;
        assert_eq!(held.contexts(), ["core-1"]);
        held.end_all(Ok(()));
        rig.queues[0].wait_used(1).await;
        rig.close().await;
    });
}

#[test]
fn nothing_is_lost_or_done_twice_while_a_queue_goes_to_and_fro() {
    on_reactors(2, |reactors| async move {
        const SECTORS: u64 = 64;
        let file = image(SECTORS * 512);
        let mut rig = Rig::new(&reactors, file.path(), BlkOptions::default()).await;
        rig.start(USUAL, 1, 64);
        let (virtio, cores) = (rig.virtio.clone(), reactors.cores().to_vec());
        let moves = reactors.main().spawn("moves", async move {
            for n in 0..200 {
                virtio.move_queues(vec![cores[n % 2].clone()]).await.unwrap();
            }
        });
        let requests: Vec<_> = (0..16).map(|_| rig.request(vb::VIRTIO_BLK_T_IN, 0, 512)).collect();
        let mut rounds = 0u64;
        while !moves.is_finished() || rounds < 100 {
            rounds += 1;
            let sector = |n: usize| (rounds * 7 + n as u64) % SECTORS;
            for (n, request) in requests.iter().enumerate() {
                rig.write(request.header(), &header(vb::VIRTIO_BLK_T_IN, sector(n)));
                rig.write(request.status(), &[UNTOUCHED]);
                rig.queues[0].add(&request.read_buffers(512));
            }
            rig.queues[0].kick();
            assert_eq!(rig.queues[0].wait_used(16).await.len(), 16);
            for (n, request) in requests.iter().enumerate() {
                assert_eq!(rig.status(*request), OK);
                let expected = file_bytes(file.path(), sector(n) * 512, 512);
                assert_eq!(rig.read(request.data(), 512), expected);
            }
        }
        moves.await.unwrap();
        assert_eq!(rig.blk.metrics()[0].requests, rounds * 16);
        rig.close().await;
    });
}
