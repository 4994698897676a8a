//! Tasks: a boxed future, the context that is its home, and its scheduling state.
//!
//! ```text
//!            wake                 turn                    Ready
//!   idle ──────────▶ SCHEDULED ────────▶ RUNNING ─────────────────▶ DONE
//!    ▲                   ▲                  │  │
//!    │                   └── woken or hopped ┘  │ Pending
//!    └──────────────────────────────────────────┘
//! ```
//!
//! SCHEDULED is set by exactly one waker at a time, who then queues the task at its home. The home
//! changes only while the task is RUNNING, on the thread that runs it, before SCHEDULED is given
//! to the new home's queue; so whoever set SCHEDULED on an idle task reads a home that stays.

use crate::bh::Work;
use crate::context::{Context, Registry};
use crate::join::{self, JoinHandle};
use crate::local::{self, Local};
use slab::Slab;
use std::cell::UnsafeCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as PollContext, Poll, Wake, Waker};
use std::time::Instant;

const SCHEDULED: u32 = 1;
const RUNNING: u32 = 2;
const DONE: u32 = 4;
const CANCELLED: u32 = 8;

type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks that were spawned on a context and have not finished.
pub(crate) struct Owned(Mutex<Slab<Arc<Task>>>);

impl Owned {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Slab::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Task>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every task that is left.
    pub(crate) fn all(&self) -> Vec<Arc<Task>> {
        self.lock().iter().map(|(_, task)| Arc::clone(task)).collect()
    }

    /// The tasks whose home is `index`, for the tear-down on that thread.
    pub(crate) fn at_home(&self, index: usize) -> Vec<Arc<Task>> {
        let tasks = self.lock();
        let here = |task: &&Arc<Task>| task.home.load(Ordering::Relaxed) == index;
        tasks.iter().map(|(_, task)| task).filter(here).cloned().collect()
    }
}

pub(crate) struct Task {
    name: &'static str,
    state: AtomicU32,
    home: AtomicUsize,
    registry: Arc<Registry>,
    /// Where it was spawned, and its place in that context's list.
    spawned_at: usize,
    slot: AtomicUsize,
    /// Bound to the thread that it was made on.
    local: bool,
    /// When it was last queued; only its home's thread reads and writes it.
    queued: UnsafeCell<Option<Instant>>,
    future: UnsafeCell<Option<BoxedFuture>>,
}

// SAFETY: `future` and `queued` are touched only by `run` and `discard` on the thread of the
// task's home (SCHEDULED/RUNNING hand the task from one thread to the next through the queue's
// Release/Acquire), and by `drop`, which has the last reference. A future that is not Send
// (`local`) never changes its home and is taken out on that thread; `drop` leaks one that was not.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

/// What became of a task in `run`.
enum Outcome {
    Finished,
    Idle,
    Again,
    Hopped(usize),
}

impl Task {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    /// Marks the moment of queueing, on the home's thread.
    pub(crate) fn mark_queued(&self, now: Instant) {
        // SAFETY: called by the home's thread for a task that is SCHEDULED and not RUNNING.
        unsafe { *self.queued.get() = Some(now) };
    }

    /// When it was queued.
    pub(crate) fn take_queued(&self) -> Option<Instant> {
        // SAFETY: as in `mark_queued`.
        unsafe { (*self.queued.get()).take() }
    }

    /// Asks for the future to be dropped at home. Any thread.
    pub(crate) fn cancel(self: &Arc<Self>) {
        self.state.fetch_or(CANCELLED, Ordering::Release);
        self.schedule();
    }

    fn schedule(self: &Arc<Self>) {
        // AcqRel: what the waker wrote before is visible to the poll that follows.
        let before = self.state.fetch_or(SCHEDULED, Ordering::AcqRel);
        if before & (SCHEDULED | RUNNING | DONE) != 0 {
            return;
        }
        let home = self.home.load(Ordering::Relaxed);
        if !local::push_ready(&self.registry, home, self) {
            self.registry.inject(home, Work::Task(Arc::clone(self)));
        }
    }

    /// Polls the task once. Only the thread of its home calls this, for a task it took out of
    /// its queue.
    pub(crate) fn run(self: Arc<Self>, local: &Local) {
        // SCHEDULED off and RUNNING on in one step: a wake-up from now on counts again.
        let before = self.state.fetch_xor(SCHEDULED | RUNNING, Ordering::AcqRel);
        debug_assert_eq!(before & (SCHEDULED | RUNNING), SCHEDULED, "a queued task is SCHEDULED");
        let outcome = if before & CANCELLED != 0 { Outcome::Finished } else { self.poll(local) };
        match outcome {
            Outcome::Finished => self.finish(),
            Outcome::Idle => {}
            Outcome::Again => local.push_ready(self),
            Outcome::Hopped(target) => {
                let registry = Arc::clone(&self.registry);
                registry.inject(target, Work::Task(self));
            }
        }
    }

