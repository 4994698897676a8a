//! A first-come-first-served list of waiting futures, each of which is handed what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

/// The waiters of one primitive, guarded by that primitive's own lock. Wakers are woken and dropped by
/// the caller without that lock.
pub(super) struct Waiters {
    waiting: BTreeMap<u64, Waker>,
    /// Those that have been handed what they wait for and have not looked yet.
    granted: BTreeSet<u64>,
    next: u64,
}

/// A future's place in the list, if it has one.
#[derive(Default)]
pub(super) struct Ticket(Option<u64>);

impl Ticket {
    /// Whether the future is in the list, waiting or granted.
    pub(super) fn is_queued(&self) -> bool {
        self.0.is_some()
    }
}

/// What a future that gives up had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing, or a place in the list.
    Waiting,
    /// What it waited for: somebody else is to have it.
    Granted,
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self { waiting: BTreeMap::new(), granted: BTreeSet::new(), next: 0 }
    }

    /// Queues a waiter at the end, or renews the waker of one that is queued; a waker that it replaces is
    /// the caller's to drop.
    pub(super) fn wait(&mut self, ticket: &mut Ticket, waker: Waker) -> Option<Waker> {
        let id = *ticket.0.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.waiting.insert(id, waker)
    }

    /// Whether the waiter has been handed what it waits for; it takes that, once.
    pub(super) fn take_grant(&mut self, ticket: &mut Ticket) -> bool {
        let granted = ticket.0.is_some_and(|id| self.granted.remove(&id));
        if granted {
            ticket.0 = None;
        }
        granted
    }

    /// Takes a waiter out that gives up.
    pub(super) fn leave(&mut self, ticket: &mut Ticket) -> (Left, Option<Waker>) {
        let Some(id) = ticket.0.take() else { return (Left::Waiting, None) };
        if self.granted.remove(&id) {
            return (Left::Granted, None);
        }
        (Left::Waiting, self.waiting.remove(&id))
    }

    /// Hands it to the one that has waited longest.
    pub(super) fn grant(&mut self) -> Option<Waker> {
        let (id, waker) = self.waiting.pop_first()?;
        self.granted.insert(id);
        Some(waker)
    }

    /// Takes everybody out, who will find out why.
    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}
