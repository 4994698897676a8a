//! How the end of a section wakes the grace period that waits for it, and no other.
//!
//! Who waits marks each reader that it found pinned; a marked reader answers when it leaves, and
//! the last to answer wakes. So a reader that began later is never asked, and one that stays for long is
//! waited for in one sleep, whatever other readers do meanwhile.
//!
//! A reader leaves first and looks at its mark second; the waiting side sets the mark first and
//! looks at the reader second. Between the two steps each side needs a full fence, or both could miss
//! the other. Plain readers do not pay for theirs: it is a compiler fence, and the waiting side makes
//! up for it with `membarrier` (see `membarrier.rs`), which puts a full fence into every running
//! thread of the process. Who can afford a fence, as a reactor once a turn, does it itself.

use crate::primitive::{AtomicU32, AtomicUsize, AtomicWaker, Ordering, fence, light_fence};
use std::task::Waker;

/// The reader is asked to answer when it leaves.
const WANTED: u32 = 1;
/// The reader must do a fence of its own: there is no `membarrier`.
const FENCE: u32 = 2;

/// A reader's side, on a cache line of the reader's.
pub(crate) struct Mark(AtomicU32);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Makes the reader fence from now on.
    pub(crate) fn require_fence(&self) {
        self.0.fetch_or(FENCE, Ordering::SeqCst);
    }
}

/// The waiting side.
pub(crate) struct Bell {
    /// Marks set and not yet answered for.
    outstanding: AtomicUsize,
    waker: AtomicWaker,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self { outstanding: AtomicUsize::new(0), waker: AtomicWaker::new() }
    }

    /// A section has ended: called after the reader has unpinned.
    #[inline]
    pub(crate) fn leave(&self, mark: &Mark) {
        // Pairs with the membarrier between `ask` and the second look (`Grace::look`).
        light_fence();
        if mark.0.load(Ordering::Relaxed) != 0 {
            self.leave_slow(mark);
        }
    }

    #[cold]
    fn leave_slow(&self, mark: &Mark) {
        if mark.0.load(Ordering::Relaxed) & FENCE != 0 {
            self.leave_fenced(mark);
        } else {
            self.answer(mark);
        }
    }

    /// As `leave`, by a thread that pays for its own fence.
    pub(crate) fn leave_fenced(&self, mark: &Mark) {
        // Pairs with the fence in `ask`.
        fence(Ordering::SeqCst);
        self.answer(mark);
    }

    fn answer(&self, mark: &Mark) {
        if mark.0.load(Ordering::Relaxed) & WANTED != 0 && self.clear(mark) {
            self.waker.wake();
        }
    }

    /// Takes the mark off, if it is on. True when that was the last one.
    fn clear(&self, mark: &Mark) -> bool {
        // AcqRel: the mark was counted before it was set; whoever takes it off counts it down.
        mark.0.fetch_and(!WANTED, Ordering::AcqRel) & WANTED != 0
            && self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Sets whom the last answer wakes. Before the waiting side looks at the readers again.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Marks readers. The caller then looks at them a second time, behind a membarrier where some of
    /// them do not fence, and takes back the marks of those that have left.
    pub(crate) fn ask<'a>(&self, marks: impl Iterator<Item = &'a Mark>) {
        for mark in marks {
            self.outstanding.fetch_add(1, Ordering::Relaxed);
            // Release: counted before set (see `clear`).
            let before = mark.0.fetch_or(WANTED, Ordering::Release);
            debug_assert_eq!(before & WANTED, 0, "every mark is answered or taken back");
        }
        // Pairs with the fence in `leave_fenced`.
        fence(Ordering::SeqCst);
    }

    /// The waiting side no longer needs an answer.
    pub(crate) fn take_back(&self, mark: &Mark) {
        self.clear(mark);
    }

    /// Wakes the waiting side, whatever the readers do, if it waits. It looks for what has changed after `ask`.
    pub(crate) fn wake_waiting(&self) {
        // Pairs with the fence in `ask`.
        fence(Ordering::SeqCst);
        if self.outstanding.load(Ordering::Relaxed) > 0 {
            self.waker.wake();
        }
    }
}
