//! What a back end has done: counted by each queue on its own core, added up when asked for.

use super::histogram::{Histogram, QueueHistograms, Shapes};
use crate::block::Request;
use rcu::RcuCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Kinds of requests, as statistics tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes, of zeroes too.
    Write,
    /// Flushes.
    Flush,
    /// Discards.
    Unmap,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Unmap];

    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Read { .. } => Self::Read,
            Request::Write { .. } | Request::WriteZeroes { .. } => Self::Write,
            Request::Flush => Self::Flush,
            Request::Discard { .. } => Self::Unmap,
        }
    }
}

/// The counters of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Requests that succeeded.
    pub operations: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Bytes of those that succeeded.
    pub bytes: u64,
    /// Time that they took, in nanoseconds.
    pub total_ns: u64,
}

/// The counters of a back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By [`Kind`].
    pub kinds: [KindStats; 4],
    /// The end of the write that reached furthest.
    pub highest_write: u64,
    /// Requests in flight at this moment.
    pub in_flight: u64,
}

impl Stats {
    /// The counters of one kind.
    pub fn kind(&self, kind: Kind) -> KindStats {
        self.kinds[kind as usize]
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (all, one) in self.kinds.iter_mut().zip(other.kinds) {
            all.operations += one.operations;
            all.failed += one.failed;
            all.bytes += one.bytes;
            all.total_ns += one.total_ns;
        }
        self.highest_write = self.highest_write.max(other.highest_write);
        self.in_flight += other.in_flight;
    }
}

/// A counter that one thread writes and any thread reads.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        // A single writer: nothing is lost between the two.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn raise(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).max(n), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct KindCounters {
    operations: Counter,
    failed: Counter,
    bytes: Counter,
    total_ns: Counter,
}

/// The counters of one queue, on cache lines of their own.
#[repr(align(128))]
pub(super) struct QueueStats {
    kinds: [KindCounters; 4],
    highest_write: Counter,
    begun: Counter,
    ended: Counter,
    /// Where any were asked for.
    histograms: RcuCell<Option<QueueHistograms>>,
}

/// A request as its counters need it.
#[derive(Clone, Copy)]
pub(super) struct Account {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// The end of a write.
    pub(super) end: u64,
}

/// Histograms of these shapes, if there is any.
fn histograms(shapes: &Shapes) -> Option<QueueHistograms> {
    shapes.iter().any(Option::is_some).then(|| QueueHistograms::new(shapes))
}

impl QueueStats {
    pub(super) fn new(shapes: &Shapes) -> Self {
        Self {
            kinds: Default::default(),
            highest_write: Counter::default(),
            begun: Counter::default(),
            ended: Counter::default(),
            histograms: RcuCell::new(histograms(shapes)),
        }
    }

    /// Counts anew, in other bins. In `main`.
    pub(super) fn set_histograms(&self, shapes: &Shapes) {
        self.histograms.publish(histograms(shapes));
    }

    /// Adds what its histograms have counted.
    pub(super) fn add_histograms(&self, all: &mut [Option<Histogram>; 4]) {
        if let Some(own) = self.histograms.read(&rcu::read()) {
            own.add_to(all);
        }
    }

    pub(super) fn begin(&self) {
        self.begun.add(1);
    }

    /// A request has neither succeeded nor failed: it will begin again.
    pub(super) fn put_off(&self) {
        self.ended.add(1);
    }

    pub(super) fn end(&self, account: &Account, ok: bool, took: Duration) {
        self.ended.add(1);
        let counters = &self.kinds[account.kind as usize];
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(histograms) = self.histograms.read(&rcu::read()) {
            histograms.count(account.kind, took_ns);
        }
        if ok {
            counters.operations.add(1);
            counters.bytes.add(account.bytes);
            counters.total_ns.add(took_ns);
            self.highest_write.raise(account.end);
        } else {
            counters.failed.add(1);
        }
    }

    pub(super) fn snapshot(&self) -> Stats {
        let kind = |counters: &KindCounters| KindStats {
            operations: counters.operations.get(),
            failed: counters.failed.get(),
            bytes: counters.bytes.get(),
            total_ns: counters.total_ns.get(),
        };
        let ended = self.ended.get();
        Stats {
            kinds: std::array::from_fn(|n| kind(&self.kinds[n])),
            highest_write: self.highest_write.get(),
            in_flight: self.begun.get().saturating_sub(ended),
        }
    }
}
