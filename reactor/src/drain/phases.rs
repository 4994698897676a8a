//! Counting what is in flight so that a drain waits for what began before it, and for nothing later.
//!
//! As in sleepable RCU: two counters, one of which takes what begins now. A drain waits until the other
//! is zero (late comers of an earlier drain), turns the phase, and waits for the one that was current.
//! What begins meanwhile counts in the other and cannot keep the drain waiting.

use crate::primitive::{AtomicBool, AtomicUsize, Ordering, fence};

pub(crate) struct Phases {
    current: AtomicUsize,
    counts: [AtomicUsize; 2],
    /// A drain waits for a counter to become zero.
    awaited: AtomicBool,
}

impl Phases {
    pub(crate) fn new() -> Self {
        Self {
            current: AtomicUsize::new(0),
            counts: [AtomicUsize::new(0), AtomicUsize::new(0)],
            awaited: AtomicBool::new(false),
        }
    }

    /// Something begins; the phase has to be given to [`end`](Self::end). Any thread.
    pub(crate) fn begin(&self) -> usize {
        let phase = self.current.load(Ordering::Relaxed);
        self.counts[phase].fetch_add(1, Ordering::Relaxed);
        phase
    }

    /// It has ended; true when somebody may wait for that and has to be told. Any thread.
    pub(crate) fn end(&self, phase: usize) -> bool {
        // Release pairs with the Acquire in `is_idle`: who drained sees what was done.
        if self.counts[phase].fetch_sub(1, Ordering::Release) != 1 {
            return false;
        }
        // Pairs with the fence in `wait`.
        fence(Ordering::SeqCst);
        self.awaited.load(Ordering::Relaxed)
    }

    /// The phase that counts what begins now. The drain only.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Makes the other phase the current one. The drain only.
    pub(crate) fn turn(&self) {
        self.current.store(1 - self.current(), Ordering::Relaxed);
    }

    /// From now on ends are told, until [`done`](Self::done). The drain only; before `is_idle`.
    pub(crate) fn wait(&self) {
        self.awaited.store(true, Ordering::Relaxed);
        // Pairs with the fence in `end`: of an end and a drain at the same time one sees the other.
        fence(Ordering::SeqCst);
    }

    /// The drain is over.
    pub(crate) fn done(&self) {
        self.awaited.store(false, Ordering::Relaxed);
    }

    /// Whether nothing is in flight that began in `phase`.
    pub(crate) fn is_idle(&self, phase: usize) -> bool {
        self.counts[phase].load(Ordering::Acquire) == 0
    }

    /// How much is in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}
