//! Who may look and who may change: readers counted in any context, one writer.
//!
//! A writer either waits for a moment without readers ([`Gate::try_close`]), or makes one: it refuses
//! newcomers and waits for those inside ([`Gate::close`]). A reader counts itself first and looks for a writer second; the writer sets its bit first
//! and looks at the counts second. The SeqCst fences (`enter` and `close`) forbid that both miss the
//! other. The same holds for a reader that leaves and a writer about to wait (`leave` and `await_empty`).

use crate::primitive::{AtomicBool, AtomicUsize, Ordering, fence};

/// A count on a cache line of its own.
#[repr(align(64))]
struct Count(AtomicUsize);

pub(crate) struct Gate {
    /// Readers, by where they began.
    counts: Box<[Count]>,
    /// A writer is inside.
    closed: AtomicBool,
    /// A writer waits to be told when readers leave.
    awaited: AtomicBool,
}

impl Gate {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            counts: (0..places).map(|_| Count(AtomicUsize::new(0))).collect(),
            closed: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
        }
    }

    pub(crate) fn places(&self) -> usize {
        self.counts.len()
    }

    /// Begins to read; false when a writer is inside, with [`leave`](Self::leave) still to be called.
    pub(crate) fn enter(&self, place: usize) -> bool {
        self.counts[place].0.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `close`.
        fence(Ordering::SeqCst);
        // Acquire pairs with the Release in `open`: what the writer did is visible.
        !self.closed.load(Ordering::Acquire)
    }

    /// Ends reading; true when a writer is to be told. Any thread.
    pub(crate) fn leave(&self, place: usize) -> bool {
        // Release pairs with the Acquire in `is_empty`: the writer sees all reads done.
        self.counts[place].0.fetch_sub(1, Ordering::Release);
        // Pairs with the fence in `await_empty`.
        fence(Ordering::SeqCst);
        self.awaited.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| count.0.load(Ordering::Acquire) == 0)
    }

    /// The writer is about to look whether the readers have left. One writer at a time.
    pub(crate) fn await_empty(&self) {
        self.awaited.store(true, Ordering::Relaxed);
        // Pairs with the fence in `leave`.
        fence(Ordering::SeqCst);
    }

    /// The writer waits no longer.
    pub(crate) fn stop_waiting(&self) {
        self.awaited.store(false, Ordering::Relaxed);
    }

    /// Lets the writer in if nobody reads; otherwise, and where this has been false, readers that were
    /// refused meanwhile are to be told. One writer at a time.
    pub(crate) fn try_close(&self) -> bool {
        self.close();
        let alone = self.is_empty();
        if !alone {
            self.open();
        }
        alone
    }

    /// Refuses newcomers; who is inside stays. One writer at a time.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Pairs with the fence in `enter`.
        fence(Ordering::SeqCst);
    }

    /// The writer is out; readers that were refused are to be told.
    pub(crate) fn open(&self) {
        // Release pairs with the Acquire in `enter`.
        self.closed.store(false, Ordering::Release);
    }
}
