//! Telling tasks that something has changed.

use super::waiters::Waiters;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct State {
    /// A notification that nobody has taken yet.
    stored: bool,
    /// Counts `notify_all`; a waiter that began before is released by it.
    epoch: u64,
    waiters: Waiters,
}

/// One stored notification: [`notify_one`](Notify::notify_one) before
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

    /// Releases one waiter, or the next one to come. Any thread; never blocks.
    pub fn notify_one(&self) {
        let waker = {
            let mut state = self.lock();
            state.stored = true;
            state.waiters.pop()
        };
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

    /// Waits for a notification; those of [`notify_all`](Self::notify_all) count from this call on.
    pub fn notified(&self) -> impl Future<Output = ()> + Send + '_ {
        let epoch = self.lock().epoch;
        let mut wait = Wait { notify: self, ticket: None, epoch };
        std::future::poll_fn(move |cx| wait.poll(cx.waker()))
    }
}

struct Wait<'a> {
    notify: &'a Notify,
    ticket: Option<u64>,
    epoch: u64,
}

impl Wait<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let mut state = self.notify.lock();
        if state.epoch != self.epoch {
            state.waiters.leave(&mut self.ticket);
            return Poll::Ready(());
        }
        if state.stored {
            state.stored = false;
            state.waiters.leave(&mut self.ticket);
            return Poll::Ready(());
        }
        state.waiters.wait(&mut self.ticket, waker);
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.ticket.is_none() {
            return;
        }
        let next = {
            let mut state = self.notify.lock();
            // Woken but gone: the stored notification is for the next one.
            let woken = !state.waiters.leave(&mut self.ticket);
            if woken && state.stored { state.waiters.pop() } else { None }
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}
