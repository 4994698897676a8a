//! Contexts: the handles through which any thread reaches a reactor.

use crate::bh::BottomHalf;
use crate::counters::Counters;
use crate::drain::DrainToken;
use crate::join::JoinHandle;
use crate::local;
use crate::mailbox::Shared;
use crate::task;
use crate::work::Work;
use std::fmt;
use std::future::Future;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use crate::running::Busy;
pub(crate) use crate::running::Running;

/// Runs around each turn of every context's loop, on that context's thread. The RCU crate
/// pins and unpins here.
///
/// A panic in here ends the runtime with an error.
pub trait TurnHook: Send + Sync {
    /// A turn begins: tasks and bottom halves are about to run.
    fn turn_begin(&self);
    /// The turn is over; the thread may sleep now.
    fn turn_end(&self);
}

/// A task poll or bottom half that took longer than the limit.
#[derive(Clone, Debug)]
pub struct Stall {
    /// The context it ran in.
    pub context: String,
    /// The task's or bottom half's name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// What the watchdog calls on a stall, on the context's thread. Must not block.
pub type StallHandler = Arc<dyn Fn(&Stall) + Send + Sync>;

/// Every context of one runtime.
pub(crate) struct Registry {
    pub(crate) contexts: Box<[Arc<Shared>]>,
    pub(crate) stopping: AtomicBool,
    pub(crate) hooks: Vec<Arc<dyn TurnHook>>,
    pub(crate) on_stall: Option<StallHandler>,
    pub(crate) stall_limit: Duration,
    pub(crate) poll_ns_max: u64,
}

impl Registry {
    pub(crate) fn shared(&self, index: usize) -> &Arc<Shared> {
        &self.contexts[index]
    }
}

/// A reactor, QEMU's AioContext: one thread, one ring, its tasks, bottom halves and timers.
///
/// This is a handle; clones are cheap and may go to any thread. It may outlive its reactor:
/// what is spawned or scheduled then never runs and is dropped.
#[derive(Clone)]
pub struct Context {
    pub(crate) registry: Arc<Registry>,
    pub(crate) index: usize,
}

impl Context {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.registry.shared(self.index)
    }

    /// `main`, `iohandler`, `monitor` or `core-N`. Any thread; never blocks.
    pub fn name(&self) -> &str {
        &self.shared().name
    }

    /// The host CPU that the thread is pinned to, where it is. Any thread; never blocks.
    pub fn cpu(&self) -> Option<usize> {
        self.shared().cpu
    }

    /// Whether the calling thread is this context's. Any thread; never blocks.
    pub fn is_current(&self) -> bool {
        local::is_current(self.shared())
    }

    /// Starts a task here. Any thread; takes a short lock. The task may [`hop`](crate::hop).
    ///
    /// `name` is what the watchdog and the log call it.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        task::spawn(self, name, future)
    }

    /// Starts a task here whose future is made on the context's thread and never leaves it, so it
    /// need not be `Send`. Any thread; takes a short lock.
    pub fn spawn_local_with<M, F>(&self, name: &'static str, make: M) -> JoinHandle<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        task::spawn_local_with(self, name, make)
    }

    /// Queues a one-shot bottom half (QEMU's `aio_bh_schedule_oneshot`). Any thread; never blocks.
    /// Bottom halves of one sender run in the order they were queued, never inside one another.
    pub fn schedule_bh(&self, f: impl FnOnce() + Send + 'static) {
        self.schedule_named_bh("bottom half", f);
    }

    /// As [`schedule_bh`](Self::schedule_bh), with a name for the watchdog.
    pub fn schedule_named_bh(&self, name: &'static str, f: impl FnOnce() + Send + 'static) {
        self.shared().send(Work::Once(name, Box::new(f)));
    }

    /// Makes a bottom half that can be scheduled again and again (QEMU's `aio_bh_new`). Any thread;
    /// never blocks.
    pub fn bottom_half(&self, name: &'static str, f: impl FnMut() + Send + 'static) -> BottomHalf {
        BottomHalf::new(self.clone(), name, Box::new(f))
    }

    /// Waits until all operations and tasks that carry `token` at this moment have ended, wherever they
    /// run (QEMU's drained sections, without a nested loop): only the calling task waits. This context
    /// goes on running everything else, so what needs another task to finish finishes. What is tagged
    /// later is not waited for.
    ///
    /// # Panics
    /// Off this context, where the caller's wait would not leave it free to run; in a task that carries
    /// `token` itself and would wait for its own end.
    pub async fn drain(&self, token: &DrainToken) {
        assert!(self.is_current(), "{self:?} is drained by one of its own tasks, from inside");
        token.drained().await;
    }

    /// What this context has done so far. Any thread; takes a short lock.
    pub fn counters(&self) -> Counters {
        let shared = self.shared();
        let mailbox = &shared.mailbox;
        let mut counters = shared.counters.snapshot();
        counters.wakeups_sent = mailbox.sent.load(Ordering::Relaxed);
        counters.wakeups_coalesced = mailbox.coalesced.load(Ordering::Relaxed);
        (counters.tasks_spawned, counters.tasks_alive) = shared.tasks.counts();
        counters
    }

    /// The task or bottom half that this context runs at this moment, and for how long it has done so:
    /// what to ask of a context that does not answer. Any thread; never blocks.
    pub fn busy(&self) -> Option<Busy> {
        self.shared().running.get()
    }

    /// The ring's descriptor number, once there is one. Any thread; never blocks.
    pub fn ring_fd(&self) -> Option<RawFd> {
        let fd = self.shared().ring_fd.load(Ordering::Relaxed);
        (fd >= 0).then_some(fd)
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.registry, &other.registry) && self.index == other.index
    }
}

impl Eq for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.name())
    }
}
