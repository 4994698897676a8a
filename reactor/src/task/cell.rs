//! A task in one allocation: its header, its future, and its result for who waits for it.

use super::{Header, Runnable};
use crate::guard;
use crate::join::{JoinCell, JoinError, Joinable};
use crate::local::{self, Local};
use crate::work::Work;
use std::cell::UnsafeCell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as PollContext, Poll, Wake, Waker};

pub(super) struct Cell<F: Future> {
    header: Header,
    /// Pinned: it stays in this allocation until it is dropped in place. `None` once ended.
    future: UnsafeCell<Option<F>>,
    join: JoinCell<F::Output>,
}

// The state's SCHEDULED and RUNNING hand the task from one thread to the next through the queues'
// Release and Acquire, see `state`; model-checked in tests/loom.rs. A future that is not Send
// (`header.local`) keeps its home, is dropped there, and `drop` leaks one that was not. An output that
// is not Send belongs to such a task: it is put into `join` at home, and taken out by a `JoinHandle`,
// which is only Send where the output is.
// SAFETY: `future` and `header.queued` are touched only by `run` and `discard` on the thread of the
// task's home, and by `drop`, which has the last reference; what is not Send stays, as above.
unsafe impl<F: Future> Send for Cell<F> {}
// SAFETY: as above.
unsafe impl<F: Future> Sync for Cell<F> {}

impl<F: Future + 'static> Cell<F> {
    pub(super) fn new(header: Header, future: F) -> Self {
        Self { header, future: UnsafeCell::new(Some(future)), join: JoinCell::new() }
    }

    /// Polls the future; the output once there is one, or what has become of it.
    fn poll(self: &Arc<Self>) -> Poll<Result<F::Output, JoinError>> {
        // SAFETY: a second reference that is not counted, for the time of this call, during which `self`
        // is one that is: it is never dropped (`ManuallyDrop`), and its clones count themselves.
        let waker = unsafe { Waker::from(Arc::from_raw(Arc::as_ptr(self))) };
        let waker = ManuallyDrop::new(waker);
        // SAFETY: RUNNING is ours, so nobody else touches the future (see the impl of Send).
        let Some(future) = (unsafe { &mut *self.future.get() }) else {
            return Poll::Ready(Err(JoinError::Cancelled));
        };
        // SAFETY: the future is never moved: `finish` drops it where it is.
        let future = unsafe { Pin::new_unchecked(future) };
        let poll = AssertUnwindSafe(|| future.poll(&mut PollContext::from_waker(&waker)));
        match catch_unwind(poll) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => {
                let message = guard::message(&*payload);
                tracing::error!(task = self.header.name, message, "a task panicked");
                guard::discard(payload);
                Poll::Ready(Err(JoinError::Panicked))
            }
        }
    }

    /// Drops the future, then tells who waits. The caller has the task RUNNING.
    fn finish(&self, result: Result<F::Output, JoinError>) {
        self.header.state.finish();
        // SAFETY: RUNNING and DONE: ours for good.
        guard::run("the destructor of a task", self.header.name, || unsafe {
            *self.future.get() = None;
        });
        let spawned_at = self.header.registry.shared(self.header.spawned_at);
        drop(spawned_at.tasks.remove(self.header.slot));
        self.join.complete(self.header.name, result);
    }

    fn queue(self: Arc<Self>, home: usize) {
        if let Err(task) = local::push_ready(home, self) {
            let registry = Arc::clone(&task.header().registry);
            registry.shared(home).send(Work::Task(task));
        }
    }
}

impl<F: Future + 'static> Runnable for Cell<F> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn run(self: Arc<Self>, local: &Local) {
        if !self.header.state.begin() {
            self.finish(Err(JoinError::Cancelled));
            return;
        }
        local.task_begins(self.header.local);
        let polled = self.poll();
        let hop = local.task_ends();
        if let Poll::Ready(result) = polled {
            self.finish(result);
        } else if let Some(target) = hop {
            self.header.state.depart(target);
            let registry = Arc::clone(&self.header.registry);
            registry.shared(target).send(Work::Task(self));
        } else if self.header.state.pause() {
            local.push_next(self);
        }
    }

    fn cancel(self: Arc<Self>) {
        if let Some(home) = self.header.state.cancel() {
            self.queue(home);
        }
    }

    fn discard(&self) {
        if self.header.state.seize() {
            self.finish(Err(JoinError::Cancelled));
        }
    }
}

impl<F: Future + 'static> Joinable<F::Output> for Cell<F> {
    fn join(&self) -> &JoinCell<F::Output> {
        &self.join
    }

    fn name(&self) -> &'static str {
        self.header.name
    }

    fn runnable(self: Arc<Self>) -> Arc<dyn Runnable> {
        self
    }
}

impl<F: Future + 'static> Wake for Cell<F> {
    fn wake(self: Arc<Self>) {
        if let Some(home) = self.header.state.wake() {
            self.queue(home);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(home) = self.header.state.wake() {
            Arc::clone(self).queue(home);
        }
    }
}

impl<F: Future> Drop for Cell<F> {
    fn drop(&mut self) {
        if !self.header.local {
            return;
        }
        // Not on its thread, perhaps: leaking is the only sound thing left.
        if let Some(future) = self.future.get_mut().take_if(|_| true) {
            tracing::warn!(task = self.header.name, "a local task outlived its context: leaked");
            std::mem::forget(future);
        }
        self.join.leak();
    }
}
