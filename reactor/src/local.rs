//! The part of a context that only its own thread touches, and the way to it.

use crate::ambient::Ambient;
use crate::context::Context;
use crate::mailbox::Shared;
use crate::op::table::OpTable;
use crate::op::token::Token;
use crate::ring::Ring;
use crate::task::Runnable;
use crate::timer::Timers;
use crate::wake::Notify;
use io_uring::{opcode, squeue, types};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

/// What kind of task is being polled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Polling {
    None,
    Task,
    LocalTask,
}

/// No borrow of a field is held while a waker, a destructor of a user's value or a handler runs:
/// each of them may come back here.
pub(crate) struct Local {
    pub(crate) context: Context,
    pub(crate) shared: Arc<Shared>,
    pub(crate) ring: RefCell<Ring>,
    pub(crate) ops: RefCell<OpTable>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) ambient: Ambient,
    ready: RefCell<VecDeque<Arc<dyn Runnable>>>,
    /// Tasks that have woken themselves: they have had their part of this turn.
    next_turn: RefCell<VecDeque<Arc<dyn Runnable>>>,
    polling: Cell<Polling>,
    /// Where the task being polled wants to go, and which request said so.
    hop: Cell<Option<(usize, u64)>>,
    hop_requests: Cell<u64>,
    /// A bit for each context that has been sent work in this turn.
    wakes: Box<[Cell<u64>]>,
    /// The clock at the last look; good enough for what needs no more than a turn's precision.
    pub(crate) now: Cell<Instant>,
}

impl Local {
    pub(crate) fn new(context: Context, ring: Ring) -> Self {
        let shared = Arc::clone(context.shared());
        let words = context.registry.contexts.len().div_ceil(64);
        Self {
            // Unlike those of other contexts.
            hop_requests: Cell::new((shared.index as u64) << 48),
            context,
            shared,
            ring: RefCell::new(ring),
            ops: RefCell::new(OpTable::new()),
            timers: RefCell::new(Timers::new()),
            ambient: Ambient::default(),
            ready: RefCell::new(VecDeque::new()),
            next_turn: RefCell::new(VecDeque::new()),
            polling: Cell::new(Polling::None),
            hop: Cell::new(None),
            wakes: (0..words).map(|_| Cell::new(0)).collect(),
            now: Cell::new(Instant::now()),
        }
    }

    /// Queues a task that is SCHEDULED and whose home this is.
    pub(crate) fn push_ready(&self, task: Arc<dyn Runnable>) {
        task.header().mark_queued(self.now.get());
        self.ready.borrow_mut().push_back(task);
    }

    /// Queues a task that was woken while it ran, for the next turn: after a look at completions and
    /// timers, however often it does that.
    pub(crate) fn push_next(&self, task: Arc<dyn Runnable>) {
        task.header().mark_queued(self.now.get());
        self.next_turn.borrow_mut().push_back(task);
    }

    /// A turn begins: tasks that have waited for it are ready.
    pub(crate) fn turn_begins(&self) {
        self.ready.borrow_mut().append(&mut self.next_turn.borrow_mut());
    }

    pub(crate) fn pop_ready(&self) -> Option<Arc<dyn Runnable>> {
        self.ready.borrow_mut().pop_front()
    }

