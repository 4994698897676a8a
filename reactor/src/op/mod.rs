//! Operations as futures: one type an opcode, each owning all that the kernel reads or writes.

pub(crate) mod buf;
pub(crate) mod codes;
pub(crate) mod message;
pub(crate) mod multi;
pub(crate) mod paths;
pub(crate) mod table;
pub(crate) mod token;

use crate::ambient::Extras;
use crate::local::{self, Local};
use crate::mailbox::Shared;
use crate::ring::Cqe;
use crate::work::HomeWork;
use io_uring::squeue;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as PollContext, Poll, Waker};
use table::{Next, Orphan, Orphaned, State};
use token::Token;

/// One opcode with its arguments.
///
/// # Safety
/// What `entry` points to must be owned by `self` through a stable heap address or a descriptor, so that it is
/// valid until `self` is dropped, wherever `self` (boxed) is moved.
pub(crate) unsafe trait OpCode: Send + Unpin + 'static {
    type Output;
    /// Builds the submission for the ring of `home`.
    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry;
    /// Interprets the result (`Ok`: what the kernel returned; `Err`: the errno).
    fn complete(self, result: io::Result<u32>) -> Self::Output;
    /// The future was dropped before; a descriptor in `result` must be closed.
    fn orphaned(&mut self, result: i32) {
        let _ = result;
    }
}

/// The kernel's convention: a negative result is an errno.
pub(crate) fn to_result(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

/// An operation's arguments and what else lives as long.
struct Held<C> {
    code: C,
    extras: Option<Box<Extras>>,
}

impl<C: OpCode> Orphan for Held<C> {
    fn completed(&mut self, cqe: Cqe) {
        self.code.orphaned(cqe.result);
    }
}

/// Where an operation was submitted, and its name there.
pub(crate) struct Submitted {
    home: Arc<Shared>,
    token: Token,
}

impl Submitted {
    /// # Panics
    /// Away from the ring that has the operation.
    fn assert_at_home(&self, local: &Local) {
        assert!(
            Arc::ptr_eq(&self.home, &local.shared),
            "an operation submitted in {} was polled in {}: finish or drop it before hopping",
            self.home.name,
            local.shared.name
        );
    }

    /// The next completion, or `None` with `waker` to be woken; `Err` where there will be none.
    fn poll(&self, local: &Local, waker: &Waker) -> Result<Option<Cqe>, Ended> {
        self.assert_at_home(local);
        let next = local.ops.borrow_mut().poll(self.token, waker);
        match next {
            Next::Ready(cqe) => Ok(Some(cqe)),
            Next::Ended => Err(Ended),
            Next::Pending => Ok(None),
            Next::Register => {
                let waker = waker.clone();
                let stale = local.ops.borrow_mut().register(self.token, waker);
                drop(stale);
                Ok(None)
            }
        }
    }

    /// Cancels the operation, whose future is gone, and leaves its memory to the table. Any thread.
    fn abandon(self, orphan: Box<dyn Orphan>) {
        if local::is_current(&self.home) {
            abandon(self.token, orphan);
        } else {
            // Dropped away from its ring: its own context cancels it. Where that context has ended,
            // so has the operation, or `leaked` says that its memory is to be kept.
            self.home.send_home(HomeWork::Abandon(self.token, orphan));
        }
    }
}

/// No completion will come.
struct Ended;

/// Cancels an operation of the current ring and leaves its data to the table.
pub(crate) fn abandon(token: Token, mut orphan: Box<dyn Orphan>) {
    local::with(|local| {
        let untaken = local.ops.borrow_mut().take_completions(token);
        for cqe in untaken {
            orphan.completed(cqe);
        }
        let over = local.ops.borrow_mut().orphan(token, orphan);
        match over {
            Orphaned::Over(orphan) => drop(orphan),
            Orphaned::Kept(waker) => {
                local.cancel_op(token);
                drop(waker);
            }
        }
    });
}

/// Submits `held` on the current ring.
///
/// # Safety
/// The caller keeps `held` boxed until the completion has been taken, or gives it to the table with
/// [`Submitted::abandon`].
unsafe fn submit<C: OpCode>(local: &Rc<Local>, held: &mut Held<C>, waker: Waker) -> Submitted {
    let home = &local.shared;
    let entry = held.code.entry(home);
    let token = local.ops.borrow_mut().insert(State::Waiting(waker));
    let entry = entry.user_data(token.to_user_data());
    let limit = held.extras.as_ref().and_then(|extras| extras.timespec());
    match limit {
        // SAFETY: `code` keeps what its entry points to (OpCode's contract), the caller keeps `held`.
        None => unsafe { local.submit(entry) },
        // SAFETY: as above; the timespec is in the boxed extras, which are part of `held`.
        Some(limit) => unsafe { local.submit_within(entry, token, limit) },
    }
    if let Some(extras) = &held.extras {
        extras.submitted(home, token);
    }
    Submitted { home: Arc::clone(home), token }
}

/// An operation as a future: submitted when first polled, on the ring of the context that polls it.
///
/// Dropping it cancels the operation; its buffers live until the kernel has let go of them.
#[must_use = "an operation does nothing unless it is awaited"]
pub(crate) struct Op<C: OpCode> {
    held: Option<Box<Held<C>>>,
    submitted: Option<Submitted>,
}

impl<C: OpCode> Op<C> {
    pub(crate) fn new(code: C) -> Self {
        Self { held: Some(Box::new(Held { code, extras: None })), submitted: None }
    }

    /// Ends with `result` and the arguments back.
    fn complete(&mut self, result: i32) -> Poll<C::Output> {
        self.submitted = None;
        let held = self.held.take().expect("an operation completes once");
        let Held { code, extras } = *held;
        let result = extras.as_ref().map_or(result, |extras| extras.interpret(result));
        drop(extras);
        Poll::Ready(code.complete(to_result(result)))
    }
}

impl<C: OpCode> Future for Op<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut PollContext<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        local::with(|local| {
            if let Some(submitted) = &this.submitted {
                return match submitted.poll(local, cx.waker()) {
                    Ok(Some(cqe)) => this.complete(cqe.result),
                    Ok(None) => Poll::Pending,
                    Err(Ended) => unreachable!("only multishot operations end without a result"),
                };
            }
            let Some(held) = &mut this.held else {
                panic!("an operation was polled after it ended")
            };
            match Extras::collect(local) {
                Ok(extras) => held.extras = extras,
                Err(errno) => return this.complete(-errno),
            }
            // SAFETY: `held` is boxed and owned by this future until the completion has been taken,
            // or given to the table by `drop`, which keeps it until the completion. Leaking the
            // future leaks the box. Tested by `dropped_read_keeps_its_buffer`.
            this.submitted = Some(unsafe { submit(local, held, cx.waker().clone()) });
            Poll::Pending
        })
    }
}

impl<C: OpCode> Drop for Op<C> {
    fn drop(&mut self) {
        if let (Some(held), Some(submitted)) = (self.held.take(), self.submitted.take()) {
            submitted.abandon(held);
        }
    }
}
