//! Ending operations early, with their buffers coming back: after a time, or on request.

use crate::ambient;
use crate::local;
use crate::mailbox::Shared;
use crate::op::token::Token;
use crate::work::HomeWork;
use slab::Slab;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Gives every operation that `future` submits a linked timeout (`IORING_OP_LINK_TIMEOUT`), so that the
/// last one ends `limit` from this call on at the latest, with `TimedOut`.
///
/// Unlike [`timeout`](crate::timeout) it drops nothing: the future goes on with the error, and with its
/// buffer. Only operations of [`io`](crate::io) and [`net`](crate::net) are limited; those that never
/// end by themselves (multishot) and waits for other things than a ring are not.
pub async fn within<F: Future>(limit: Duration, future: F) -> F::Output {
    let deadline = Instant::now().checked_add(limit);
    let mut future = pin!(future);
    poll_fn(|cx| match deadline {
        Some(deadline) => ambient::with_deadline(deadline, || future.as_mut().poll(cx)),
        // Further away than the clock counts.
        None => future.as_mut().poll(cx),
    })
    .await
}

/// Makes the operations that `future` submits end with `ECANCELED` once `canceller` says so; an
/// operation that has done its work by then ends with its result.
pub async fn cancellable<F: Future>(canceller: &Canceller, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| ambient::with_canceller(canceller, || future.as_mut().poll(cx))).await
}

#[derive(Default)]
struct State {
    cancelled: bool,
    /// The operations in flight, `None` between their registration and their submission.
    operations: Slab<Option<(Arc<Shared>, Token)>>,
}

/// Cancels operations (`IORING_OP_ASYNC_CANCEL`) whose futures live on and get their buffers back; see
/// [`cancellable`]. Dropping a future is the other way to cancel. Clones are the same canceller.
#[derive(Clone, Default)]
pub struct Canceller {
    state: Arc<Mutex<State>>,
}

impl Canceller {
    /// One that has not cancelled anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels what is in flight, and everything submitted later. Any thread; never blocks.
    pub fn cancel(&self) {
        let operations: Vec<_> = {
            let mut state = self.lock();
            state.cancelled = true;
            state.operations.iter().filter_map(|(_, operation)| operation.clone()).collect()
        };
        for (home, token) in operations {
            if local::is_current(&home) {
                local::with(|local| local.cancel_op(token));
            } else {
                home.send_home(HomeWork::Cancel(token));
            }
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Takes an operation in that is about to be submitted; `None` when it should not be.
    pub(crate) fn register(&self) -> Option<Registration> {
        let mut state = self.lock();
        if state.cancelled {
            return None;
        }
        let slot = state.operations.insert(None);
        drop(state);
        Some(Registration { canceller: self.clone(), slot })
    }
}

/// An operation's entry with a canceller.
pub(crate) struct Registration {
    canceller: Canceller,
    slot: usize,
}

impl Registration {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.canceller.is_cancelled()
    }

    pub(crate) fn submitted(&self, home: &Arc<Shared>, token: Token) {
        let mut state = self.canceller.lock();
        if let Some(operation) = state.operations.get_mut(self.slot) {
            *operation = Some((Arc::clone(home), token));
        }
        let cancelled = state.cancelled;
        drop(state);
        if cancelled {
            // Between the registration and now, by another thread.
            local::with(|local| local.cancel_op(token));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let removed = self.canceller.lock().operations.try_remove(self.slot);
        drop(removed);
    }
}
