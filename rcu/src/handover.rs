//! Who drives the grace periods, and how no callback is left without a driver.
//!
//! At most one thread leads at a time. Whoever queues a callback makes it visible first and looks for
//! a leader second; a leader resigns first and looks for work second. With a SeqCst fence between
//! the two steps on each side, one of them sees the other: either the leader finds the work, or
//! the newcomer finds the seat empty and takes it.

use crate::primitive::{AtomicBool, AtomicPtr, Ordering, fence};
use std::ptr;
use std::sync::Arc;

/// Something that can stand on an [`ActiveList`], once at a time.
pub(crate) trait Active: Sized {
    /// The link to the next one, for the list's use.
    fn next(&self) -> &AtomicPtr<Self>;
}

/// The queues that hold callbacks. Any thread adds; only the leader takes.
pub(crate) struct ActiveList<T: Active> {
    head: AtomicPtr<T>,
}

impl<T: Active> ActiveList<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Adds `item`, which is not on the list: the caller, its queue's only producer, found the
    /// queue empty and has put a callback into it.
    pub(crate) fn add(&self, item: Arc<T>) {
        let new = Arc::into_raw(item).cast_mut();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the list keeps the strong reference that `into_raw` gave up.
            // Relaxed: published by the exchange below.
            unsafe { (*new).next().store(head, Ordering::Relaxed) };
            // Release pairs with the Acquire in `take` and `newest`.
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// The item added last. Leader only: nobody else takes it away.
    pub(crate) fn newest(&self) -> Option<Arc<T>> {
        // Acquire pairs with the Release in `add`.
        let item = self.head.load(Ordering::Acquire);
        if item.is_null() {
            return None;
        }
        // SAFETY: the list holds a strong reference, which only the caller could take from it.
        unsafe {
            Arc::increment_strong_count(item);
            Some(Arc::from_raw(item))
        }
    }

    /// Takes the list and calls `f` for each item; once `f` has emptied the item's queue it may be
    /// added again at any time. Leader only.
    pub(crate) fn take(&self, mut f: impl FnMut(Arc<T>)) {
        // Acquire pairs with the Release in `add`.
        let mut item = self.head.swap(ptr::null_mut(), Ordering::AcqRel);
        while !item.is_null() {
            // SAFETY: this is the reference that `add` put here. The link is read before `f`
            // empties the item's queue: after that it may be on the list again.
            let this = unsafe { Arc::from_raw(item) };
            item = this.next().load(Ordering::Relaxed);
            f(this);
        }
    }
}

impl<T: Active> Drop for ActiveList<T> {
    fn drop(&mut self) {
        self.take(drop);
    }
}

/// The seat of the one who leads.
pub(crate) struct Seat {
    taken: AtomicBool,
}

impl Seat {
    pub(crate) fn new() -> Self {
        Self { taken: AtomicBool::new(false) }
    }

    /// Called after work has been made visible. True: the caller leads from now on.
    pub(crate) fn claim(&self) -> bool {
        // Pairs with the fence in `resign`.
        fence(Ordering::SeqCst);
        !self.taken.load(Ordering::Relaxed)
            && self
                .taken
                // Acquire pairs with the Release in `resign`: the new leader goes on from where
                // the last one stopped.
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Gives up leading. True: there is work again, and the caller still leads.
    pub(crate) fn resign(&self, has_work: impl FnOnce() -> bool) -> bool {
        self.taken.store(false, Ordering::Release);
        // Pairs with the fence in `claim`.
        fence(Ordering::SeqCst);
        has_work() && self.claim()
    }
}
