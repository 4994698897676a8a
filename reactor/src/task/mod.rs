//! Tasks: a future, the context that is its home, and its scheduling state.

mod cell;
mod hop;
mod local_future;
mod owned;
mod state;

pub use hop::{Hop, hop};
pub(crate) use owned::Owned;

use crate::context::{Context, Registry};
use crate::join::JoinHandle;
use crate::local::{self, Local};
use cell::Cell;
use local_future::LocalFuture;
use state::TaskState;
use std::cell::UnsafeCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

/// What every task has, whatever its future.
pub(crate) struct Header {
    pub(crate) name: &'static str,
    pub(crate) state: TaskState,
    pub(crate) registry: Arc<Registry>,
    /// Where it was spawned, and its place in that context's list.
    spawned_at: usize,
    slot: usize,
    /// Bound to the thread that it was made for.
    pub(crate) local: bool,
    /// When it was last queued; only its home's thread reads and writes it.
    queued: UnsafeCell<Option<Instant>>,
}

impl Header {
    /// Marks the moment of queueing, on the home's thread.
    pub(crate) fn mark_queued(&self, now: Instant) {
        // SAFETY: called by the home's thread for a task that is SCHEDULED and not RUNNING.
        unsafe { *self.queued.get() = Some(now) };
    }

    /// When it was queued, on the home's thread.
    pub(crate) fn take_queued(&self) -> Option<Instant> {
        // SAFETY: as in `mark_queued`.
        unsafe { (*self.queued.get()).take() }
    }
}

/// A task as the loop sees it.
pub(crate) trait Runnable: Send + Sync {
    fn header(&self) -> &Header;
    /// Polls the task once. Only the thread of its home calls this, for a task it took out of its queue.
    fn run(self: Arc<Self>, local: &Local);
    /// Has the future dropped at home. Any thread.
    fn cancel(self: Arc<Self>);
    /// Drops the future of a task that will not run again: tear-down, on its home's thread, after
    /// the loop has ended; on any thread where the future is Send and no loop is left.
    fn discard(&self);
}

fn start<F>(context: &Context, name: &'static str, local: bool, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let shared = context.shared();
    let task = shared.tasks.insert(|slot| {
        let header = Header {
            name,
            state: TaskState::new(context.index),
            registry: Arc::clone(&context.registry),
            spawned_at: context.index,
            slot,
            local,
            queued: UnsafeCell::new(None),
        };
        Arc::new(Cell::new(header, future))
    });
    // After the insertion, under whose lock the tear-down collects: one of the two sees the other.
    if shared.stopped.load(Ordering::Acquire) {
        task.discard();
    } else {
        std::task::Wake::wake_by_ref(&task);
    }
    JoinHandle::new(task)
}

pub(crate) fn spawn<F>(context: &Context, name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    start(context, name, false, future)
}

/// Starts a task on the current context whose future stays on this thread: it need not be `Send`, and
/// it cannot [`hop`]. Tasks and bottom halves; takes a short lock.
///
/// # Panics
/// Off a reactor.
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    start(&local::current(), name, true, future)
}

pub(crate) fn spawn_local_with<M, F>(
    context: &Context,
    name: &'static str,
    make: M,
) -> JoinHandle<F::Output>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    start(context, name, true, LocalFuture::new(make))
}

/// Lets everything else that is ready in this context run first, after a look at completions and timers.
/// Tasks; never blocks.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
