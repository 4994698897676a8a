//! Operations as futures: one type an opcode, each owning all that the kernel reads or writes.

pub(crate) mod buf;
pub(crate) mod codes;
pub(crate) mod table;
pub(crate) mod token;

use crate::context::Context;
use crate::local;
use io_uring::squeue;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context as PollContext, Poll};
use table::{Orphan, OrphanOutcome, State};
use token::Token;

/// One opcode with its arguments.
///
/// # Safety
/// What `entry` points to must be owned by `self` through a stable heap address or a descriptor, so that it is
/// valid until `self` is dropped, wherever `self` (boxed) is moved.
pub(crate) unsafe trait OpCode: Send + Unpin + 'static {
    type Output;
    /// Builds the submission.
    fn entry(&mut self) -> squeue::Entry;
    /// Interprets the result (`Ok`: what the kernel returned; `Err`: the errno).
    fn complete(self, result: io::Result<u32>) -> Self::Output;
    /// The future was dropped before; a descriptor in `result` must be closed.
    fn orphaned(self, result: i32)
    where
        Self: Sized,
    {
        let _ = result;
    }
}

/// The kernel's convention: a negative result is an errno.
pub(crate) fn to_result(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

struct Boxed<C>(Box<C>);

impl<C: OpCode> Orphan for Boxed<C> {
    fn ended(self: Box<Self>, result: i32) {
        (*self.0).orphaned(result);
    }
}

/// An operation as a future: submitted when first polled, on the ring of the context that polls it.
///
/// Dropping it cancels the operation; its buffers live until the kernel has let go of them.
#[must_use = "an operation does nothing unless it is awaited"]
pub(crate) struct Op<C: OpCode> {
    code: Option<Box<C>>,
    submitted: Option<(Context, Token)>,
}

impl<C: OpCode> Op<C> {
    pub(crate) fn new(code: C) -> Self {
        Self { code: Some(Box::new(code)), submitted: None }
    }
}

impl<C: OpCode> Future for Op<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut PollContext<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        local::with(|local| {
            let Some(code) = &mut this.code else {
                panic!("an operation was polled after it ended")
            };
            let Some((context, token)) = &this.submitted else {
                let token = local.ops.borrow_mut().insert(State::Waiting(cx.waker().clone()));
                let entry = code.entry().user_data(token.to_user_data());
                // SAFETY: `code` is boxed and owned by this future until the completion has been
                // taken, or given to the table by `drop`, which keeps it until the completion.
                // Leaking the future leaks the box. Tested by `dropped_read_keeps_its_buffer`.
                unsafe { local.submit(entry) };
                this.submitted = Some((local.context.clone(), token));
                return Poll::Pending;
            };
            assert!(
                *context == local.context,
                "an operation submitted in {context:?} was polled in {:?}: finish or drop it before hopping",
                local.context
            );
            let polled = local.ops.borrow_mut().poll(*token, cx.waker());
            let Some(result) = polled else { return Poll::Pending };
            this.submitted = None;
            let code = this.code.take().expect("checked above");
            Poll::Ready((*code).complete(to_result(result)))
        })
    }
}

impl<C: OpCode> Drop for Op<C> {
    fn drop(&mut self) {
        let (Some(code), Some((context, token))) = (self.code.take(), self.submitted.take()) else {
            return;
        };
        let orphan: Box<dyn Orphan> = Box::new(Boxed(code));
        if context.is_current() {
            abandon(token, orphan);
        } else {
            // Dropped away from its ring: its own context cancels it. Should that context have
            // stopped, the closure is kept with its queue, after the ring itself has ended.
            context.schedule_named_bh("cancel", move || abandon(token, orphan));
        }
    }
}

/// Cancels an operation of the current ring and leaves its data to the table.
fn abandon(token: Token, orphan: Box<dyn Orphan>) {
    local::with(|local| {
        let outcome = local.ops.borrow_mut().orphan(token, orphan);
        match outcome {
            OrphanOutcome::Ended(orphan, result) => orphan.ended(result),
            OrphanOutcome::Kept(_) => local.cancel_op(token),
        }
    });
}
