//! What a queue has done, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer, the queue's task: a load and a store, no locked instruction.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one queue, since the device was made; written by the queue's task only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueMetrics {
    requests: Cell,
    failed: Cell,
    bytes_read: Cell,
    bytes_written: Cell,
    batches: Cell,
    doorbells: Cell,
    interrupts: Cell,
    suppressed: Cell,
}

/// A snapshot of [`QueueMetrics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Requests answered.
    pub requests: u64,
    /// Requests among them answered with an error.
    pub failed: u64,
    /// Bytes of data given to the guest.
    pub bytes_read: u64,
    /// Bytes of data taken from the guest.
    pub bytes_written: u64,
    /// Times that one or more requests were taken from the available ring in one go.
    pub batches: u64,
    /// Doorbells heard; several rung in a row may count once.
    pub doorbells: u64,
    /// Used buffer notifications sent.
    pub interrupts: u64,
    /// Used buffer notifications that the driver did not want.
    pub suppressed: u64,
}

impl QueueMetrics {
    /// Any thread; the numbers are each exact but not of one moment.
    pub fn snapshot(&self) -> QueueCounters {
        QueueCounters {
            requests: self.requests.get(),
            failed: self.failed.get(),
            bytes_read: self.bytes_read.get(),
            bytes_written: self.bytes_written.get(),
            batches: self.batches.get(),
            doorbells: self.doorbells.get(),
            interrupts: self.interrupts.get(),
            suppressed: self.suppressed.get(),
        }
    }

    pub(super) fn request(&self, ok: bool) {
        self.requests.add(1);
        if !ok {
            self.failed.add(1);
        }
    }

    pub(super) fn read(&self, bytes: u64) {
        self.bytes_read.add(bytes);
    }

    pub(super) fn written(&self, bytes: u64) {
        self.bytes_written.add(bytes);
    }

    pub(super) fn batch(&self) {
        self.batches.add(1);
    }

    pub(super) fn doorbell(&self) {
        self.doorbells.add(1);
    }

    pub(super) fn notified(&self, sent: bool) {
        if sent { self.interrupts.add(1) } else { self.suppressed.add(1) }
    }
}
