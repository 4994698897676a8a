//! Waiting for what carries a token while everything else goes on.

mod common;

use common::{pair, poll_once, with};
use reactor::{DrainToken, OpGroup, Target, hop, io, sleep, yield_now};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A command's handler in main waits for I/O; that needs another task of main to run; and main is being
/// drained meanwhile. Where a drain stops its context this is a deadlock.
#[test]
fn request_that_needs_another_task_finishes_while_main_drains() {
    with(|reactors| async move {
        let main = reactors.main().clone();
        let token = DrainToken::new();
        let (request, backend) = pair();
        let finished = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&finished);
        let handler = main.spawn(
            "handler",
            token.tag(async move {
                let (n, bytes) = io::recv(&request, vec![0; 16]).await;
                assert_eq!(&bytes[..n.unwrap()], b"answer");
                done.store(true, Ordering::SeqCst);
            }),
        );
        yield_now().await;
        // Not tagged, in the same context, and only started by a third one.
        let (go, wait) = reactor::sync::oneshot::channel::<()>();
        let helper = main.spawn("helper", async move {
            wait.await.unwrap();
            sleep(Duration::from_millis(2)).await;
            io::send_all(&backend, b"answer".to_vec()).await.0.unwrap();
        });
        reactors.iohandler().schedule_bh(move || go.send(()).unwrap());
        assert_eq!(token.in_flight(), 2, "the task and its receive");
        main.drain(&token).await;
        assert!(finished.load(Ordering::SeqCst));
        assert_eq!(token.in_flight(), 0);
        handler.await.unwrap();
        helper.await.unwrap();
    });
}

#[test]
fn drain_of_nothing_is_ready_at_once() {
    with(|reactors| async move {
        let token = DrainToken::new();
        let main = reactors.main();
        assert!(poll_once(&mut Box::pin(main.drain(&token))).await.is_ready());
        drop(token.begin());
        assert!(poll_once(&mut Box::pin(main.drain(&token))).await.is_ready());
    });
}

/// Requests keep coming: the drain waits for those there were.
#[test]
fn newcomers_do_not_keep_a_drain_waiting() {
    with(|reactors| async move {
        let token = DrainToken::new();
        let stop = Arc::new(AtomicBool::new(false));
        let streams: Vec<_> = (0..2)
            .map(|n| {
                let (token, stop) = (token.clone(), Arc::clone(&stop));
                reactors.core(n).spawn("stream", async move {
                    // Never without one in flight.
                    let mut last = token.begin();
                    while !stop.load(Ordering::SeqCst) {
                        yield_now().await;
                        let next = token.begin();
                        drop(std::mem::replace(&mut last, next));
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            reactors.main().drain(&token).await;
        }
        stop.store(true, Ordering::SeqCst);
        for stream in streams {
            stream.await.unwrap();
        }
        reactors.main().drain(&token).await;
        assert_eq!(token.in_flight(), 0);
    });
}

/// The future is gone, the kernel still has its buffer: the drain waits for that, too.
#[test]
fn dropped_operations_count_until_the_kernel_lets_go() {
    with(|reactors| async move {
        let token = DrainToken::new();
        let (_end, start) = pair();
        for _ in 0..20 {
            let mut receive = Box::pin(token.tag(io::recv(&start, vec![0; 100])));
            assert!(poll_once(&mut receive).await.is_pending());
            drop(receive);
            assert_eq!(token.in_flight(), 1);
            reactors.main().drain(&token).await;
            assert_eq!(token.in_flight(), 0);
        }
    });
}

#[test]
fn everything_tagged_before_has_ended_after() {
    with(|reactors| async move {
        let token = DrainToken::new();
        for round in 0..30 {
            let ended = Arc::new(AtomicUsize::new(0));
            for n in 0..20usize {
                let (ended, cores) = (Arc::clone(&ended), reactors.clone());
                let work = token.tag(async move {
                    for hops in 0..n % 4 {
                        hop(cores.core(hops)).await;
                    }
                    if n % 5 == 0 {
                        sleep(Duration::from_micros(100)).await;
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
                reactors.core(n + round).spawn("work", work).detach();
            }
            reactors.main().drain(&token).await;
            assert_eq!(ended.load(Ordering::SeqCst), 20);
        }
    });
}

/// Two drains of one token, of which one is given up.
#[test]
fn dropped_drain_leaves_the_others_alone() {
    with(|reactors| async move {
        let token = DrainToken::new();
        let held = token.begin();
        let mut first = Box::pin(reactors.main().drain(&token));
        let mut second = Box::pin(reactors.main().drain(&token));
        assert!(poll_once(&mut first).await.is_pending());
        assert!(poll_once(&mut second).await.is_pending());
        drop(first);
        assert!(poll_once(&mut second).await.is_pending());
        drop(held);
        second.await;
        let later = token.begin();
        let mut third = Box::pin(token.drained());
        assert!(poll_once(&mut third).await.is_pending());
        drop(later);
        third.await;
    });
}

#[test]
fn tagged_group_is_drained() {
    with(|reactors| async move {
        let token = DrainToken::new();
        let tag = token.clone();
        let (started, start) = reactor::sync::oneshot::channel();
        let worker = reactors.core(0).spawn_local_with("queue", move || async move {
            let (end, other) = pair();
            let mut bytes = vec![0u8; 8];
            let iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 8 };
            let arena = Rc::new((bytes, vec![iov]));
            let iov = arena.1.as_ptr();
            let group = OpGroup::new(1, arena);
            group.tag(&tag);
            // SAFETY: the arena is kept by the group.
            unsafe { group.readv(Target::Fd(&other), iov, 1, u64::MAX, 0) };
            started.send(()).unwrap();
            sleep(Duration::from_millis(5)).await;
            io::send_all(&end, vec![1; 8]).await.0.unwrap();
            group.next().await.result
        });
        start.await.unwrap();
        assert_eq!(token.in_flight(), 1);
        reactors.main().drain(&token).await;
        assert_eq!(worker.await, Ok(8));
    });
}

#[test]
fn draining_ones_own_token_or_another_context_panics_with_a_reason() {
    with(|reactors| async move {
        let main = reactors.main().clone();
        let token = DrainToken::new();
        let own = token.clone();
        let context = main.clone();
        let task = main.spawn("own", token.tag(async move { context.drain(&own).await }));
        assert_eq!(task.await, Err(reactor::JoinError::Panicked));
        let core = reactors.core(0).clone();
        let task = main.spawn("elsewhere", async move { core.drain(&DrainToken::new()).await });
        assert_eq!(task.await, Err(reactor::JoinError::Panicked));
    });
}
