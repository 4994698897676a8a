//! Callbacks and the lock-free queue they wait in: one allocation each, linked through themselves.

use crate::primitive::{AtomicPtr, Ordering};
use std::ptr;

/// What every callback begins with.
struct Header {
    next: *mut Header,
    /// Takes the callback that begins here out of its box and runs it.
    run: unsafe fn(*mut Header),
}

#[repr(C)]
struct Callback<F> {
    /// First, so that a pointer to it is one to the whole.
    header: Header,
    function: F,
}

/// # Safety
/// `header` came from `Box::into_raw` of a `Callback<F>` and is not used again.
unsafe fn run<F: FnOnce()>(header: *mut Header) {
    // SAFETY: the caller's promise; the header is the first field of a `repr(C)` struct.
    let callback = unsafe { Box::from_raw(header.cast::<Callback<F>>()) };
    let Callback { function, .. } = *callback;
    function();
}

/// A stack of callbacks that many threads push onto; taken as a whole.
pub(crate) struct CallbackQueue {
    head: AtomicPtr<Header>,
}

// SAFETY: the callbacks are Send (`push` demands it) and all shared access goes through the head.
unsafe impl Send for CallbackQueue {}
// SAFETY: as above.
unsafe impl Sync for CallbackQueue {}

impl CallbackQueue {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Appends. Returns whether the queue was empty. Any thread; lock-free.
    pub(crate) fn push<F: FnOnce() + Send + 'static>(&self, function: F) -> bool {
        let header = Header { next: ptr::null_mut(), run: run::<F> };
        let new = Box::into_raw(Box::new(Callback { header, function })).cast::<Header>();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the callback is ours until the exchange below publishes it.
            unsafe { (*new).next = head };
            // Release pairs with the Acquire in `take`: the contents, and what the caller unlinked
            // before, are visible to who takes it.
            // Acquire: who finds the queue empty comes after the leader's reading of its link.
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Whether nothing is queued at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes everything queued so far.
    pub(crate) fn take(&self) -> Chain {
        // Acquire pairs with the Release in `push`; the Release half orders the reading of the
        // active list's link before it against a producer that finds the queue empty.
        Chain { newest: self.head.swap(ptr::null_mut(), Ordering::AcqRel), oldest: ptr::null_mut() }
    }
}

/// Callbacks on their way to being run, oldest first.
///
/// Dropped, it leaks what is left, and so does the queue: nobody knows then whether readers still hold
/// what the callbacks own. Nothing in this crate drops them.
pub(crate) struct Chain {
    /// Still in the order of the stack.
    newest: *mut Header,
    /// Turned round.
    oldest: *mut Header,
}

// SAFETY: the callbacks are Send and the chain is their only owner.
unsafe impl Send for Chain {}

impl Chain {
    pub(crate) fn is_empty(&self) -> bool {
        self.newest.is_null() && self.oldest.is_null()
    }

    fn pop(&mut self) -> Option<*mut Header> {
        if self.oldest.is_null() {
            self.turn_round();
        }
        if self.oldest.is_null() {
            return None;
        }
        let header = self.oldest;
        // SAFETY: the chain owns every callback in it.
        self.oldest = unsafe { (*header).next };
        Some(header)
    }

    fn turn_round(&mut self) {
        while !self.newest.is_null() {
            let header = self.newest;
            // SAFETY: the chain owns every callback in it.
            unsafe {
                self.newest = (*header).next;
                (*header).next = self.oldest;
            }
            self.oldest = header;
        }
    }

    /// Runs the oldest callback. False when there is none. A panic of the callback passes
    /// through; the callback is gone then.
    pub(crate) fn run_one(&mut self) -> bool {
        let Some(header) = self.pop() else { return false };
        // SAFETY: `push` made it with the matching `run`, and `pop` took it out for good.
        unsafe { ((*header).run)(header) };
        true
    }
}