    fn poll(self: &Arc<Self>, local: &Local) -> Outcome {
        let waker = Waker::from(Arc::clone(self));
        // SAFETY: RUNNING is ours, so nobody else touches the future (see the impl of Send).
        let Some(future) = (unsafe { &mut *self.future.get() }) else {
            return Outcome::Finished;
        };
        let ready = future.as_mut().poll(&mut PollContext::from_waker(&waker)).is_ready();
        let hop = local.take_hop_target();
        if ready {
            return Outcome::Finished;
        }
        if let Some(target) = hop {
            self.home.store(target, Ordering::Relaxed);
            // First SCHEDULED, then RUNNING off: no waker can slip in between and queue it twice.
            self.state.fetch_or(SCHEDULED, Ordering::AcqRel);
            self.state.fetch_and(!RUNNING, Ordering::AcqRel);
            return Outcome::Hopped(target);
        }
        if self.state.fetch_and(!RUNNING, Ordering::AcqRel) & SCHEDULED != 0 {
            Outcome::Again
        } else {
            Outcome::Idle
        }
    }

    fn finish(&self) {
        self.state.fetch_or(DONE, Ordering::AcqRel);
        // SAFETY: the state is RUNNING and DONE: ours for good.
        let future = unsafe { (*self.future.get()).take() };
        let spawned_at = self.registry.shared(self.spawned_at);
        let owned = spawned_at.tasks.lock().try_remove(self.slot.load(Ordering::Relaxed));
        if owned.is_some() {
            spawned_at.counters.tasks_alive.fetch_sub(1, Ordering::Relaxed);
        }
        // The destructors of the future may run anything, so no lock is held here.
        drop(future);
        drop(owned);
    }

    /// Drops the future of a task that will not run again: tear-down, on its home's thread, after
    /// the loop has ended.
    pub(crate) fn discard(&self) {
        if self.state.fetch_or(DONE | RUNNING, Ordering::AcqRel) & DONE == 0 {
            self.finish();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(future) = self.future.get_mut().take()
            && self.local
        {
            // Not on its thread, perhaps: leaking is the only sound thing left.
            tracing::warn!(task = self.name, "a local task outlived its context and is leaked");
            std::mem::forget(future);
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.schedule();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.schedule();
    }
}

fn new_task(context: &Context, name: &'static str, local: bool, future: BoxedFuture) -> Arc<Task> {
    let task = Arc::new(Task {
        name,
        state: AtomicU32::new(0),
        home: AtomicUsize::new(context.index),
        registry: Arc::clone(&context.registry),
        spawned_at: context.index,
        slot: AtomicUsize::new(usize::MAX),
        local,
        queued: UnsafeCell::new(None),
        future: UnsafeCell::new(Some(future)),
    });
    let shared = context.shared();
    let slot = shared.tasks.lock().insert(Arc::clone(&task));
    task.slot.store(slot, Ordering::Relaxed);
    shared.counters.tasks_spawned.fetch_add(1, Ordering::Relaxed);
    shared.counters.tasks_alive.fetch_add(1, Ordering::Relaxed);
    task
}

pub(crate) fn spawn<F>(context: &Context, name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (future, cell) = join::attach(name, future);
    let task = new_task(context, name, false, Box::pin(future));
    if context.shared().stopped.load(Ordering::Acquire) {
        task.discard();
    } else {
        task.schedule();
    }
    JoinHandle::new(cell, task)
}

/// Starts a task on the current context whose future stays on this thread.
///
/// # Panics
/// Off a reactor.
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let context = local::current();
    let (future, cell) = join::attach(name, future);
    let task = new_task(&context, name, true, Box::pin(future));
    task.schedule();
    JoinHandle::new(cell, task)
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
    // The task that the caller holds is an ordinary one: it starts the local task at home and
    // waits for it, so that cancelling and joining need no second mechanism.
    context.spawn(name, async move {
        let mut inner = {
            let future = make();
            join::CancelOnDrop::new(spawn_local(name, future))
        };
        inner.join().await
    })
}

/// Lets everything else that is ready in this context run first.
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

/// Makes `target` the task's home and goes on there (QEMU's `aio_co_reschedule_self`). Returns at
/// once where the task is at `target` already.
///
/// # Panics
/// In a task made by [`spawn_local`], whose future may not leave its thread; off a reactor; when
/// `target` belongs to another runtime.
pub async fn hop(target: &Context) {
    std::future::poll_fn(|_| {
        if target.is_current() {
            return Poll::Ready(());
        }
        local::request_hop(target);
        Poll::Pending
    })
    .await;
}
