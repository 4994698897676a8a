//! Whether an image has changed since it was last made stable: a flush with nothing to make stable does
//! not go to the storage.
//!
//! Each queue notes a change in a flag on a cache line of its own (queues share one where they are many),
//! and only where it is not set yet: a steady load of writes reads its flag and touches nothing else. A
//! flush looks at all flags.
//!
//! A flush may be left out if every change that had completed before it is stable. That is so where, in
//! this order, `finished` is read as F, all flags are found clear, and `started` is read as F as well:
//! - each sync counts itself in `started` before it clears flags, and in `finished` when it is over, so that
//!   F says of all syncs that ever cleared a flag that they were over before the flags were read;
//! - a sync that failed, was cancelled or forgotten has set a flag again before it counts itself as over,
//!   and so none of them did, or a later one succeeded;
//! - a change sets its flag when it has completed, which is before its guest is told and can ask for a
//!   flush. Where the flag was set already, the sync that will clear it is submitted after that, and covers
//!   the change.
//!
//! All operations are sequentially consistent: they are part of no request but a flush and the first
//! change after one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Flags of an image.
const PLACES: usize = 16;

/// Adjacent lines are fetched in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Flag(AtomicBool);

/// See the module. Of one file, whoever has it open.
#[derive(Debug)]
pub(super) struct Written {
    flags: [Flag; PLACES],
    started: AtomicU64,
    finished: AtomicU64,
    next: AtomicUsize,
}

impl Default for Written {
    /// What there was before is not known to be stable.
    fn default() -> Self {
        Self {
            flags: std::array::from_fn(|_| Flag(AtomicBool::new(true))),
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            next: AtomicUsize::new(0),
        }
    }
}

impl Written {
    /// A place for the changes of one queue.
    pub(super) fn place(&self) -> usize {
        self.next.fetch_add(1, SeqCst) % PLACES
    }

    /// Something has changed, or may have. To be called before anybody is told that it has.
    pub(super) fn note(&self, place: usize) {
        let flag = &self.flags[place % PLACES].0;
        if !flag.load(SeqCst) {
            flag.store(true, SeqCst);
        }
    }

    /// To be called before fdatasync(2) is submitted; `None` where that is not needed.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Syncing> {
        let finished = self.finished.load(SeqCst);
        let clear = self.flags.iter().all(|flag| !flag.0.load(SeqCst));
        if clear && self.started.load(SeqCst) == finished {
            return None;
        }
        self.started.fetch_add(1, SeqCst);
        for flag in &self.flags {
            if flag.0.load(SeqCst) {
                flag.0.store(false, SeqCst);
            }
        }
        Some(Syncing { written: Arc::clone(self), succeeded: false })
    }
}

/// An fdatasync(2) under way. Dropped before it has succeeded, it leaves the image as not stable.
#[derive(Debug)]
pub(super) struct Syncing {
    written: Arc<Written>,
    succeeded: bool,
}

impl Syncing {
    /// It has succeeded.
    pub(super) fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        if !self.succeeded {
            self.written.note(0);
        }
        self.written.finished.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::Written;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    /// One with nothing to make stable.
    fn clean() -> Arc<Written> {
        let written = Arc::new(Written::default());
        written.begin().expect("nothing is known of what was before").succeeded();
        assert!(written.begin().is_none());
        written
    }

    #[test]
    fn a_flush_is_left_out_only_where_all_is_stable() {
        let written = clean();
        for place in [0, 5, 1000] {
            written.note(place);
            let first = written.begin().unwrap();
            // Nothing has changed since, and yet what has is not stable.
            let second = written.begin().unwrap();
            first.succeeded();
            let third = written.begin().unwrap();
            drop(second);
            third.succeeded();
            // The second one failed: it is not said what of.
            written.begin().unwrap().succeeded();
            assert!(written.begin().is_none());
        }
        written.note(3);
        let cancelled = written.begin().unwrap();
        drop(cancelled);
        let syncing = written.begin().unwrap();
        written.note(3);
        syncing.succeeded();
        written.begin().unwrap().succeeded();
        assert!(written.begin().is_none());
    }

    /// Threads that write and flush: whatever had been written before a flush is stable after it, be it
    /// left out or not.
    #[test]
    fn no_flush_is_lost() {
        const WRITERS: usize = 3;
        let written = clean();
        // By writer: what has been written, and up to where it is stable.
        let state: Arc<[[AtomicU64; 2]; WRITERS]> = Arc::default();
        let work = |n: usize| {
            let (written, state) = (Arc::clone(&written), Arc::clone(&state));
            move || {
                for round in 1..20_000u64 {
                    state[n][0].store(round, SeqCst);
                    written.note(n);
                    if round % 3 != 0 {
                        continue;
                    }
                    let before: Vec<_> = state.iter().map(|one| one[0].load(SeqCst)).collect();
                    // Of another writer the change may not be complete: only its own counts.
                    if let Some(syncing) = written.begin() {
                        let seen: Vec<_> = state.iter().map(|one| one[0].load(SeqCst)).collect();
                        if round % 5 == 0 {
                            drop(syncing);
                            continue;
                        }
                        for (one, seen) in state.iter().zip(seen) {
                            one[1].fetch_max(seen, SeqCst);
                        }
                        syncing.succeeded();
                    }
                    assert!(state[n][1].load(SeqCst) >= before[n]);
                }
            }
        };
        let threads: Vec<_> = (0..WRITERS).map(|n| std::thread::spawn(work(n))).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
