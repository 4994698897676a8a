//! Multishot operations: one submission, many completions, taken one after the other.

use super::table::{Backlog, Multi as MultiState, Orphan, State};
use super::{Ended, Submitted};
use crate::ambient::Extras;
use crate::local::{self, Local};
use crate::mailbox::Shared;
use crate::ring::Cqe;
use io_uring::squeue;
use std::io;
use std::sync::Arc;
use std::task::{Context as PollContext, Poll, Waker};

/// One multishot opcode with its arguments.
///
/// # Safety
/// As [`OpCode`](super::OpCode).
pub(crate) unsafe trait MultiCode: Send + Unpin + 'static {
    type Item;
    /// What to do with completions that are not taken as fast as they come.
    const BACKLOG: Backlog;
    /// Builds the submission for the ring of `home`; called again when the operation has ended.
    fn entry(&mut self, home: &Arc<Shared>) -> io::Result<squeue::Entry>;
    /// Interprets a completion. Called for every one of them: the item owns what came with it.
    fn item(&mut self, cqe: Cqe) -> Self::Item;
    /// The item for an operation that could not be submitted.
    fn refused(&mut self, error: io::Error) -> Self::Item;
}

struct Held<C> {
    code: C,
    /// Kept for what it counts and for its registrations; a deadline is for single operations.
    extras: Option<Box<Extras>>,
}

impl<C: MultiCode> Orphan for Held<C> {
    fn completed(&mut self, cqe: Cqe) {
        drop(self.code.item(cqe));
    }
}

/// A multishot operation: submitted when first polled, and again whenever the kernel has ended it.
///
/// Dropping it cancels the operation; what it uses lives until the kernel has let go of it.
pub(crate) struct Multi<C: MultiCode> {
    held: Option<Box<Held<C>>>,
    submitted: Option<Submitted>,
}

impl<C: MultiCode> Multi<C> {
    pub(crate) fn new(code: C) -> Self {
        Self { held: Some(Box::new(Held { code, extras: None })), submitted: None }
    }

    /// The next item, or `Pending` with the waker of `cx` to be woken. On a reactor.
    pub(crate) fn poll_next(&mut self, cx: &mut PollContext<'_>) -> Poll<C::Item> {
        local::with(|local| {
            let held = self.held.as_mut().expect("taken by drop only");
            if let Some(submitted) = &self.submitted {
                match submitted.poll(local, cx.waker()) {
                    Ok(Some(cqe)) => return Poll::Ready(held.code.item(cqe)),
                    Ok(None) => return Poll::Pending,
                    Err(Ended) => self.submitted = None,
                }
            }
            match submit(local, held, cx.waker().clone()) {
                Ok(submitted) => self.submitted = Some(submitted),
                Err(error) => return Poll::Ready(held.code.refused(error)),
            }
            Poll::Pending
        })
    }

    /// The arguments.
    pub(crate) fn code(&self) -> &C {
        &self.held.as_ref().expect("taken by drop only").code
    }
}

fn submit<C: MultiCode>(local: &Local, held: &mut Held<C>, waker: Waker) -> io::Result<Submitted> {
    held.extras = Extras::collect(local).map_err(io::Error::from_raw_os_error)?;
    let home = &local.shared;
    let entry = held.code.entry(home)?;
    let state = MultiState::new(C::BACKLOG, waker);
    let token = local.ops.borrow_mut().insert(State::Multi(Box::new(state)));
    // SAFETY: `held` is boxed and owned by the stream until the last completion has come, or given to
    // the table by its drop, which keeps it until then. Tested by `dropped_stream_returns_its_buffers`.
    unsafe { local.submit(entry.user_data(token.to_user_data())) };
    if let Some(extras) = &held.extras {
        extras.submitted(home, token);
    }
    Ok(Submitted { home: Arc::clone(home), token })
}

impl<C: MultiCode> Drop for Multi<C> {
    fn drop(&mut self) {
        if let (Some(held), Some(submitted)) = (self.held.take(), self.submitted.take()) {
            submitted.abandon(held);
        }
    }
}
