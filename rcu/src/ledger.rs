//! The batches' numbers, and who waits for them.
//!
//! One short lock, held for a few stores by who closes a batch, ends one or waits for one; readers and
//! `call_rcu` never come here.

use crate::domain::DOMAIN;
use crate::home::Home;
use crate::tickets::Tickets;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct State {
    tickets: Tickets,
    /// Who is to be told when a batch is complete.
    waiting: Vec<(u64, Arc<Home>)>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    complete: AtomicU64,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every batch up to this number is complete: its callbacks have run.
    pub(crate) fn complete(&self) -> u64 {
        // Acquire pairs with the Release in `release`: the callbacks' effects are visible.
        self.complete.load(Ordering::Acquire)
    }

    /// See [`Tickets::close`].
    pub(crate) fn close(&self) -> u64 {
        self.lock().tickets.close()
    }

    /// `parts` more hold the batch.
    pub(crate) fn hold(&self, batch: u64, parts: usize) {
        self.lock().tickets.hold(batch, parts);
    }

    /// `callbacks` of the batch have run.
    pub(crate) fn count(&self, batch: u64, callbacks: usize) {
        self.lock().tickets.count(batch, callbacks);
    }

    /// One holder is done with the batch; the last one tells who waits.
    pub(crate) fn release(&self, batch: u64) {
        let mut state = self.lock();
        state.tickets.release(batch, |size| DOMAIN.stats.batch_complete(size));
        let complete = state.tickets.complete();
        // Release pairs with the Acquire in `complete`.
        self.complete.store(complete, Ordering::Release);
        let told: Vec<_> =
            state.waiting.extract_if(.., |(ticket, _)| *ticket <= complete).collect();
        drop(state);
        for (_, home) in told {
            home.drains.signal(complete);
        }
    }

    /// See [`Tickets::request`].
    pub(crate) fn request(&self) -> u64 {
        self.lock().tickets.request()
    }

    /// See [`Tickets::is_requested`].
    pub(crate) fn is_requested(&self) -> bool {
        self.lock().tickets.is_requested()
    }

    /// Asks for `home` to be signalled when batch `ticket` is complete. False where it is already.
    pub(crate) fn wait(&self, ticket: u64, home: &Arc<Home>) -> bool {
        let mut state = self.lock();
        if state.tickets.complete() >= ticket {
            return false;
        }
        let known =
            |(known, other): &(u64, Arc<Home>)| *known == ticket && Arc::ptr_eq(other, home);
        if !state.waiting.iter().any(known) {
            state.waiting.push((ticket, Arc::clone(home)));
        }
        true
    }

    /// Batches closed so far.
    pub(crate) fn closed(&self) -> u64 {
        self.lock().tickets.closed()
    }
}