    /// Whether no task is to run, in this turn or the next.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.borrow().is_empty() && self.next_turn.borrow().is_empty()
    }

    /// A task is about to be polled.
    pub(crate) fn task_begins(&self, local: bool) {
        self.polling.set(if local { Polling::LocalTask } else { Polling::Task });
    }

    /// The poll is over; where the task wants to go.
    pub(crate) fn task_ends(&self) -> Option<usize> {
        self.polling.set(Polling::None);
        self.hop.take().map(|(target, _)| target)
    }

    /// Queues a submission.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion has been reaped.
    pub(crate) unsafe fn submit(&self, entry: squeue::Entry) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.ring.borrow_mut().push(entry) };
    }

    /// Queues a submission with a time limit linked to it.
    ///
    /// # Safety
    /// As [`submit`](Self::submit), and `timespec` must stay valid as long. `token` names the entry.
    pub(crate) unsafe fn submit_within(
        &self,
        entry: squeue::Entry,
        token: Token,
        limit: *const types::Timespec,
    ) {
        let timeout =
            opcode::LinkTimeout::new(limit).build().user_data(token.link_timeout().to_user_data());
        // SAFETY: the caller's promise is passed on.
        unsafe { self.ring.borrow_mut().push_linked(entry, timeout) };
    }

    /// Asks the kernel to cancel the operation `token`; its own completion tells how that went.
    pub(crate) fn cancel_op(&self, token: Token) {
        self.shared.counters.cancels.add(1);
        let entry = opcode::AsyncCancel::new(token.to_user_data())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::IGNORE.to_user_data());
        // SAFETY: a cancellation points to nothing.
        unsafe { self.submit(entry) };
    }

    /// Posts a wake-up message to each context that has been sent work since the last time, unless it is
    /// awake or somebody else's message is on its way.
    pub(crate) fn flush_wakes(&self) {
        for (n, word) in self.wakes.iter().enumerate() {
            let mut bits = word.take();
            while bits != 0 {
                let index = n * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                self.flush_wake(index);
            }
        }
    }

    fn flush_wake(&self, index: usize) {
        let target = self.context.registry.shared(index);
        let mailbox = &target.mailbox;
        if mailbox.wake.notify() == Notify::Coalesced {
            mailbox.coalesced.fetch_add(1, Ordering::Relaxed);
            return;
        }
        mailbox.sent.fetch_add(1, Ordering::Relaxed);
        let ring_fd = types::Fd(target.ring_fd.load(Ordering::Relaxed));
        let user_data = Token::WAKE.to_user_data();
        let entry = opcode::MsgRingData::new(ring_fd, 0, user_data, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::wakeup_failed(index).to_user_data());
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

/// The context of the calling thread, or `None` off a reactor. Any thread; never blocks.
pub fn try_current() -> Option<Context> {
    try_with(|local| local.context.clone())
}

/// The context of the calling thread. Tasks and bottom halves; never blocks.
///
/// # Panics
/// Off a reactor.
pub fn current() -> Context {
    with(|local| local.context.clone())
}

/// Whether the calling thread runs a reactor. Any thread; never blocks.
pub fn on_reactor() -> bool {
    try_with(|_| ()).is_some()
}

/// Whether the calling thread runs the context of `shared`.
pub(crate) fn is_current(shared: &Arc<Shared>) -> bool {
    try_with(|local| Arc::ptr_eq(&local.shared, shared)).unwrap_or(false)
}

/// Puts a woken task on the ready list when the calling thread is its home; gives it back elsewhere.
pub(crate) fn push_ready<T: Runnable + 'static>(
    home: usize,
    task: Arc<T>,
) -> Result<(), Arc<dyn Runnable>> {
    let mut task: Option<Arc<dyn Runnable>> = Some(task);
    try_with(|local| {
        let here = local.shared.index == home
            && task
                .as_ref()
                .is_some_and(|task| Arc::ptr_eq(&local.context.registry, &task.header().registry));
        if here {
            task.take().into_iter().for_each(|task| local.push_ready(task));
        }
    });
    task.map_or(Ok(()), Err)
}

/// Notes that `target` has been sent work; false where the calling thread has no ring of its runtime, or
/// none that still turns.
pub(crate) fn wake_later(target: &Shared) -> bool {
    try_with(|local| {
        let usable =
            local.shared.runtime == target.runtime && !local.shared.stopped.load(Ordering::Relaxed);
        if usable {
            let word = &local.wakes[target.index / 64];
            let bit = 1 << (target.index % 64);
            let here = target.index == local.shared.index;
            // The loop looks at its own queue before it sleeps.
            if here || word.get() & bit != 0 {
                target.mailbox.coalesced.fetch_add(1, Ordering::Relaxed);
            } else {
                word.set(word.get() | bit);
            }
        }
        usable
    })
    .unwrap_or(false)
}

/// Asks the loop to move the task being polled; the number names the request.
pub(crate) fn request_hop(target: &Context) -> u64 {
    with(|local| {
        assert!(
            Arc::ptr_eq(&local.context.registry, &target.registry),
            "a task cannot hop to a context of another runtime"
        );
        let polling = local.polling.get();
        assert!(polling != Polling::LocalTask, "a task made by spawn_local cannot hop");
        assert!(polling == Polling::Task, "only a task can hop");
        let request = local.hop_requests.get();
        local.hop_requests.set(request.wrapping_add(1));
        local.hop.set(Some((target.index, request)));
        request
    })
}

/// The future that made the request is gone.
pub(crate) fn withdraw_hop(request: u64) {
    try_with(|local| {
        if local.hop.get().is_some_and(|(_, current)| current == request) {
            local.hop.set(None);
        }
    });
}

/// Gives up the operations that the kernel has not let go of, and the ring with them.
pub(crate) fn leak_ops(local: &Rc<Local>) {
    local.shared.leaked.store(true, Ordering::Release);
    let ops = std::mem::replace(&mut *local.ops.borrow_mut(), OpTable::new());
    std::mem::forget(ops);
    // One reference more than anybody drops: the ring stays open as well.
    std::mem::forget(Rc::clone(local));
}
