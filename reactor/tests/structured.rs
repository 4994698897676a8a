//! Scopes, the reader-writer lock, and combinators of futures-util over tasks.

mod common;

use common::{poll_once, with};
use futures_util::future::{Either, join, join_all, select};
use reactor::sync::{Mutex, Quiesce, RwLock, bounded, scope};
use reactor::{JoinError, hop, sleep, spawn_local, timeout, yield_now};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn scope_cancels_what_its_body_leaves_behind() {
    with(|reactors| async move {
        for _ in 0..50 {
            let gone = Arc::new(AtomicUsize::new(0));
            let watch = Arc::clone(&gone);
            let inner = reactors.clone();
            let output = scope(|scope| async move {
                for n in 0..6 {
                    let count = Count(Arc::clone(&gone));
                    let task = scope.spawn(inner.core(n), "child", async move {
                        let _count = count;
                        std::future::pending::<()>().await;
                    });
                    task.detach();
                }
                assert_eq!(scope.len(), 6);
                let done = scope.spawn(inner.main(), "ends", async { 5 });
                done.await.unwrap()
            });
            assert_eq!(output.await, 5);
            assert_eq!(watch.load(Ordering::SeqCst), 6);
        }
    });
}

#[test]
fn dropped_scope_cancels_its_tasks() {
    with(|reactors| async move {
        let gone = Arc::new(AtomicUsize::new(0));
        let watch = Arc::clone(&gone);
        let core = reactors.core(0).clone();
        {
            let mut running = Box::pin(scope(|scope| async move {
                let count = Count(gone);
                let child = async move {
                    let _count = count;
                    std::future::pending::<()>().await;
                };
                scope.spawn(&core, "child", child).detach();
                std::future::pending::<()>().await;
            }));
            assert!(poll_once(&mut running).await.is_pending());
        }
        while watch.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
    });
}

#[test]
fn scope_waits_for_its_tasks_when_asked() {
    with(|reactors| async move {
        let done = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&done);
        let kept = scope(|scope| async move {
            for n in 0..10 {
                let (count, inner) = (Count(Arc::clone(&counted)), scope.clone());
                let (core, next) = (reactors.core(n).clone(), reactors.core(n + 1).clone());
                let child = async move {
                    yield_now().await;
                    // A child may have children.
                    let grandchild = inner.spawn(&next, "grandchild", async { yield_now().await });
                    grandchild.detach();
                    drop(count);
                };
                scope.spawn(&core, "child", child).detach();
            }
            scope.join().await;
            assert!(scope.is_empty());
            scope.cancel();
            let late = scope.spawn(reactors.main(), "late", async { 1 });
            assert_eq!(late.await, Err(JoinError::Cancelled));
            scope
        })
        .await;
        assert_eq!(done.load(Ordering::SeqCst), 10);
        assert!(kept.is_empty());
    });
}

#[test]
fn readers_in_every_context_never_meet_the_writer() {
    with(|reactors| async move {
        let lock = Arc::new(RwLock::new(reactors.main(), (0u64, 0u64)));
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..8)
            .map(|n| {
                let (lock, stop, cores) = (Arc::clone(&lock), Arc::clone(&stop), reactors.clone());
                reactors.core(n).spawn("reader", async move {
                    let mut last = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let guard = lock.read().await;
                        assert_eq!(guard.0, guard.1);
                        assert!(guard.0 >= last, "it went back");
                        last = guard.0;
                        if n % 3 == 0 {
                            // Held while the task moves; released elsewhere.
                            hop(cores.core(n + 1)).await;
                            assert_eq!(guard.0, guard.1);
                        }
                        drop(guard);
                        hop(cores.core(n)).await;
                        yield_now().await;
                    }
                    last
                })
            })
            .collect();
        for n in 1..=200 {
            let mut guard = lock.write().await;
            guard.0 = n;
            yield_now().await;
            guard.1 = n;
        }
        stop.store(true, Ordering::SeqCst);
        for reader in readers {
            assert!(reader.await.unwrap() <= 200);
        }
        assert_eq!(*lock.try_read().unwrap(), (200, 200));
    });
}

/// A section inside another, with a writer waiting: it must not wait for that writer.
#[test]
fn nested_readers_pass_a_waiting_writer() {
    with(|reactors| async move {
        let lock = Arc::new(RwLock::new(reactors.main(), ()));
        let outer = lock.read().await;
        let waiting = Arc::clone(&lock);
        let writer = reactors.main().spawn("writer", async move { drop(waiting.write().await) });
        yield_now().await;
        drop(lock.read().await);
        let inner = Arc::clone(&lock);
        let other = reactors.core(0).spawn("other", async move { drop(inner.read().await) });
        other.await.unwrap();
        assert!(!writer.is_finished());
        drop(outer);
        writer.await.unwrap();
    });
}

