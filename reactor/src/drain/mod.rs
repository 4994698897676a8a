//! Waiting for everything that carries a token, without stopping anything else.

mod phases;

pub(crate) use phases::Phases;

use crate::ambient;
use crate::sync::{Mutex, Notify};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

struct Inner {
    phases: Phases,
    /// One drain at a time turns the phases.
    turn: Mutex<()>,
    changed: Notify,
}

/// Marks operations and tasks that can be waited for together: those of a block node, of a device, of
/// a migration stream. Clones are the same token.
///
/// [`tag`](Self::tag) marks what a future does: the future itself, and every operation that it submits
/// to a ring. The latter count until the kernel has let go of them, also when their future was dropped
/// before. [`Context::drain`](crate::Context::drain) waits.
#[derive(Clone)]
pub struct DrainToken {
    inner: Arc<Inner>,
}

impl Default for DrainToken {
    fn default() -> Self {
        Self::new()
    }
}

impl DrainToken {
    /// A token that nothing carries yet. Any thread; never blocks.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                phases: Phases::new(),
                turn: Mutex::new(()),
                changed: Notify::new(),
            }),
        }
    }

    /// Marks something else than a future; over when the value is dropped. Any thread; costs one
    /// atomic addition.
    pub fn begin(&self) -> InFlight {
        InFlight { phase: self.inner.phases.begin(), inner: Arc::clone(&self.inner) }
    }

    /// Marks `future` from this call on until it has ended or was dropped, and the operations that it
    /// submits until they have ended. Tasks that it spawns are not marked.
    pub fn tag<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let in_flight = self.begin();
        let token = self.clone();
        async move {
            let _in_flight = in_flight;
            let mut future = pin!(future);
            poll_fn(|cx| ambient::with_tag(&token, || future.as_mut().poll(cx))).await
        }
    }

    /// How much is in flight at this moment. Any thread; never blocks.
    pub fn in_flight(&self) -> usize {
        self.inner.phases.in_flight()
    }

    /// Waits until all that carries the token at this moment has ended. Usable in any context, and off
    /// reactors; drains of one token take turns. See [`Context::drain`](crate::Context::drain).
    ///
    /// # Panics
    /// In a future that carries the token itself and would wait for its own end.
    pub async fn drained(&self) {
        assert!(!ambient::has_tag(self), "a tagged task cannot drain its own token");
        let inner = &*self.inner;
        let _turn = inner.turn.lock().await;
        let _waiting = Waiting::new(&inner.phases);
        let current = inner.phases.current();
        inner.idle(1 - current).await;
        inner.phases.turn();
        inner.idle(current).await;
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for DrainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainToken").field("in_flight", &self.in_flight()).finish()
    }
}

impl Inner {
    async fn idle(&self, phase: usize) {
        loop {
            // Before the look: what changes after it releases this.
            let changed = self.changed.notified();
            if self.phases.is_idle(phase) {
                return;
            }
            changed.await;
        }
    }
}

/// Ends the waiting also where the drain is dropped.
struct Waiting<'a>(&'a Phases);

impl<'a> Waiting<'a> {
    fn new(phases: &'a Phases) -> Self {
        phases.wait();
        Self(phases)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// Something that carries a [`DrainToken`]; over when dropped.
#[must_use = "what is dropped is not in flight any more"]
pub struct InFlight {
    inner: Arc<Inner>,
    phase: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.inner.phases.end(self.phase) {
            self.inner.changed.notify_all();
        }
    }
}
