//! What RCU has done so far, for `query-rcu`.

use crate::domain::DOMAIN;
use reactor::{HISTOGRAM_BUCKETS, Histogram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A snapshot, all since the start of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Callbacks queued that have not run.
    pub pending: usize,
    /// Callbacks that have run.
    pub callbacks_run: u64,
    /// Callbacks that panicked (and count as run).
    pub panics: u64,
    /// Batches closed.
    pub batches: u64,
    /// Batches whose callbacks, and all before, have run.
    pub batches_complete: u64,
    /// Callbacks in each complete batch, by powers of two: bucket `n` counts sizes below `2^n` and not
    /// below `2^(n-1)`.
    pub batch_size: Histogram,
    /// The largest batch.
    pub batch_size_max: u64,
    /// From the closing of a batch to the end of its grace period, in nanoseconds.
    pub grace_period: Histogram,
    /// The longest grace period.
    pub grace_period_max: Duration,
    /// Times a grace period found a reader in its way and slept.
    pub sleeps: u64,
    /// `membarrier` system calls.
    pub membarriers: u64,
    /// Reports of readers that stayed longer than the limit.
    pub stalls: u64,
    /// Readers kicked through their force notifier.
    pub kicks: u64,
    /// Grace periods hurried because too many callbacks were pending.
    pub expedited: u64,
    /// Threads registered.
    pub threads: usize,
}

/// What RCU has done so far. Any thread; takes a short lock.
pub fn stats() -> Stats {
    let cells = &DOMAIN.stats;
    let get = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    // In this order, so that no batch is complete that is not closed.
    let batches_complete = DOMAIN.ledger.complete();
    Stats {
        pending: DOMAIN.pending.load(Ordering::Relaxed),
        callbacks_run: get(&cells.run),
        panics: get(&cells.panics),
        batches: DOMAIN.ledger.closed(),
        batches_complete,
        batch_size: cells.batch_size.snapshot(),
        batch_size_max: get(&cells.batch_size_max),
        grace_period: cells.grace_period.snapshot(),
        grace_period_max: Duration::from_nanos(get(&cells.grace_period_max_ns)),
        sleeps: get(&cells.sleeps),
        membarriers: get(&cells.membarriers),
        stalls: get(&cells.stalls),
        kicks: get(&cells.kicks),
        expedited: get(&cells.expedited),
        threads: DOMAIN.threads.count(),
    }
}

struct Buckets([AtomicU64; HISTOGRAM_BUCKETS]);

impl Buckets {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn record(&self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.0[bucket.min(HISTOGRAM_BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Histogram {
        Histogram(std::array::from_fn(|n| self.0[n].load(Ordering::Relaxed)))
    }
}

/// The counters: written a few times a batch, by whoever leads or runs callbacks.
pub(crate) struct Cells {
    pub(crate) run: AtomicU64,
    pub(crate) panics: AtomicU64,
    batch_size: Buckets,
    batch_size_max: AtomicU64,
    grace_period: Buckets,
    grace_period_max_ns: AtomicU64,
    pub(crate) sleeps: AtomicU64,
    pub(crate) membarriers: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) kicks: AtomicU64,
    pub(crate) expedited: AtomicU64,
}

impl Cells {
    pub(crate) fn new() -> Self {
        Self {
            run: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            batch_size: Buckets::new(),
            batch_size_max: AtomicU64::new(0),
            grace_period: Buckets::new(),
            grace_period_max_ns: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            membarriers: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            kicks: AtomicU64::new(0),
            expedited: AtomicU64::new(0),
        }
    }

    pub(crate) fn batch_complete(&self, callbacks: usize) {
        self.batch_size.record(callbacks as u64);
        self.batch_size_max.fetch_max(callbacks as u64, Ordering::Relaxed);
    }

    pub(crate) fn grace_period(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.grace_period.record(ns);
        self.grace_period_max_ns.fetch_max(ns, Ordering::Relaxed);
    }
}
