//! Bottom halves: functions that run in a context as soon as its loop comes round.

use crate::context::Context;
use crate::work::Work;
use std::sync::{Arc, Mutex, PoisonError};

mod flags;
pub(crate) use flags::Flags;

pub(crate) struct Inner {
    context: Context,
    name: &'static str,
    flags: Flags,
    /// Only the context's thread takes this lock while the function runs: never contended.
    function: Mutex<Box<dyn FnMut() + Send>>,
}

impl Inner {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the function unless it was cancelled since. On the context's thread only.
    pub(crate) fn run(&self) {
        if self.flags.begin() {
            (self.function.lock().unwrap_or_else(PoisonError::into_inner))();
        }
    }
}

/// A reusable bottom half (QEMU's `QEMUBH`). Dropping it cancels what is scheduled.
pub struct BottomHalf {
    inner: Arc<Inner>,
}

impl BottomHalf {
    pub(crate) fn new(
        context: Context,
        name: &'static str,
        function: Box<dyn FnMut() + Send>,
    ) -> Self {
        let inner = Inner { context, name, flags: Flags::new(), function: Mutex::new(function) };
        Self { inner: Arc::new(inner) }
    }

    /// Makes the function run once in its context; scheduling it again before it has run changes
    /// nothing. What the caller wrote before is visible to the function. Any thread; never blocks.
    pub fn schedule(&self) {
        if self.inner.flags.schedule() {
            self.inner.context.shared().send(Work::Reusable(Arc::clone(&self.inner)));
        }
    }

    /// Takes back a `schedule` that has not run yet. Any thread; does not wait for a run that has begun.
    pub fn cancel(&self) {
        self.inner.flags.cancel();
    }
}

impl Drop for BottomHalf {
    fn drop(&mut self) {
        self.inner.flags.retire();
    }
}
