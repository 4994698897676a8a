//! Moving a task to another context.

use crate::context::Context;
use crate::local;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as PollContext, Poll};

/// Makes `target` the task's home and goes on there (QEMU's `aio_co_reschedule_self`). Ready at once
/// where the task is at `target` already.
///
/// The whole task moves, with all that it joins or selects over. Dropped before it is ready, it leaves
/// the task where it is. Operations in flight must have ended or been dropped before: they belong to
/// the ring of the context they were submitted in.
///
/// # Panics
/// When polled in a task made by [`spawn_local`](crate::spawn_local) or
/// [`Context::spawn_local_with`], whose future may not leave its thread; outside of a task; when
/// `target` belongs to another runtime.
pub fn hop(target: &Context) -> Hop<'_> {
    Hop { target, request: None }
}

/// See [`hop`].
#[must_use = "a task moves when this is awaited"]
pub struct Hop<'a> {
    target: &'a Context,
    /// The request that this future has made and not seen granted.
    request: Option<u64>,
}

impl Future for Hop<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut PollContext<'_>) -> Poll<()> {
        if self.target.is_current() {
            self.request = None;
            return Poll::Ready(());
        }
        self.request = Some(local::request_hop(self.target));
        // For who polls futures by their own wakers (FuturesUnordered): look at this one after the move.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Hop<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            local::withdraw_hop(request);
        }
    }
}
