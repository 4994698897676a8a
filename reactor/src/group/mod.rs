//! The data path: many operations of one task, without an allocation for each.
//!
//! A device queue submits straight on guest memory and takes completions by a number of its own.
//! What the kernel may touch is kept by the group, not by the single operation.

mod submit;

pub use submit::{FixedFile, Target};

use crate::drain::{DrainToken, InFlight};
use crate::fd::Fd;
use crate::local::{self, Local};
use crate::op::table::State;
use crate::ring::Cqe;
use io_uring::squeue;
use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Context as PollContext, Poll, Waker};

/// A completion of an operation that was submitted through an [`OpGroup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The number given at submission.
    pub token: u64,
    /// A byte count, or a negative errno.
    pub result: i32,
}

impl Completion {
    /// The byte count, or the errno as an error.
    pub fn into_result(self) -> io::Result<u32> {
        crate::op::to_result(self.result)
    }
}

pub(crate) struct Inner {
    ready: RefCell<VecDeque<Completion>>,
    waker: RefCell<Option<Waker>>,
    in_flight: Cell<usize>,
    /// Where reads of eventfds land; nobody needs their counts.
    scratch: UnsafeCell<u64>,
    /// Everything that submissions point to. Dropped after the last completion.
    keep: RefCell<Vec<Rc<dyn Any>>>,
    /// Eventfds being watched, by their numbers.
    watched: RefCell<Vec<(u64, Fd)>>,
    closed: Cell<bool>,
    tag: RefCell<Option<DrainToken>>,
}

impl Inner {
    /// Called by the loop for each completion; `tag` ends with the operation.
    pub(crate) fn completed(self: &Rc<Self>, token: u64, cqe: Cqe, tag: Option<InFlight>) {
        if !cqe.more() {
            self.in_flight.set(self.in_flight.get() - 1);
        }
        if !self.closed.get() {
            if !cqe.more() {
                self.watch_again(token, cqe.result);
            }
            self.ready.borrow_mut().push_back(Completion { token, result: cqe.result });
            let waker = self.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        drop(tag);
    }

    /// Goes on watching an eventfd whose poll the kernel has ended, unless that was an error.
    fn watch_again(self: &Rc<Self>, token: u64, result: i32) {
        let mut watched = self.watched.borrow_mut();
        let Some(place) = watched.iter().position(|(number, _)| *number == token) else { return };
        if result < 0 {
            let gone = watched.swap_remove(place);
            drop(watched);
            drop(gone);
            return;
        }
        let entry = submit::poll_eventfd(watched[place].1.as_raw_fd());
        drop(watched);
        self.push_watch(entry, token);
    }

    /// Queues an entry for what goes on until it is cancelled: no drain waits for that.
    fn push_watch(self: &Rc<Self>, entry: squeue::Entry, token: u64) {
        local::with(|local| self.push(local, entry, token, None));
    }

    fn push(
        self: &Rc<Self>,
        local: &Local,
        entry: squeue::Entry,
        token: u64,
        tag: Option<InFlight>,
    ) {
        let state = State::Grouped { group: Rc::clone(self), token, tag };
        let op = local.ops.borrow_mut().insert(state);
        self.in_flight.set(self.in_flight.get() + 1);
        // SAFETY: what the entry points to is in `keep` (the caller's promise), in `Inner` itself
        // (scratch), or static; the table holds `Inner`, and with it `keep`, until the completion.
        // Tested by `dropped_group_frees_its_memory_after_the_last_completion`.
        unsafe { local.submit(entry.user_data(op.to_user_data())) };
    }
}

/// A set of operations of one task on the current context. Not `Send`.
///
/// Dropping the group cancels what is in flight; what was passed to [`OpGroup::new`] is dropped
/// when the kernel has let go of all of it. Every function that submits is called on a reactor, and
/// panics elsewhere; none blocks, and what they submit rides the next enter of the loop.
pub struct OpGroup {
    inner: Rc<Inner>,
}

impl OpGroup {
    /// A group whose submissions point into what `keep` holds; room for `capacity` completions is
    /// allocated now.
    pub fn new(capacity: usize, keep: Rc<dyn Any>) -> Self {
        Self {
            inner: Rc::new(Inner {
                ready: RefCell::new(VecDeque::with_capacity(capacity)),
                waker: RefCell::new(None),
                in_flight: Cell::new(0),
                scratch: UnsafeCell::new(0),
                keep: RefCell::new(vec![keep]),
                watched: RefCell::new(Vec::new()),
                closed: Cell::new(false),
                tag: RefCell::new(None),
            }),
        }
    }

