//! Contexts: the handles through which any thread reaches a reactor, and what they share.

use crate::bh::{BottomHalf, Work};
use crate::counters::{CounterCells, Counters};
use crate::join::JoinHandle;
use crate::local;
use crate::queue::Mpsc;
use crate::task;
use crate::wake::{Notify, WakeState};
use std::fmt;
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

/// Runs around each turn of every context's loop, on that context's thread. The RCU crate
/// pins and unpins here.
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

/// The part of a context that other threads may touch.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) cpu: Option<usize>,
    pub(crate) inject: Mpsc<Work>,
    pub(crate) wake: WakeState,
    pub(crate) ring_fd: AtomicI32,
    pub(crate) eventfd: OwnedFd,
    pub(crate) counters: CounterCells,
    /// Set when the loop has ended: work sent here is dropped with the runtime.
    pub(crate) stopped: AtomicBool,
    pub(crate) tasks: task::Owned,
}

/// Every context of one runtime.
pub(crate) struct Registry {
    pub(crate) contexts: Box<[Shared]>,
    pub(crate) stopping: AtomicBool,
    pub(crate) hooks: Vec<Arc<dyn TurnHook>>,
    pub(crate) on_stall: Option<StallHandler>,
    pub(crate) stall_limit: Duration,
    pub(crate) poll_ns_max: u64,
}

impl Registry {
    pub(crate) fn shared(&self, index: usize) -> &Shared {
        &self.contexts[index]
    }

    /// Hands `work` to the context `index`, waking it where needed. Any thread, never blocks.
    pub(crate) fn inject(self: &Arc<Self>, index: usize, work: Work) {
        let shared = self.shared(index);
        shared.inject.push(work);
        self.wake(index);
    }

    /// Makes the context look at its queue.
    pub(crate) fn wake(self: &Arc<Self>, index: usize) {
        let shared = self.shared(index);
        if shared.wake.notify() == Notify::Coalesced {
            shared.counters.wakeups_coalesced.fetch_add(1, Ordering::Relaxed);
            return;
        }
        shared.counters.wakeups_sent.fetch_add(1, Ordering::Relaxed);
        let ring_fd = shared.ring_fd.load(Ordering::Relaxed);
        if ring_fd < 0 || !local::post_message(self, index, ring_fd) {
            shared.signal_eventfd();
        }
    }
}

impl Shared {
    /// The way to wake a context from a thread that has no ring.
    pub(crate) fn signal_eventfd(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is 8 bytes long and lives through the call. The eventfd's counter
        // never gets near its limit: one message is in flight at most, so the write cannot block.
        let n = unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        debug_assert_eq!(n, 8, "an eventfd takes 8 bytes");
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
    pub(crate) fn shared(&self) -> &Shared {
        self.registry.shared(self.index)
    }

    /// `main`, `iohandler`, `monitor` or `core-N`.
    pub fn name(&self) -> &str {
        &self.shared().name
    }

    /// The host CPU that the thread is pinned to, where it is.
    pub fn cpu(&self) -> Option<usize> {
        self.shared().cpu
    }

    /// Whether the calling thread is this context's.
    pub fn is_current(&self) -> bool {
        local::try_current().is_some_and(|current| current == *self)
    }

    /// Starts a task here. Any thread; never blocks. The task may [`hop`](crate::hop).
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        task::spawn(self, name, future)
    }

    /// Starts a task here whose future is made on the context's thread and never leaves it, so it
    /// need not be `Send`. Any thread; never blocks.
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
        self.registry.inject(self.index, Work::Once(name, Box::new(f)));
    }

    /// Makes a bottom half that can be scheduled again and again (QEMU's `aio_bh_new`).
    pub fn bottom_half(&self, name: &'static str, f: impl FnMut() + Send + 'static) -> BottomHalf {
        BottomHalf::new(self.clone(), name, Box::new(f))
    }

    /// What this context has done so far. Any thread.
    pub fn counters(&self) -> Counters {
        self.shared().counters.snapshot()
    }

    /// The ring's descriptor number, for posting messages to it (`IORING_OP_MSG_RING`).
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
