//! Deferring work, and waiting for it.

use crate::domain::DOMAIN;
use crate::drains::Drains;
use crate::home::{Home, with_home};
use crate::local::is_pinned;
use crate::worker;
use futures_util::task::AtomicWaker;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Runs `f` once every read-side section that is open now has ended. Any thread; never blocks.
///
/// Called on a reactor, `f` runs in that context, in a task named `rcu`; called on any other thread, it runs
/// on the thread `rcu`, so never on a vCPU thread or inside somebody's read. Callbacks of one context run in
/// the order they were queued. `f` may queue callbacks itself; on a reactor it must not block. When
/// a context stops before its callbacks have run, the thread `rcu` runs them.
///
/// A panic of `f` is reported and ends there.
pub fn call_rcu(f: impl FnOnce() + Send + 'static) {
    with_home(|home| DOMAIN.queue(home, f));
}

/// Resolves when every callback queued before its first poll, by anyone, has run
/// (QEMU's `drain_call_rcu`, as a coroutine). At once where nothing is pending. Awaited in any context;
/// blocks no thread.
///
/// All who wait in one context share one eventfd, which is read through the context's ring; it can
/// also be awaited off reactors. Dropping the future has no effect on anything else.
///
/// A task must not hold a [`Guard`](crate::Guard) while it waits: the compiler refuses that in a task that may hop.
pub async fn drain_call_rcu_co() {
    if let Some(drained) = Drained::of_everything_queued() {
        drained.await;
    }
}

/// Resolves when every read-side section that was open at its first poll has ended. Awaited in any context
/// and off reactors; blocks no thread.
pub async fn synchronize_rcu_co() {
    let passed = Arc::new((AtomicBool::new(false), AtomicWaker::new()));
    let signal = Arc::clone(&passed);
    call_rcu(move || {
        // Release pairs with the Acquire below.
        signal.0.store(true, Ordering::Release);
        signal.1.wake();
    });
    std::future::poll_fn(|cx| {
        passed.1.register(cx.waker());
        if passed.0.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Resolves when no more callbacks are pending than the bound allows
/// ([`set_pending_max`](crate::set_pending_max)): to be awaited by who can make garbage without limit
/// on somebody else's orders, as hot-plug commands do. Awaited in any context and off reactors.
pub async fn throttle_call_rcu_co() {
    while DOMAIN.is_crowded() {
        drain_call_rcu_co().await;
    }
}

/// Blocks until every callback queued before the call, by anyone, has run. For threads outside reactors
/// only; tasks have [`drain_call_rcu_co`].
///
/// # Panics
/// On a reactor, inside a read-side section and in a callback: each would wait for itself.
#[track_caller]
pub fn drain_call_rcu() {
    assert_may_block();
    let Some(drained) = Drained::of_everything_queued() else { return };
    let mut drained = pin!(drained);
    let waker = worker::unpark_waker();
    let mut cx = Context::from_waker(&waker);
    while drained.as_mut().poll(&mut cx).is_pending() {
        std::thread::park();
    }
}

/// As [`throttle_call_rcu_co`], for threads outside reactors: blocks while too many callbacks are pending. To be called by a
/// vCPU thread that publishes on its guest's orders, once its section has ended.
///
/// # Panics
/// As [`drain_call_rcu`].
#[track_caller]
pub fn throttle_call_rcu() {
    assert_may_block();
    while DOMAIN.is_crowded() {
        drain_call_rcu();
    }
}

#[track_caller]
fn assert_may_block() {
    assert!(
        !reactor::on_reactor(),
        "waiting for RCU callbacks blocks: on a reactor, await the function whose name ends in _co"
    );
    assert!(!is_pinned(), "waiting for RCU callbacks inside a read-side section would never end");
    assert!(!worker::is_current_thread(), "waiting for RCU callbacks in one would never end");
}

/// Waits for a batch to be complete.
struct Drained {
    ticket: u64,
    /// Where it waits, and its place there.
    place: Option<(Arc<Home>, usize)>,
}

impl Drained {
    /// `None` where nothing is pending.
    fn of_everything_queued() -> Option<Self> {
        // SeqCst, as the addition in `Domain::queue`: what the caller knows to be queued is counted.
        if DOMAIN.pending.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let ticket = with_home(|home| DOMAIN.request(home));
        Some(Self { ticket, place: None })
    }
}

impl Future for Drained {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ticket = self.ticket;
        if DOMAIN.ledger.complete() >= ticket {
            return Poll::Ready(());
        }
        let (home, key) = self.place.get_or_insert_with(|| {
            with_home(|home| {
                Drains::listen(home);
                (Arc::clone(home), home.drains.add(ticket))
            })
        });
        // First the waker, then the question: a batch that completes in between wakes it.
        home.drains.set(*key, cx.waker());
        if DOMAIN.ledger.wait(ticket, home) { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if let Some((home, key)) = self.place.take() {
            home.drains.remove(key);
        }
    }
}
