//! A counting semaphore.

use super::waiters::Waiters;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct State {
    permits: usize,
    waiters: Waiters,
}

/// A number of permits; who finds none waits, first come, first served among those that wait.
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
        let mut wait = Wait { semaphore: self, ticket: None };
        std::future::poll_fn(|cx| wait.poll(cx.waker())).await;
        Permit { semaphore: self }
    }

    /// Adds a permit. Any thread.
    pub fn release(&self) {
        let waker = {
            let mut state = self.lock();
            state.permits += 1;
            state.waiters.pop()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct Wait<'a> {
    semaphore: &'a Semaphore,
    ticket: Option<u64>,
}

impl Wait<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let mut state = self.semaphore.lock();
        if let Some(left) = state.permits.checked_sub(1) {
            state.permits = left;
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
            let mut state = self.semaphore.lock();
            // Woken but gone: the wake-up belongs to the next one.
            let woken = !state.waiters.leave(&mut self.ticket);
            if woken && state.permits > 0 { state.waiters.pop() } else { None }
        };
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
