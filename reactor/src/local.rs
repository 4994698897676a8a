//! The part of a context that only its own thread touches, and the way to it.

use crate::context::{Context, Registry, Shared};
use crate::op::table::OpTable;
use crate::op::token::Token;
use crate::ring::Ring;
use crate::task::Task;
use crate::timer::Timers;
use io_uring::{opcode, squeue, types};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// No borrow of a field is held while a waker, a destructor of a user's value or a handler runs:
/// each of them may come back here.
pub(crate) struct Local {
    pub(crate) context: Context,
    pub(crate) ring: RefCell<Ring>,
    pub(crate) ops: RefCell<OpTable>,
    pub(crate) timers: RefCell<Timers>,
    ready: RefCell<VecDeque<Arc<Task>>>,
    hop_target: Cell<Option<usize>>,
    /// The task being polled is bound to this thread.
    pub(crate) runs_local_task: Cell<bool>,
    /// The clock at the last look; good enough for what needs no more than a turn's precision.
    pub(crate) now: Cell<Instant>,
}

impl Local {
    pub(crate) fn new(context: Context, ring: Ring) -> Self {
        Self {
            context,
            ring: RefCell::new(ring),
            ops: RefCell::new(OpTable::new()),
            timers: RefCell::new(Timers::new()),
            ready: RefCell::new(VecDeque::new()),
            hop_target: Cell::new(None),
            runs_local_task: Cell::new(false),
            now: Cell::new(Instant::now()),
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.context.shared()
    }

    pub(crate) fn push_ready(&self, task: Arc<Task>) {
        task.mark_queued(self.now.get());
        self.ready.borrow_mut().push_back(task);
    }

    pub(crate) fn pop_ready(&self) -> Option<Arc<Task>> {
        self.ready.borrow_mut().pop_front()
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.borrow().len()
    }

    pub(crate) fn take_hop_target(&self) -> Option<usize> {
        self.hop_target.take()
    }

    /// Queues a submission.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion has been reaped.
    pub(crate) unsafe fn submit(&self, entry: squeue::Entry) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.ring.borrow_mut().push(entry) };
    }

    /// Asks the kernel to cancel the operation `token`; its own completion tells how that went.
    pub(crate) fn cancel_op(&self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.to_user_data())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::IGNORE.to_user_data());
        // SAFETY: a cancellation points to nothing.
        unsafe { self.submit(entry) };
    }

    /// Posts a wake-up message into another context's ring.
    fn post_wakeup(&self, ring_fd: RawFd, target: usize) {
        let user_data = Token::WAKE.to_user_data();
        let entry = opcode::MsgRingData::new(types::Fd(ring_fd), 0, user_data, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::wakeup_failed(target).to_user_data());
        // SAFETY: a message points to nothing.
        unsafe { self.submit(entry) };
    }
}

/// Makes `local` the thread's context until the guard is dropped.
pub(crate) fn install(local: &Rc<Local>) -> Installed {
    LOCAL.with(|slot| {
        let before = slot.borrow_mut().replace(Rc::clone(local));
        assert!(before.is_none(), "a thread runs one reactor at most: the loop is never nested");
    });
    Installed
}

pub(crate) struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        let local = LOCAL.with(|slot| slot.borrow_mut().take());
        drop(local);
    }
}

/// Runs `f` on the calling thread's reactor, if it is one.
pub(crate) fn try_with<R>(f: impl FnOnce(&Rc<Local>) -> R) -> Option<R> {
    // The thread-local itself may be gone while a thread ends.
    LOCAL
        .try_with(|slot| slot.borrow().as_ref().map(Rc::clone))
        .ok()
        .flatten()
        .map(|local| f(&local))
}

/// Runs `f` on the calling thread's reactor.
///
/// # Panics
/// Off a reactor.
pub(crate) fn with<R>(f: impl FnOnce(&Rc<Local>) -> R) -> R {
    try_with(f).expect("this must be called from a task or bottom half of a reactor")
}

/// The context of the calling thread, or `None` off a reactor.
pub fn try_current() -> Option<Context> {
    try_with(|local| local.context.clone())
}

/// The context of the calling thread.
///
/// # Panics
/// Off a reactor.
pub fn current() -> Context {
    with(|local| local.context.clone())
}

/// Whether the calling thread runs a reactor.
pub fn on_reactor() -> bool {
    try_with(|_| ()).is_some()
}

/// Puts a woken task on the ready list when the calling thread is its home.
pub(crate) fn push_ready(registry: &Arc<Registry>, home: usize, task: &Arc<Task>) -> bool {
    try_with(|local| {
        let here = local.context.index == home && Arc::ptr_eq(&local.context.registry, registry);
        if here {
            local.push_ready(Arc::clone(task));
        }
        here
    })
    .unwrap_or(false)
}

/// Queues a wake-up message on the calling thread's ring; false where it has none of this runtime.
pub(crate) fn post_message(registry: &Arc<Registry>, target: usize, ring_fd: RawFd) -> bool {
    try_with(|local| {
        let usable = Arc::ptr_eq(&local.context.registry, registry)
            && !local.shared().stopped.load(std::sync::atomic::Ordering::Relaxed);
        if usable {
            local.post_wakeup(ring_fd, target);
        }
        usable
    })
    .unwrap_or(false)
}

/// Asks the loop to move the task being polled.
pub(crate) fn request_hop(target: &Context) {
    with(|local| {
        assert!(
            Arc::ptr_eq(&local.context.registry, &target.registry),
            "a task cannot hop to a context of another runtime"
        );
        assert!(!local.runs_local_task.get(), "a task made by spawn_local cannot hop");
        local.hop_target.set(Some(target.index));
    });
}

/// Gives up the operations that the kernel has not let go of, and the ring with them.
pub(crate) fn leak_ops(local: &Rc<Local>) {
    let ops = std::mem::replace(&mut *local.ops.borrow_mut(), OpTable::new());
    std::mem::forget(ops);
    // One reference more than anybody drops: the ring stays open as well.
    std::mem::forget(Rc::clone(local));
}
