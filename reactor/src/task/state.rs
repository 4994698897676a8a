//! The scheduling state of a task and the context that is its home.
//!
//! ```text
//!            wake                 turn                    Ready
//!   idle ──────────▶ SCHEDULED ────────▶ RUNNING ─────────────────▶ DONE
//!    ▲                   ▲                  │  │
//!    │                   └── woken or hopped ┘  │ Pending
//!    └──────────────────────────────────────────┘
//! ```
//!
//! SCHEDULED is set by exactly one waker at a time, who then queues the task at its home. The home
//! changes only while the task is RUNNING, on the thread that runs it, before SCHEDULED is given
//! to the new home's queue; so whoever set SCHEDULED on an idle task reads a home that stays.

use crate::primitive::{AtomicU32, AtomicUsize, Ordering};

const SCHEDULED: u32 = 1;
const RUNNING: u32 = 2;
const DONE: u32 = 4;
const CANCELLED: u32 = 8;

pub(crate) struct TaskState {
    bits: AtomicU32,
    home: AtomicUsize,
}

impl TaskState {
    pub(crate) fn new(home: usize) -> Self {
        Self { bits: AtomicU32::new(0), home: AtomicUsize::new(home) }
    }

    /// The context that it runs in. Exact on that context's thread; elsewhere only where the caller
    /// has just scheduled the task.
    pub(crate) fn home(&self) -> usize {
        self.home.load(Ordering::Relaxed)
    }

    /// Wakes the task; `Some(home)` when the caller has to queue it there. Any thread.
    pub(crate) fn wake(&self) -> Option<usize> {
        // AcqRel: what the waker wrote before is visible to the poll that follows (`begin`), and the
        // home that the last run left (`pause`) is visible here.
        let before = self.bits.fetch_or(SCHEDULED, Ordering::AcqRel);
        (before & (SCHEDULED | RUNNING | DONE) == 0).then(|| self.home())
    }

    /// As [`wake`](Self::wake), and the next turn drops the future instead of polling it.
    pub(crate) fn cancel(&self) -> Option<usize> {
        // Release pairs with the Acquire in `begin`.
        self.bits.fetch_or(CANCELLED, Ordering::Release);
        self.wake()
    }

    /// Called by the home with the task taken out of its queue; false where it has been cancelled.
    pub(crate) fn begin(&self) -> bool {
        // SCHEDULED off and RUNNING on in one step: a wake-up from now on counts again.
        let before = self.bits.fetch_xor(SCHEDULED | RUNNING, Ordering::AcqRel);
        debug_assert_eq!(before & (SCHEDULED | RUNNING), SCHEDULED, "a queued task is SCHEDULED");
        before & CANCELLED == 0
    }

    /// Ends a run that was not the last; true when the task was woken meanwhile, so that the caller
    /// has to queue it at home again.
    pub(crate) fn pause(&self) -> bool {
        self.bits.fetch_and(!RUNNING, Ordering::AcqRel) & SCHEDULED != 0
    }

    /// Ends a run by moving to another home; the caller queues the task there.
    pub(crate) fn depart(&self, target: usize) {
        self.home.store(target, Ordering::Relaxed);
        // First SCHEDULED, then RUNNING off: no waker can slip in between and queue it twice.
        self.bits.fetch_or(SCHEDULED, Ordering::AcqRel);
        self.bits.fetch_and(!RUNNING, Ordering::AcqRel);
    }

    /// The future has ended: nobody queues or polls the task from now on.
    pub(crate) fn finish(&self) {
        self.bits.fetch_or(DONE, Ordering::AcqRel);
    }

    /// Takes a task that no loop will run again; true for the first who asks.
    pub(crate) fn seize(&self) -> bool {
        self.bits.fetch_or(DONE | RUNNING, Ordering::AcqRel) & DONE == 0
    }
}
