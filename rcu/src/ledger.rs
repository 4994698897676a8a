//! The batches: numbered when they are closed, complete in that order.
//!
//! One short lock, held for a few stores by who closes a batch, ends one or waits for one; readers and
//! `call_rcu` never come here.

use crate::domain::DOMAIN;
use crate::home::Home;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A batch that was closed and is not complete.
#[derive(Default)]
struct InFlight {
    /// Parts that have callbacks left, and the leader until it has sent them all.
    holds: usize,
    callbacks: usize,
}

#[derive(Default)]
struct State {
    /// The number of the last batch closed.
    closed: u64,
    /// The last batch that somebody has asked to be closed.
    requested: u64,
    /// Those after the last complete one, in order.
    in_flight: VecDeque<InFlight>,
    /// Who is to be told when a batch is complete.
    waiting: Vec<(u64, Arc<Home>)>,
}

impl State {
    fn complete(&self) -> u64 {
        self.closed - self.in_flight.len() as u64
    }

    fn batch(&mut self, number: u64) -> &mut InFlight {
        let index = (number - self.complete() - 1) as usize;
        self.in_flight.get_mut(index).expect("a batch is in flight while somebody holds it")
    }
}

pub(crate) struct Ledger {
    state: Mutex<State>,
    complete: AtomicU64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), complete: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every batch up to this number is complete: its callbacks have run.
    pub(crate) fn complete(&self) -> u64 {
        // Acquire pairs with the Release in `release`: the callbacks' effects are visible.
        self.complete.load(Ordering::Acquire)
    }

    /// Closes a batch, before its callbacks are taken from their queues, and holds it. Leader only.
    pub(crate) fn close(&self) -> u64 {
        let mut state = self.lock();
        state.closed += 1;
        state.in_flight.push_back(InFlight { holds: 1, callbacks: 0 });
        state.closed
    }

    /// `parts` more hold the batch.
    pub(crate) fn hold(&self, batch: u64, parts: usize) {
        self.lock().batch(batch).holds += parts;
    }

    /// `callbacks` of the batch have run.
    pub(crate) fn count(&self, batch: u64, callbacks: usize) {
        self.lock().batch(batch).callbacks += callbacks;
    }

    /// One holder is done with the batch; the last one tells who waits.
    pub(crate) fn release(&self, batch: u64) {
        let mut state = self.lock();
        state.batch(batch).holds -= 1;
        while let Some(first) = state.in_flight.front()
            && first.holds == 0
        {
            DOMAIN.stats.batch_complete(first.callbacks);
            state.in_flight.pop_front();
        }
        let complete = state.complete();
        // Release pairs with the Acquire in `complete`.
        self.complete.store(complete, Ordering::Release);
        let told: Vec<_> =
            state.waiting.extract_if(.., |(ticket, _)| *ticket <= complete).collect();
        drop(state);
        for (_, home) in told {
            home.drains.signal(complete);
        }
    }

    /// The batch that will have run everything queued so far, and whether the caller has to queue
    /// something to make sure that it is closed.
    pub(crate) fn request(&self) -> (u64, bool) {
        let mut state = self.lock();
        let ticket = state.closed + 1;
        let first = state.requested < ticket;
        state.requested = ticket;
        (ticket, first)
    }

    /// Asks for `home` to be signalled when batch `ticket` is complete. False where it is already.
    pub(crate) fn wait(&self, ticket: u64, home: &Arc<Home>) -> bool {
        let mut state = self.lock();
        if state.complete() >= ticket {
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
        self.lock().closed
    }
}