/// There is no moment without readers unless the writer makes one.
#[test]
fn readers_that_hand_over_to_each_other_do_not_starve_a_writer() {
    with(|reactors| async move {
        let lock = Arc::new(RwLock::new(reactors.main(), 0));
        let shared = Arc::clone(&lock);
        let readers = reactors.core(0).spawn("readers", async move {
            let mut held = shared.read().await;
            while *held == 0 {
                // The next begins before this one ends; it may have to wait for the writer.
                held = if let Some(next) = shared.try_read() {
                    next
                } else {
                    drop(held);
                    shared.read().await
                };
                yield_now().await;
            }
        });
        *lock.write().await = 1;
        readers.await.unwrap();
    });
}

#[test]
fn requests_are_held_off_until_the_last_section_ends() {
    with(|reactors| async move {
        let quiesce = Arc::new(Quiesce::new(reactors.main()));
        let place = quiesce.place();
        assert!(quiesce.enter(place));
        let outer = quiesce.close();
        let inner = quiesce.close();
        assert!(!quiesce.enter(place));
        let waiting = Arc::clone(&quiesce);
        let drained = reactors.core(0).spawn("drain", async move { waiting.emptied().await });
        yield_now().await;
        assert!(!drained.is_finished());
        quiesce.leave(place);
        drained.await.unwrap();
        let held = Arc::clone(&quiesce);
        let request = reactors.core(1).spawn("request", async move {
            std::future::poll_fn(|cx| {
                held.wake_when_open(cx.waker());
                if held.enter(held.place()) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        drop(outer);
        assert!(quiesce.is_closed() && !request.is_finished());
        drop(inner);
        request.await.unwrap();
    });
}

#[test]
fn deferred_functions_run_after_the_release() {
    with(|reactors| async move {
        let lock = Arc::new(RwLock::new(reactors.main(), 0));
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut guard = lock.write().await;
        *guard = 1;
        assert!(lock.try_read().is_none());
        for n in 0..3 {
            let (order, lock) = (Arc::clone(&order), Arc::clone(&lock));
            guard.defer(move || {
                // Released: readers may look.
                assert_eq!(lock.try_read().map(|value| *value), Some(1));
                order.lock().unwrap().push(n);
            });
        }
        assert!(order.lock().unwrap().is_empty());
        drop(guard);
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    });
}

#[test]
fn dropped_writer_leaves_the_lock_to_others() {
    with(|reactors| async move {
        let lock = Arc::new(RwLock::new(reactors.main(), ()));
        let reading = lock.read().await;
        {
            let mut writing = Box::pin(lock.write());
            assert!(poll_once(&mut writing).await.is_pending());
        }
        drop(reading);
        drop(lock.write().await);
        let elsewhere = Arc::clone(&lock);
        let task = reactors.core(0).spawn("wrong", async move { drop(elsewhere.write().await) });
        assert_eq!(task.await, Err(JoinError::Panicked));
    });
}

#[test]
fn combinators_work_over_handles_and_primitives() {
    with(|reactors| async move {
        let tasks = (0..100).map(|n| reactors.core(n).spawn("one", async move { n }));
        let sum: usize = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
        assert_eq!(sum, 4950);
        let slow = reactors.core(0).spawn("slow", sleep(Duration::from_secs(3600)));
        let quick = reactors.core(1).spawn("quick", async { 1 });
        match select(slow, quick).await {
            Either::Right((quick, slow)) => {
                assert_eq!(quick, Ok(1));
                slow.cancel();
                assert_eq!(slow.await, Err(JoinError::Cancelled));
            }
            Either::Left(_) => panic!("an hour has passed"),
        }
        let (sender, mut receiver) = bounded(1);
        let mutex = Mutex::new(());
        let held = mutex.lock().await;
        let both = join(sender.send(2), receiver.recv());
        match select(pin!(mutex.lock()), pin!(both)).await {
            Either::Right((sent, _)) => assert_eq!(sent, (Ok(()), Some(2))),
            Either::Left(_) => panic!("the mutex is held"),
        }
        drop(held);
        // The waiter that select has dropped left no trace.
        drop(mutex.try_lock().unwrap());
    });
}

#[test]
fn local_tasks_join_and_time_out() {
    with(|reactors| async move {
        let task = reactors.core(0).spawn_local_with("local", || async {
            let shared = std::rc::Rc::new(std::cell::Cell::new(0));
            let tasks: Vec<_> = (0..10)
                .map(|n| {
                    let shared = std::rc::Rc::clone(&shared);
                    spawn_local("adds", async move {
                        sleep(Duration::from_micros(10 * n)).await;
                        shared.set(shared.get() + 1);
                    })
                })
                .collect();
            let all = timeout(Duration::from_secs(10), join_all(tasks)).await.unwrap();
            assert!(all.into_iter().all(|one| one.is_ok()));
            shared.get()
        });
        assert_eq!(task.await, Ok(10));
    });
}
