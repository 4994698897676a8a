//! Requests through the graph: what they cost, drains, and changes under way.

use super::super::{BlockGraph, Kind};
use super::{add, device, image, options, raw};
use crate::block::{Disk, DiskQueue, Done, Request};
use crate::virtio::testing::on_reactors;
use reactor::{Reactors, timeout};
use serde_json::json;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub(super) fn ram() -> Arc<GuestMemoryMmap<()>> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap())
}

pub(super) async fn done(queue: &mut dyn DiskQueue) -> Done {
    poll_fn(|cx| queue.poll_done(cx)).await
}

pub(super) fn submit(queue: &mut dyn DiskQueue, slot: usize, request: Request, at: u64, len: u32) {
    let mut segments = queue.segments(slot);
    segments.clear();
    if len > 0 {
        segments.push(GuestAddress(at), len).unwrap();
    }
    queue.submit(slot, request);
}

/// Runs `test` on core 0 with a graph.
pub(super) fn on_core<F, Fut>(test: F)
where
    F: FnOnce(Arc<BlockGraph>, Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    on_reactors(2, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let core = reactors.core(0).clone();
        core.spawn_local_with("test", move || test(graph, reactors)).await.unwrap();
    });
}

/// Runs `command` in main.
pub(super) async fn in_main<F>(reactors: &Reactors, command: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    reactors.main().spawn("command", command).await.unwrap()
}

#[test]
fn data_goes_through_and_is_counted() {
    on_core(|graph, reactors| async move {
        let image = image(1 << 20);
        let part = json!({"driver": "raw", "node-name": "part", "offset": 4096, "size": 8192,
            "file": {"driver": "file", "filename": image.to_str().unwrap()}});
        let shared = Arc::clone(&graph);
        let backend = in_main(&reactors, async move {
            add(&shared, part).await.unwrap();
            shared.claim("part", &device("d0")).unwrap().unwrap()
        })
        .await;
        assert_eq!(backend.size(), 8192);
        let ram = ram();
        let mut queue = backend.queue(&ram, 4, 4).unwrap();
        ram.write_slice(&[7; 512], GuestAddress(0)).unwrap();
        submit(&mut *queue, 0, Request::Write { offset: 512, stable: false }, 0, 512);
        assert_eq!(backend.stats().in_flight, 1);
        assert_eq!(done(&mut *queue).await, Done { slot: 0, result: Ok(()) });
        submit(&mut *queue, 0, Request::Flush, 0, 0);
        assert_eq!(done(&mut *queue).await.result, Ok(()));
        submit(&mut *queue, 1, Request::Read { offset: 512 }, 4096, 512);
        assert_eq!(done(&mut *queue).await, Done { slot: 1, result: Ok(()) });
        let mut found = [0; 512];
        ram.read_slice(&mut found, GuestAddress(4096)).unwrap();
        assert_eq!(found, [7; 512]);
        assert_eq!(std::fs::read(&*image).unwrap()[4096 + 512], 7);
        drop(queue);
        // What a queue has counted outlives it.
        let stats = backend.stats();
        let counted = |kind| {
            let kind = stats.kind(kind);
            (kind.operations, kind.bytes)
        };
        assert_eq!(counted(Kind::Read), (1, 512));
        assert_eq!(counted(Kind::Write), (1, 512));
        assert_eq!(counted(Kind::Flush), (1, 0));
        assert_eq!((stats.highest_write, stats.in_flight), (1024, 0));
    });
}

/// Requests that come during a drain wait and go on in their order; those before it end first.
#[test]
fn drains_wait_for_what_is_there_and_hold_off_what_comes() {
    on_core(|graph, reactors| async move {
        let shared = Arc::clone(&graph);
        let backend = in_main(&reactors, async move {
            let slow = json!({"driver": "null-co", "node-name": "slow", "latency-ns": 5_000_000});
            add(&shared, slow).await.unwrap();
            shared.claim("slow", &device("d0")).unwrap().unwrap()
        })
        .await;
        let mut queue = backend.queue(&ram(), 8, 4).unwrap();
        submit(&mut *queue, 0, Request::Read { offset: 0 }, 0, 512);
        let node = backend.root().unwrap();
        let begun = Instant::now();
        let shared = Arc::clone(&graph);
        let drain = reactors.main().spawn("drain", async move {
            let outer = shared.drain(&node).await;
            let inner = shared.drain_all().await;
            (outer, inner)
        });
        assert_eq!(done(&mut *queue).await.slot, 0);
        let (outer, inner) = drain.await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(5));
        for slot in [5, 3, 4] {
            submit(&mut *queue, slot, Request::Read { offset: 0 }, 0, 512);
        }
        assert_eq!(queue.in_flight(), 3);
        assert_eq!(backend.stats().in_flight, 0);
        drop(outer);
        let held = timeout(Duration::from_millis(20), done(&mut *queue)).await;
        assert!(held.is_err(), "a section is open still");
        drop(inner);
        for slot in [5, 3, 4] {
            assert_eq!(done(&mut *queue).await, Done { slot, result: Ok(()) });
        }
    });
}

