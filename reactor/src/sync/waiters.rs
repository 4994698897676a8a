//! A first-come-first-served list of waiting futures.

use std::collections::BTreeMap;
use std::task::Waker;

/// The waiters of one primitive, guarded by that primitive's own lock.
pub(super) struct Waiters {
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }

    /// Queues a waiter, or renews the waker of one that is queued under `ticket`. A renewed waiter
    /// that has been taken out queues again at its old place.
    pub(super) fn wait(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
        let id = *ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.waiting.insert(id, waker.clone());
    }

    /// Takes a waiter out. True when it was still queued, so that it has not been woken.
    pub(super) fn leave(&mut self, ticket: &mut Option<u64>) -> bool {
        ticket.take().is_some_and(|id| self.waiting.remove(&id).is_some())
    }

    /// Takes the one that has waited longest; the caller wakes it without the lock.
    pub(super) fn pop(&mut self) -> Option<Waker> {
        self.waiting.pop_first().map(|(_, waker)| waker)
    }

    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}
