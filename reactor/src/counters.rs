//! What a context has done so far, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a [`Histogram`]: bucket `n` counts values below `2^n` nanoseconds and not below
/// `2^(n-1)`; the last one counts everything above.
pub const HISTOGRAM_BUCKETS: usize = 40;

/// Counters that only the owning thread writes: a load and a store each, no locked instruction.
#[derive(Debug)]
pub(crate) struct CounterCells {
    pub(crate) turns: Cell,
    pub(crate) enters: Cell,
    pub(crate) sqes: Cell,
    pub(crate) cqes: Cell,
    pub(crate) backlogged: Cell,
    pub(crate) overflows: Cell,
    pub(crate) retries: Cell,
    pub(crate) cancels: Cell,
    pub(crate) ops_in_flight: Cell,
    pub(crate) timers_set: Cell,
    pub(crate) polled_awake: Cell,
    pub(crate) slept_ns: Cell,
    pub(crate) wakeups_received: Cell,
    pub(crate) tasks_polled: Cell,
    pub(crate) bottom_halves: Cell,
    pub(crate) timers_fired: Cell,
    pub(crate) stalls: Cell,
    pub(crate) queue_delay: HistogramCells,
    pub(crate) poll_time: HistogramCells,
}

/// A counter with one writer.
#[derive(Debug)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) struct HistogramCells([Cell; HISTOGRAM_BUCKETS]);

impl HistogramCells {
    const fn new() -> Self {
        Self([const { Cell::new() }; HISTOGRAM_BUCKETS])
    }

    pub(crate) fn record(&self, value: Duration) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - ns.leading_zeros()) as usize;
        self.0[bucket.min(HISTOGRAM_BUCKETS - 1)].add(1);
    }

    fn snapshot(&self) -> Histogram {
        Histogram(std::array::from_fn(|n| self.0[n].get()))
    }
}

impl CounterCells {
    pub(crate) const fn new() -> Self {
        Self {
            turns: Cell::new(),
            enters: Cell::new(),
            sqes: Cell::new(),
            cqes: Cell::new(),
            backlogged: Cell::new(),
            overflows: Cell::new(),
            retries: Cell::new(),
            cancels: Cell::new(),
            ops_in_flight: Cell::new(),
            timers_set: Cell::new(),
            polled_awake: Cell::new(),
            slept_ns: Cell::new(),
            wakeups_received: Cell::new(),
            tasks_polled: Cell::new(),
            bottom_halves: Cell::new(),
            timers_fired: Cell::new(),
            stalls: Cell::new(),
            queue_delay: HistogramCells::new(),
            poll_time: HistogramCells::new(),
        }
    }

    /// All of them but those that others count.
    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            turns: self.turns.get(),
            enters: self.enters.get(),
            sqes: self.sqes.get(),
            cqes: self.cqes.get(),
            backlogged: self.backlogged.get(),
            overflows: self.overflows.get(),
            retries: self.retries.get(),
            cancels: self.cancels.get(),
            ops_in_flight: self.ops_in_flight.get(),
            timers_set: self.timers_set.get(),
            polled_awake: self.polled_awake.get(),
            slept: Duration::from_nanos(self.slept_ns.get()),
            wakeups_sent: 0,
            wakeups_coalesced: 0,
            wakeups_received: self.wakeups_received.get(),
            tasks_spawned: 0,
            tasks_alive: 0,
            tasks_polled: self.tasks_polled.get(),
            bottom_halves: self.bottom_halves.get(),
            timers_fired: self.timers_fired.get(),
            stalls: self.stalls.get(),
            queue_delay: self.queue_delay.snapshot(),
            poll_time: self.poll_time.snapshot(),
        }
    }
}

/// A snapshot of a context's counters, all since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// `io_uring_enter` system calls.
    pub enters: u64,
    /// Submission queue entries.
    pub sqes: u64,
    /// Completion queue entries.
    pub cqes: u64,
    /// Entries that found the submission queue full and waited.
    pub backlogged: u64,
    /// Enters that found completions which the completion queue had no room for (the kernel keeps them).
    pub overflows: u64,
    /// Enters that the kernel refused for now: a signal, no memory, a full completion queue.
    pub retries: u64,
    /// Cancellations asked of the kernel.
    pub cancels: u64,
    /// Operations in flight, as of the last turn.
    pub ops_in_flight: u64,
    /// Timers set, as of the last turn.
    pub timers_set: u64,
    /// Times that polling (`poll-max-ns`) found work before it had to sleep.
    pub polled_awake: u64,
    /// Time spent in enters that were allowed to sleep.
    pub slept: Duration,
    /// Wake-up messages posted to this context.
    pub wakeups_sent: u64,
    /// Wake-ups that needed no message: the context was awake or a message was on its way.
    pub wakeups_coalesced: u64,
    /// Wake-up messages that arrived.
    pub wakeups_received: u64,
    /// Tasks spawned on this context.
    pub tasks_spawned: u64,
    /// Tasks spawned on this context that have not finished, wherever they have hopped to.
    pub tasks_alive: u64,
    /// Task polls.
    pub tasks_polled: u64,
    /// Bottom halves run.
    pub bottom_halves: u64,
    /// Timers that expired.
    pub timers_fired: u64,
    /// Polls and bottom halves that took longer than the watchdog's limit.
    pub stalls: u64,
    /// From a task's wake-up to its poll.
    pub queue_delay: Histogram,
    /// Length of a poll.
    pub poll_time: Histogram,
}

/// Counts by powers of two of nanoseconds (see [`HISTOGRAM_BUCKETS`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram(pub [u64; HISTOGRAM_BUCKETS]);

impl Histogram {
    /// How many values were counted. Any thread; never blocks.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// An upper bound, in nanoseconds, of the quantile `q` (0.0 to 1.0): the limit of the bucket
    /// it falls into, so at most twice the true value. 0 without values.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        let count = self.count();
        if count == 0 {
            return 0;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, n) in self.0.iter().enumerate() {
            below += n;
            if below >= rank {
                return 1 << bucket;
            }
        }
        1 << (HISTOGRAM_BUCKETS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{HISTOGRAM_BUCKETS, HistogramCells};
    use std::time::Duration;

    #[test]
    fn quantiles_bound_the_values() {
        let cells = HistogramCells::new();
        for ns in 1..=1000 {
            cells.record(Duration::from_nanos(ns));
        }
        let histogram = cells.snapshot();
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.quantile_ns(0.5), 512);
        assert_eq!(histogram.quantile_ns(1.0), 1024);
        assert_eq!(HistogramCells::new().snapshot().quantile_ns(0.5), 0);
    }

    #[test]
    fn huge_values_land_in_the_last_bucket() {
        let cells = HistogramCells::new();
        cells.record(Duration::MAX);
        assert_eq!(cells.snapshot().0[HISTOGRAM_BUCKETS - 1], 1);
    }
}
