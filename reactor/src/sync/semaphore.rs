//! A counting semaphore.

use super::waiters::{Left, Ticket, Waiters};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct State {
    /// Free permits; while there are any nobody waits.
    permits: usize,
    waiters: Waiters,
}

impl State {
    /// Hands a permit to the one that has waited longest, or keeps it.
    fn put_back(&mut self) -> Option<Waker> {
        let waker = self.waiters.grant();
        if waker.is_none() {
            self.permits += 1;
        }
        waker
    }
}

/// A number of permits; who finds none waits. First come, first served: a permit that is given back goes
/// to the one that has waited longest, and nobody can be kept out for ever.
pub struct Semaphore {
    state: Mutex<State>,
}

impl Semaphore {
    /// A semaphore with `permits` free permits.
    pub const fn new(permits: usize) -> Self {
        Self { state: Mutex::new(State { permits, waiters: Waiters::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free permits at this moment.
    pub fn available(&self) -> usize {
        self.lock().permits
    }

    /// Takes a permit if one is free. Any thread.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        let mut state = self.lock();
        state.permits = state.permits.checked_sub(1)?;
        Some(Permit { semaphore: self })
    }

    /// Waits for a permit.
    pub async fn acquire(&self) -> Permit<'_> {
        if let Some(permit) = self.try_acquire() {
            return permit;
        }
        let mut wait = Wait { semaphore: self, ticket: Ticket::default() };
        std::future::poll_fn(|cx| wait.poll(cx.waker())).await;
        Permit { semaphore: self }
    }

    /// Adds a permit. Any thread; never blocks.
    pub fn release(&self) {
        let waker = self.lock().put_back();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Wait<'a> {
    semaphore: &'a Semaphore,
    ticket: Ticket,
}

impl Wait<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        // Cloned without the lock: a waker may come from anywhere.
        let waker = waker.clone();
        let mut state = self.semaphore.lock();
        if state.waiters.take_grant(&mut self.ticket) {
            return Poll::Ready(());
        }
        if !self.ticket.is_queued()
            && let Some(left) = state.permits.checked_sub(1)
        {
            state.permits = left;
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
        let mut state = self.semaphore.lock();
        let (left, mine) = state.waiters.leave(&mut self.ticket);
        let next = if left == Left::Granted { state.put_back() } else { None };
        drop(state);
        drop(mine);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// A permit; given back when dropped.
#[must_use = "dropping the permit gives it back"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
}

impl Permit<'_> {
    /// Keeps the permit for good: [`Semaphore::release`] gives it back.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.release();
    }
}
