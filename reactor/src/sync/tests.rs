use super::{Mutex, Notify, Semaphore, TrySendError, bounded, oneshot};
use crate::{Config, Reactors, hop, run, yield_now};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

fn with<F, Fut, T>(root: F) -> T
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    run(Config::from_affinity().unwrap(), root).unwrap()
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn mutex_excludes_across_contexts_and_hops() {
    with(|reactors| async move {
        let mutex = Arc::new(Mutex::new((0u32, false)));
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                let (mutex, reactors) = (Arc::clone(&mutex), reactors.clone());
                reactors.clone().core(n).spawn("adder", async move {
                    for _ in 0..20 {
                        let mut guard = mutex.lock().await;
                        assert!(!guard.1, "two holders");
                        guard.1 = true;
                        hop(reactors.core(n + 1)).await;
                        guard.0 += 1;
                        guard.1 = false;
                        drop(guard);
                        hop(reactors.core(n)).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(mutex.try_lock().unwrap().0, 800);
    });
}

#[test]
fn dropped_waiter_passes_its_turn_on() {
    let semaphore = Semaphore::new(1);
    let held = semaphore.try_acquire().unwrap();
    let mut first = Box::pin(semaphore.acquire());
    let mut second = Box::pin(semaphore.acquire());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(held);
    // `first` was woken and is dropped without taking the permit.
    drop(first);
    assert!(poll_once(second.as_mut()).is_ready());
}

#[test]
fn notify_one_before_waiting_is_kept_once() {
    let notify = Notify::new();
    notify.notify_one();
    notify.notify_one();
    assert!(poll_once(pin!(notify.notified())).is_ready());
    assert!(poll_once(pin!(notify.notified())).is_pending());
}

#[test]
fn notify_all_releases_those_that_have_begun_to_wait() {
    let notify = Notify::new();
    let (mut a, mut b) = (Box::pin(notify.notified()), Box::pin(notify.notified()));
    assert!(poll_once(a.as_mut()).is_pending());
    notify.notify_all();
    assert!(poll_once(a.as_mut()).is_ready());
    // Begun before, first polled after.
    assert!(poll_once(b.as_mut()).is_ready());
    assert!(poll_once(pin!(notify.notified())).is_pending());
}

#[test]
fn oneshot_tells_when_the_other_side_is_gone() {
    let (sender, receiver) = oneshot::channel::<u32>();
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(1), Err(1));
    let (sender, receiver) = oneshot::channel::<u32>();
    drop(sender);
    assert_eq!(poll_once(pin!(receiver)), Poll::Ready(Err(oneshot::Closed)));
}

#[test]
fn channel_carries_everything_from_many_senders() {
    with(|reactors| async move {
        let (sender, mut receiver) = bounded(3);
        let count = Arc::new(AtomicUsize::new(0));
        for n in 0..8usize {
            let (sender, count) = (sender.clone(), Arc::clone(&count));
            reactors
                .core(n)
                .spawn("sender", async move {
                    for m in 0..100 {
                        sender.send(n * 100 + m).await.unwrap();
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .detach();
        }
        drop(sender);
        let mut got = Vec::new();
        while let Some(value) = receiver.recv().await {
            got.push(value);
            if value % 7 == 0 {
                yield_now().await;
            }
        }
        // One sender's values arrive in its order.
        for n in 0..8 {
            let of_n: Vec<_> = got.iter().filter(|v| **v / 100 == n).copied().collect();
            assert_eq!(of_n, (n * 100..n * 100 + 100).collect::<Vec<_>>());
        }
        assert_eq!(count.load(Ordering::Relaxed), 800);
    });
}

#[test]
fn senders_learn_that_the_receiver_is_gone() {
    let (sender, receiver) = bounded(1);
    sender.try_send(1).unwrap();
    let mut blocked = Box::pin(sender.send(2));
    assert!(poll_once(blocked.as_mut()).is_pending());
    drop(receiver);
    assert!(matches!(poll_once(blocked.as_mut()), Poll::Ready(Err(e)) if e.0 == 2));
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
}