/// A command that waits for I/O while another command drains: both are tasks of main, and neither
/// runs the loop for the other.
#[test]
fn a_handler_that_waits_for_io_does_not_block_a_drain() {
    on_reactors(1, |reactors| async move {
        let graph = BlockGraph::new(&reactors);
        let slow = json!({"driver": "null-co", "node-name": "slow", "latency-ns": 3_000_000});
        add(&graph, slow).await.unwrap();
        let backend = graph.claim("slow", &device("d0")).unwrap().unwrap();
        let ended = Arc::new(AtomicUsize::new(0));
        let (storage, count) = (Arc::clone(&backend), Arc::clone(&ended));
        let handler = reactors.main().spawn_local_with("handler", move || async move {
            let mut queue = storage.queue(&ram(), 1, 1).unwrap();
            for _ in 0..10 {
                submit(&mut *queue, 0, Request::Read { offset: 0 }, 0, 512);
                assert_eq!(done(&mut *queue).await.result, Ok(()));
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut drains = 0;
        while !handler.is_finished() {
            let before = {
                let _drained = graph.drain_all().await;
                assert_eq!(backend.stats().in_flight, 0);
                ended.load(Ordering::Relaxed)
            };
            drains += 1;
            // The handler has its turn.
            while ended.load(Ordering::Relaxed) == before && !handler.is_finished() {
                reactor::yield_now().await;
            }
        }
        handler.await.unwrap();
        assert!(drains > 1);
    });
}

/// A node is resized and a device released while a queue has requests all the time.
#[test]
fn requests_go_on_around_resizes_and_end_with_the_claim() {
    on_core(|graph, reactors| async move {
        let image = image(1 << 20);
        let node = raw("disk", &image);
        let shared = Arc::clone(&graph);
        let backend = in_main(&reactors, async move {
            add(&shared, node).await.unwrap();
            shared.claim("disk", &device("d0")).unwrap().unwrap()
        })
        .await;
        let told = Arc::new(AtomicUsize::new(0));
        let listener = Arc::clone(&told);
        backend.on_size_change(Box::new(move || {
            listener.fetch_add(1, Ordering::Relaxed);
        }));
        let mut queue = backend.queue(&ram(), 4, 4).unwrap();
        let shared = Arc::clone(&graph);
        let resizes = reactors.main().spawn("resizes", async move {
            for n in 1..=50 {
                shared.resize(None, Some("disk"), (1 << 20) + n * 512).await.unwrap();
            }
        });
        for slot in 0..4 {
            submit(&mut *queue, slot, Request::Write { offset: 512, stable: false }, 0, 4096);
        }
        while !resizes.is_finished() {
            let Done { slot, result } = done(&mut *queue).await;
            assert_eq!(result, Ok(()));
            submit(&mut *queue, slot, Request::Write { offset: 512, stable: false }, 0, 4096);
        }
        assert_eq!((backend.size(), told.load(Ordering::Relaxed)), ((1 << 20) + 50 * 512, 50));
        // A release waits for what is in flight, here, and lets the queue go of the image.
        let (shared, released) = (Arc::clone(&graph), Arc::clone(&backend));
        let mut release = reactors.main().spawn("release", async move {
            shared.release(&released).await;
            shared.delete("disk").await.unwrap();
        });
        let mut failed = false;
        poll_fn(|cx| {
            while let Poll::Ready(done) = queue.poll_done(cx) {
                failed |= done.result.is_err();
            }
            Pin::new(&mut release).poll(cx)
        })
        .await
        .unwrap();
        assert!(!failed);
        submit(&mut *queue, 0, Request::Read { offset: 0 }, 0, 512);
        assert_eq!(done(&mut *queue).await.result, Err(libc::ENOMEDIUM));
    });
}

#[test]
fn null_co_reads_zeroes_where_it_is_told_to() {
    on_core(|graph, reactors| async move {
        let shared = Arc::clone(&graph);
        let backend = in_main(&reactors, async move {
            let null = json!({"driver": "null-co", "node-name": "n", "read-zeroes": true,
                "size": 1 << 20});
            shared.add(options(null)).await.unwrap();
            shared.claim("n", &device("d0")).unwrap().unwrap()
        })
        .await;
        let ram = ram();
        ram.write_slice(&[1; 1024], GuestAddress(0)).unwrap();
        let mut queue = backend.queue(&ram, 4, 4).unwrap();
        submit(&mut *queue, 2, Request::Read { offset: 0 }, 0, 512);
        assert_eq!(done(&mut *queue).await, Done { slot: 2, result: Ok(()) });
        let mut found = [9; 1024];
        ram.read_slice(&mut found, GuestAddress(0)).unwrap();
        assert_eq!((found[511], found[512]), (0, 1));
    });
}
