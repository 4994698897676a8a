//! Bottom halves: functions that run in a context as soon as its loop comes round.

use crate::context::Context;
use crate::task::Task;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What other threads hand to a context.
pub(crate) enum Work {
    Task(Arc<Task>),
    Once(&'static str, Box<dyn FnOnce() + Send>),
    Reusable(Arc<Inner>),
}

pub(crate) struct Inner {
    context: Context,
    name: &'static str,
    scheduled: AtomicBool,
    cancelled: AtomicBool,
    /// Only the context's thread takes this lock while the function runs: never contended.
    function: Mutex<Box<dyn FnMut() + Send>>,
}

impl Inner {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the function unless cancelled since. On the context's thread only.
    pub(crate) fn run(&self) {
        // Cleared first: scheduling from inside the function, or from elsewhere while it runs,
        // makes it run once more. AcqRel pairs with `schedule`: what the scheduler wrote before is
        // visible to the function.
        if !self.scheduled.swap(false, Ordering::AcqRel) || self.cancelled.load(Ordering::Acquire) {
            return;
        }
        (self.function.lock().unwrap_or_else(PoisonError::into_inner))();
    }
}

/// A reusable bottom half. Dropping it cancels what is scheduled.
pub struct BottomHalf {
    inner: Arc<Inner>,
}

impl BottomHalf {
    pub(crate) fn new(
        context: Context,
        name: &'static str,
        function: Box<dyn FnMut() + Send>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                context,
                name,
                scheduled: AtomicBool::new(false),
                cancelled: AtomicBool::new(false),
                function: Mutex::new(function),
            }),
        }
    }

    /// Makes the function run once in its context; scheduling it again before it has run changes
    /// nothing. Any thread; never blocks.
    pub fn schedule(&self) {
        // AcqRel pairs with the swap in `run`.
        if !self.inner.scheduled.swap(true, Ordering::AcqRel) {
            let context = &self.inner.context;
            context.registry.inject(context.index, Work::Reusable(Arc::clone(&self.inner)));
        }
    }

    /// Takes back a `schedule` that has not run yet. Any thread; does not wait for a run that has begun.
    pub fn cancel(&self) {
        // The queued entry stays queued and finds nothing to do.
        self.inner.scheduled.store(false, Ordering::Release);
    }
}

impl Drop for BottomHalf {
    fn drop(&mut self) {
        self.inner.cancelled.store(true, Ordering::Release);
    }
}
