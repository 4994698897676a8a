//! Grace periods and what runs after them: one thread takes what is queued, waits one grace period for
//! all of it and runs it in order.

use crate::local::{is_pinned, with_local};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};

type Callback = Box<dyn FnOnce() + Send>;

static QUEUE: LazyLock<mpsc::Sender<Callback>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("rcu".into())
        .spawn(move || reclaim(&receiver))
        .expect("the process can start one more thread");
    sender
});

static PASSED: AtomicU64 = AtomicU64::new(0);

fn reclaim(receiver: &mpsc::Receiver<Callback>) {
    let mut period = 0;
    while let Ok(first) = receiver.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
        period += 1;
        let _ = with_local(|local| local.defer(move || PASSED.store(period, Ordering::Release)));
        while PASSED.load(Ordering::Acquire) < period {
            let _ = with_local(super::local::Local::advance);
            std::thread::yield_now();
        }
        for callback in batch {
            callback();
        }
    }
}

/// Runs `f` when every read-side section that is open now has ended. Any thread; never blocks.
///
/// The function may itself queue callbacks. It must not wait for a grace period.
pub fn call_rcu(f: impl FnOnce() + Send + 'static) {
    // The receiver lives as long as the process.
    let _ = QUEUE.send(Box::new(f));
}

#[derive(Default)]
struct Passed(Mutex<(bool, Option<Waker>)>);

struct Drained(Arc<Passed>);

impl Drained {
    fn begin() -> Self {
        let passed = Arc::new(Passed::default());
        let marker = Arc::clone(&passed);
        call_rcu(move || {
            let mut state = marker.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            if let Some(waker) = state.1.take() {
                waker.wake();
            }
        });
        Self(passed)
    }
}

impl Future for Drained {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Resolves when every callback queued before the call, by anyone, has run.
pub async fn drain_call_rcu_co() {
    Drained::begin().await;
}

/// Resolves when every read-side section that is open now has ended.
pub async fn synchronize_rcu_co() {
    Drained::begin().await;
}

/// Blocks until every callback queued before the call, by anyone, has run. For threads outside reactors.
///
/// # Panics
/// Inside a read-side section, which could then never end.
#[track_caller]
pub fn drain_call_rcu() {
    assert!(!is_pinned(), "drain_call_rcu() inside a read-side section would wait for itself");
    let (done, drained) = mpsc::channel();
    call_rcu(move || {
        let _ = done.send(());
    });
    let _ = drained.recv();
}

#[cfg(test)]
mod tests {
    use super::{call_rcu, drain_call_rcu};
    use crate::{RcuCell, is_pinned, read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_callback_waits_for_the_section_that_was_open() {
        let cell = Arc::new(RcuCell::new(1));
        let ran = Arc::new(AtomicBool::new(false));
        let guard = read();
        let old = cell.read(&guard);
        cell.publish(2);
        let flag = Arc::clone(&ran);
        call_rcu(move || flag.store(true, Ordering::SeqCst));
        assert_eq!((*old, *cell.read(&guard)), (1, 2));
        assert!(is_pinned() && !ran.load(Ordering::SeqCst));
        drop(guard);
        assert!(!is_pinned());
        drain_call_rcu();
        assert!(ran.load(Ordering::SeqCst));
    }
}
