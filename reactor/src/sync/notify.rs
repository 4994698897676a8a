//! Telling tasks that something has changed.

use super::waiters::{Left, Ticket, Waiters};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct State {
    /// A notification that nobody has taken yet; while there is one nobody waits.
    stored: bool,
    /// Counts `notify_all`; a waiter that began before is released by it.
    epoch: u64,
    waiters: Waiters,
}

impl State {
    fn notify_one(&mut self) -> Option<Waker> {
        let waker = self.waiters.grant();
        self.stored |= waker.is_none();
        waker
    }
}

/// Releases waiters, one or all. One notification is stored: [`notify_one`](Notify::notify_one) before
/// [`notified`](Notify::notified) is not lost, two before are one.
pub struct Notify {
    state: Mutex<State>,
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

impl Notify {
    /// Nothing notified, nobody waiting.
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { stored: false, epoch: 0, waiters: Waiters::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the one that has waited longest, or the next one to come. Any thread; never blocks.
    pub fn notify_one(&self) {
        let waker = self.lock().notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Releases everybody who waits now, and stores nothing. Any thread; never blocks.
    pub fn notify_all(&self) {
        let wakers = {
            let mut state = self.lock();
            state.epoch += 1;
            state.waiters.take_all()
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// Waits for a notification; those of [`notify_all`](Self::notify_all) count from this call on. A
    /// future dropped after it was released by `notify_one` passes that on.
    pub fn notified(&self) -> impl Future<Output = ()> + Send + '_ {
        let epoch = self.lock().epoch;
        let mut wait = Wait { notify: self, ticket: Ticket::default(), epoch };
        std::future::poll_fn(move |cx| wait.poll(cx.waker()))
    }
}

struct Wait<'a> {
    notify: &'a Notify,
    ticket: Ticket,
    epoch: u64,
}

impl Wait<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        // Cloned without the lock: a waker may come from anywhere.
        let waker = waker.clone();
        let mut state = self.notify.lock();
        if state.waiters.take_grant(&mut self.ticket) {
            return Poll::Ready(());
        }
        if state.epoch != self.epoch {
            let (_, stale) = state.waiters.leave(&mut self.ticket);
            drop(state);
            drop(stale);
            return Poll::Ready(());
        }
        if state.stored {
            state.stored = false;
            return Poll::Ready(());
        }
        let stale = state.waiters.wait(&mut self.ticket, waker);
        drop(state);
        drop(stale);
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.ticket.is_queued() {
            return;
        }
        let mut state = self.notify.lock();
        let (left, mine) = state.waiters.leave(&mut self.ticket);
        let next = if left == Left::Granted { state.notify_one() } else { None };
        drop(state);
        drop(mine);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}
