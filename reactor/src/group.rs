//! The data path: many operations of one task, without an allocation for each.
//!
//! A device queue submits straight on guest memory and takes completions by a number of its own.
//! What the kernel may touch is kept by the group, not by the single operation.

use crate::fd::Fd;
use crate::local::{self, Local};
use crate::op::table::State;
use crate::op::token::Token;
use io_uring::{opcode, squeue, types};
use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Context as PollContext, Poll, Waker};

/// The value added to an eventfd to signal it.
static ONE: [u8; 8] = 1u64.to_ne_bytes();

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

/// A file for [`OpGroup`] operations.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An ordinary descriptor.
    Fd(&'a Fd),
    /// A file registered with [`OpGroup::register_file`].
    Fixed(&'a FixedFile),
}

pub(crate) struct Inner {
    ready: RefCell<VecDeque<Completion>>,
    waker: RefCell<Option<Waker>>,
    in_flight: Cell<usize>,
    /// Where reads of eventfds land; nobody needs their counts.
    scratch: UnsafeCell<u64>,
    /// Everything that submissions point to. Dropped after the last completion.
    keep: RefCell<Vec<Rc<dyn Any>>>,
    closed: Cell<bool>,
}

impl Inner {
    /// Called by the loop for each completion.
    pub(crate) fn completed(&self, token: u64, result: i32) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.closed.get() {
            return;
        }
        self.ready.borrow_mut().push_back(Completion { token, result });
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A file in the ring's table of registered files: operations on it skip the descriptor look-up.
///
/// Belongs to the context it was registered on.
#[derive(Debug)]
pub struct FixedFile {
    slot: u32,
    /// The table holds the file, this keeps its descriptor for operations that cannot use the table.
    fd: Fd,
}

impl FixedFile {
    /// The ordinary descriptor.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }
}

impl Drop for FixedFile {
    fn drop(&mut self) {
        // Without a reactor the ring is gone, and its table with it.
        local::try_with(|local| local.ring.borrow_mut().unregister_file(self.slot));
    }
}

/// A set of operations of one task on the current context. Not `Send`.
///
/// Dropping the group cancels what is in flight; what was passed to [`OpGroup::new`] is dropped
/// when the kernel has let go of all of it.
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
                closed: Cell::new(false),
            }),
        }
    }

    /// Keeps one thing more until the last completion.
    pub fn keep(&self, value: Rc<dyn Any>) {
        self.inner.keep.borrow_mut().push(value);
    }

    /// How many submissions have not completed.
    pub fn in_flight(&self) -> usize {
        self.inner.in_flight.get()
    }

    /// Registers a file with the current context's ring. Errors: the table is full, or the kernel
    /// refuses; use the descriptor itself then.
    ///
    /// # Panics
    /// Off a reactor.
    pub fn register_file(fd: &Fd) -> io::Result<FixedFile> {
        let slot = local::with(|local| local.ring.borrow_mut().register_file(fd.as_raw_fd()))?;
        Ok(FixedFile { slot, fd: fd.clone() })
    }

    fn push(&self, local: &Local, entry: squeue::Entry, token: u64) {
        let state = State::Grouped { group: Rc::clone(&self.inner), token };
        let op = local.ops.borrow_mut().insert(state);
        self.inner.in_flight.set(self.inner.in_flight.get() + 1);
        // SAFETY: what the entry points to is in `keep` (the caller's promise), in `Inner` itself
        // (scratch), or static; the table holds `Inner`, and with it `keep`, until the completion.
        unsafe { local.submit(entry.user_data(op.to_user_data())) };
    }

    /// Queues `IORING_OP_READV`.
    ///
    /// # Safety
    /// `iov` must point to `n` iovecs whose ranges, like the iovecs themselves, are part of what
    /// the group keeps, and which nobody turns into Rust references while in flight.
    pub unsafe fn readv(
        &self,
        file: Target<'_>,
        iov: *const libc::iovec,
        n: u32,
        offset: u64,
        token: u64,
    ) {
        let entry = match file {
            Target::Fd(fd) => opcode::Readv::new(types::Fd(fd.as_raw_fd()), iov, n),
            Target::Fixed(file) => opcode::Readv::new(types::Fixed(file.slot), iov, n),
        };
        local::with(|local| self.push(local, entry.offset(offset).build(), token));
    }

    /// Queues `IORING_OP_WRITEV`.
    ///
    /// # Safety
    /// As [`OpGroup::readv`].
    pub unsafe fn writev(
        &self,
        file: Target<'_>,
        iov: *const libc::iovec,
        n: u32,
        offset: u64,
        token: u64,
    ) {
        let entry = match file {
            Target::Fd(fd) => opcode::Writev::new(types::Fd(fd.as_raw_fd()), iov, n),
            Target::Fixed(file) => opcode::Writev::new(types::Fixed(file.slot), iov, n),
        };
        local::with(|local| self.push(local, entry.offset(offset).build(), token));
    }

    /// Queues `IORING_OP_FSYNC` (fdatasync(2)).
    pub fn fdatasync(&self, file: Target<'_>, token: u64) {
        let entry = match file {
            Target::Fd(fd) => opcode::Fsync::new(types::Fd(fd.as_raw_fd())),
            Target::Fixed(file) => opcode::Fsync::new(types::Fixed(file.slot)),
        };
        let entry = entry.flags(types::FsyncFlags::DATASYNC).build();
        local::with(|local| self.push(local, entry, token));
    }

    /// Queues `IORING_OP_FALLOCATE` with the mode of fallocate(2).
    pub fn fallocate(&self, file: Target<'_>, mode: i32, offset: u64, len: u64, token: u64) {
        let entry = match file {
            Target::Fd(fd) => opcode::Fallocate::new(types::Fd(fd.as_raw_fd()), len),
            Target::Fixed(file) => opcode::Fallocate::new(types::Fixed(file.slot), len),
        };
        let entry = entry.offset(offset).mode(mode).build();
        local::with(|local| self.push(local, entry, token));
    }

    /// Queues a read of an eventfd: completes once it has been signalled, and resets it. The caller
    /// keeps the descriptor open until then (give it to [`OpGroup::keep`]).
    pub fn wait_eventfd(&self, fd: RawFd, token: u64) {
        let entry = opcode::Read::new(types::Fd(fd), self.inner.scratch.get().cast(), 8);
        local::with(|local| self.push(local, entry.build(), token));
    }

    /// Queues a write of 1 to an eventfd, such as an irqfd; it rides the next enter, and its
    /// completion is not reported unless it fails, which an eventfd below its limit does not.
    pub fn signal_eventfd(fd: RawFd) {
        let entry = opcode::Write::new(types::Fd(fd), ONE.as_ptr(), 8)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Token::IGNORE.to_user_data());
        // SAFETY: the bytes are static.
        local::with(|local| unsafe { local.submit(entry) });
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
        let mut waker = self.inner.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            let stale = waker.replace(cx.waker().clone());
            drop(waker);
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
