//! Timers: a tree in front of the one timeout that the loop's wait takes.

use crate::local;
use crate::mailbox::Shared;
use crate::work::HomeWork;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as PollContext, Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) type Key = (Instant, u64);

/// The timers of one context, by deadline. Same deadline: in the order they were set.
pub(crate) struct Timers {
    waiting: BTreeMap<Key, Waker>,
    next_id: u64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), next_id: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn insert(&mut self, deadline: Instant, waker: Waker) -> Key {
        let key = (deadline, self.next_id);
        self.next_id += 1;
        self.waiting.insert(key, waker);
        key
    }

    /// Whether the timer is set and wakes `waker`.
    fn is_set(&self, key: &Key, waker: &Waker) -> bool {
        self.waiting.get(key).is_some_and(|set| set.will_wake(waker))
    }

    /// Takes a timer out; the caller drops its waker without a borrow of the tree.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Waker> {
        self.waiting.remove(key)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes one timer that is due; the caller wakes it without a borrow of the tree.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        let entry = self.waiting.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(crate) fn clear(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

/// Waits until a moment; see [`sleep_until`]. Awaited on a reactor: elsewhere it panics.
#[must_use = "a timer does nothing unless it is awaited"]
pub struct Sleep {
    deadline: Instant,
    /// In which context it is set, and as what.
    armed: Option<(Arc<Shared>, Key)>,
}

impl Sleep {
    /// When it ends. Any thread; never blocks.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    fn disarm(&mut self) {
        let Some((home, key)) = self.armed.take() else { return };
        if local::is_current(&home) {
            let waker = local::with(|local| local.timers.borrow_mut().remove(&key));
            drop(waker);
        } else {
            home.send_home(HomeWork::Disarm(key));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// Off a reactor, unless the moment has come.
    fn poll(mut self: Pin<&mut Self>, cx: &mut PollContext<'_>) -> Poll<()> {
        // The turn's clock is never ahead, and has come up to the deadline when the loop wakes a timer.
        let now = local::try_with(|local| local.now.get()).unwrap_or_else(Instant::now);
        if now >= self.deadline {
            self.disarm();
            return Poll::Ready(());
        }
        let still_set = self.armed.as_ref().is_some_and(|(home, key)| {
            local::is_current(home)
                && local::with(|local| local.timers.borrow().is_set(key, cx.waker()))
        });
        if still_set {
            return Poll::Pending;
        }
        // Set anew: the waker is another, or the task has hopped.
        self.disarm();
        let (deadline, waker) = (self.deadline, cx.waker().clone());
        self.armed = Some(local::with(|local| {
            let key = local.timers.borrow_mut().insert(deadline, waker);
            (Arc::clone(&local.shared), key)
        }));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Waits until `deadline`. On a reactor only; dropping the future cancels the timer. A task that hops
/// takes its timers along.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, armed: None }
}

/// Waits for `duration` from now. On a reactor only; dropping the future cancels the timer.
pub fn sleep(duration: Duration) -> Sleep {
    let now = Instant::now();
    // A moment that the clock cannot express is as good as never.
    let never = Duration::from_secs(60 * 60 * 24 * 365 * 100);
    sleep_until(now.checked_add(duration).unwrap_or(now + never))
}

/// The time given to [`timeout`] was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has passed")
    }
}

impl std::error::Error for Elapsed {}

/// Awaits `future` for `limit` at most; drops it when the time is over, and with it what it held. Tasks
/// only: it panics off reactors. For
/// single operations [`io::within`](crate::io::within) gives their buffers back.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep(limit));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        timer.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

#[cfg(test)]
#[path = "timer_tests.rs"]
mod tests;
