//! What a reusable bottom half has been asked to do.
//!
//! ```text
//!   QUEUED      an entry is in the context's queue; set by the sender who then queues it,
//!               cleared by the context when it takes the entry out
//!   SCHEDULED   the function is to run; set by `schedule`, taken back by `cancel`
//!   RETIRED     its owner is gone: it never runs again
//! ```
//!
//! One entry is in the queue at most, however often it is scheduled and cancelled.

use crate::primitive::{AtomicU32, Ordering};

const QUEUED: u32 = 1;
const SCHEDULED: u32 = 2;
const RETIRED: u32 = 4;

pub(crate) struct Flags(AtomicU32);

impl Flags {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// True when the caller has to queue the entry.
    pub(crate) fn schedule(&self) -> bool {
        // AcqRel pairs with `begin`: what the scheduler wrote before is visible to the function.
        self.0.fetch_or(QUEUED | SCHEDULED, Ordering::AcqRel) & QUEUED == 0
    }

    pub(crate) fn cancel(&self) {
        self.0.fetch_and(!SCHEDULED, Ordering::AcqRel);
    }

    pub(crate) fn retire(&self) {
        self.0.fetch_or(RETIRED, Ordering::AcqRel);
    }

    /// Called by the context with the entry in hand; true when the function is to run now.
    pub(crate) fn begin(&self) -> bool {
        // Both cleared first: scheduling from inside the function, or from elsewhere while it runs,
        // makes it run once more.
        let before = self.0.fetch_and(!(QUEUED | SCHEDULED), Ordering::AcqRel);
        before & SCHEDULED != 0 && before & RETIRED == 0
    }
}