    /// Keeps one thing more until the last completion.
    pub fn keep(&self, value: Rc<dyn Any>) {
        self.inner.keep.borrow_mut().push(value);
    }

    /// Marks what is submitted from now on with `token`, each until its last completion, for
    /// [`Context::drain`](crate::Context::drain). Costs two atomic additions an operation.
    pub fn tag(&self, token: &DrainToken) {
        let before = self.inner.tag.borrow_mut().replace(token.clone());
        drop(before);
    }

    /// How many submissions have not completed.
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight.get()
    }

    fn push(&self, local: &Local, entry: squeue::Entry, token: u64) {
        let tag = self.inner.tag.borrow().as_ref().map(DrainToken::begin);
        self.inner.push(local, entry, token, tag);
    }

    /// Queues a write of 1 to an eventfd, such as an irqfd; it rides the next enter, and its
    /// completion is not reported unless it fails, which an eventfd below its limit does not. The caller
    /// keeps the descriptor open until the end of the turn.
    ///
    /// The eventfd should have `EFD_NONBLOCK`, as irqfds do: the kernel then writes at once, for 0.3 us. It
    /// hands a write to a blocking one to a worker thread, which takes 50 us.
    pub fn signal_eventfd(fd: RawFd) {
        submit::signal_eventfd(fd);
    }

    /// A completion that is there already.
    pub fn try_next(&self) -> Option<Completion> {
        self.inner.ready.borrow_mut().pop_front()
    }

    /// The next completion, or `Pending` with `cx` to be woken for it.
    pub fn poll_next(&self, cx: &mut PollContext<'_>) -> Poll<Completion> {
        if let Some(completion) = self.try_next() {
            return Poll::Ready(completion);
        }
        let known =
            self.inner.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !known {
            // Cloned and dropped without a borrow: a waker may come from anywhere.
            let waker = cx.waker().clone();
            let stale = self.inner.waker.borrow_mut().replace(waker);
            drop(stale);
        }
        Poll::Pending
    }

    /// The next completion. Waits for ever when nothing is in flight.
    pub async fn next(&self) -> Completion {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Asks the kernel to cancel all that is in flight; the completions still arrive (ECANCELED,
    /// or the result where it was too late).
    pub fn cancel_all(&self) {
        local::with(|local| {
            let tokens = local.ops.borrow().tokens_of(&self.inner);
            for token in tokens {
                local.cancel_op(token);
            }
        });
    }

    /// Registers a file with the current context's ring; see [`Fd::register`](crate::Fd::register).
    pub fn register_file(fd: &Fd) -> io::Result<FixedFile> {
        FixedFile::new(fd)
    }

    /// Queues a read of an eventfd: completes once it has been signalled, and resets it. The caller
    /// keeps the descriptor open until then (give it to [`OpGroup::keep`]). An eventfd with
    /// `EFD_NONBLOCK` may complete at once with EAGAIN, depending on the kernel's version.
    pub fn wait_eventfd(&self, fd: RawFd, token: u64) {
        let entry = submit::read_eventfd(fd, self.inner.scratch.get());
        local::with(|local| self.push(local, entry, token));
    }

    /// Watches an eventfd that nobody reads, with a multishot poll: a completion with `token` comes each
    /// time the eventfd has been signalled, and at once where it was before; signals that come faster
    /// than the loop turns are united. Once submitted it goes on by itself, until a completion with an
    /// error, and spares a submission for each signal. The group keeps the descriptor open; `token`
    /// belongs to the watch alone.
    pub fn watch_eventfd(&self, fd: &Fd, token: u64) {
        self.inner.watched.borrow_mut().push((token, fd.clone()));
        self.inner.push_watch(submit::poll_eventfd(fd.as_raw_fd()), token);
    }
}

impl Drop for OpGroup {
    fn drop(&mut self) {
        self.inner.closed.set(true);
        let waker = self.inner.waker.borrow_mut().take();
        drop(waker);
        if self.in_flight() > 0 && local::on_reactor() {
            self.cancel_all();
        }
    }
}
