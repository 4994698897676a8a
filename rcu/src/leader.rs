//! Leading: closing a batch, waiting one grace period for it, sending its parts home.

use crate::callback::Chain;
use crate::domain::DOMAIN;
use crate::grace::{Grace, Wait};
use crate::home::{Home, Mail};
use crate::part::Part;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// Callbacks taken from every queue, that wait for their grace period.
struct Batch {
    number: u64,
    parts: Vec<(Arc<Home>, Chain)>,
}

impl Batch {
    /// Takes what every home has queued.
    fn close() -> Self {
        // First the number, then the queues: a drain that was told a later number must not find
        // its callbacks left out of this one (`Ledger::request`).
        let number = DOMAIN.ledger.close();
        let mut parts = Vec::new();
        DOMAIN.active.take(|home| {
            let chain = home.queue.take();
            parts.push((home, chain));
        });
        let chain = DOMAIN.shared.queue.take();
        if !chain.is_empty() {
            parts.push((Arc::clone(&DOMAIN.shared), chain));
        }
        DOMAIN.ledger.hold(number, parts.len());
        Self { number, parts }
    }
}

/// What the leader's thread has to do next.
pub(crate) enum Step {
    /// These callbacks belong to the leader's own home; the others have been sent on their way.
    Passed(Option<Part>),
    /// Come back after letting others run.
    Again,
    /// Come back when woken, or at this time.
    Wait(Instant),
}

/// The right, and the duty, to drive the grace periods: there is one in the process while anything
/// is queued. Dropped by a context that stops, it goes to the shared home's thread.
pub(crate) struct Leadership {
    /// The batch, and its grace period once that has begun.
    under_way: Option<(Batch, Option<Grace>)>,
    resigned: bool,
}

impl Leadership {
    /// For the one whose `claim` succeeded.
    pub(crate) fn new() -> Self {
        Self { under_way: None, resigned: false }
    }

    /// Goes on with the batch, or closes a new one.
    pub(crate) fn step(&mut self, own: &Arc<Home>, waker: &Waker) -> Step {
        let (batch, grace) = self.under_way.get_or_insert_with(|| (Batch::close(), None));
        // An empty batch, which somebody asked for to wait for those before it, needs no grace period.
        if !batch.parts.is_empty() {
            match grace.get_or_insert_with(Grace::begin).poll(waker) {
                Wait::Again => return Step::Again,
                Wait::Until(at) => return Step::Wait(at),
                Wait::Over => {}
            }
        }
        let Some((batch, _)) = self.under_way.take() else { return Step::Again };
        let mut mine = None;
        for (home, chain) in batch.parts {
            let part = Part::new(batch.number, chain);
            if Arc::ptr_eq(&home, own) {
                mine = Some(part);
            } else {
                home.send(part.into());
            }
        }
        DOMAIN.ledger.release(batch.number);
        Step::Passed(mine)
    }

    /// After a batch: goes on leading where `own` has queued more, hands over where only others have,
    /// resigns where nobody has. Returns the leadership if it stays.
    pub(crate) fn go_on(mut self, own: &Home) -> Option<Self> {
        if !own.queue.is_empty() || DOMAIN.ledger.is_requested() {
            return Some(self);
        }
        if let Some(home) = DOMAIN.active.newest() {
            home.send(self.into());
            return None;
        }
        if !DOMAIN.shared.queue.is_empty() {
            DOMAIN.shared.send(self.into());
            return None;
        }
        if DOMAIN.seat.resign(|| DOMAIN.has_work()) {
            return Some(self);
        }
        self.resigned = true;
        None
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        if !self.resigned {
            let heir = Self { under_way: self.under_way.take(), resigned: false };
            DOMAIN.shared.send(Mail::Lead(heir));
        }
    }
}
