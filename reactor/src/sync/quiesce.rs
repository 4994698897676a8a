//! Requests that can be held off and waited for.

use super::Notify;
use super::rwlock::gate::Gate;
use crate::context::Context;
use crate::local;
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// Lets requests in, counted by context, until somebody [closes](Self::close) it and waits for those
/// inside: what a block device does while its storage changes (QEMU's drained section).
///
/// A request costs two uncontended atomic operations, one to begin and one to end. Sections nest: the
/// last one that ends lets requests in again. A request is counted from [`enter`](Self::enter) to
/// [`leave`](Self::leave), which may be called from another place in the program, and another context.
pub struct Quiesce {
    gate: Gate,
    /// Sections, and who waits for the last of them to end.
    closed: Mutex<(usize, Vec<Waker>)>,
    emptied: Notify,
}

/// A section in which no request is let in; ends when dropped, on any thread.
#[must_use = "dropping the section ends it"]
pub struct Section<'a>(&'a Quiesce);

impl Quiesce {
    /// One that is open, for requests in all contexts of the process that `any` is one of.
    pub fn new(any: &Context) -> Self {
        Self {
            gate: Gate::new(any.registry.contexts.len() + 1),
            closed: Mutex::new((0, Vec::new())),
            emptied: Notify::new(),
        }
    }

    /// Where requests of the current thread are counted.
    pub fn place(&self) -> usize {
        let here = local::try_with(|local| local.shared.index);
        here.unwrap_or(usize::MAX).min(self.gate.places() - 1)
    }

    /// Begins a request; false where requests are held off: it has not begun then.
    pub fn enter(&self, place: usize) -> bool {
        let entered = self.gate.enter(place);
        if !entered {
            self.leave(place);
        }
        entered
    }

    /// Ends a request that began at `place`. Any thread.
    pub fn leave(&self, place: usize) {
        if self.gate.leave(place) {
            self.emptied.notify_all();
        }
    }

    /// Has `waker` woken when requests are let in again. An [`enter`](Self::enter) after this call
    /// either succeeds or is followed by the wake-up.
    pub fn wake_when_open(&self, waker: &Waker) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if closed.0 > 0 && !closed.1.iter().any(|known| known.will_wake(waker)) {
            closed.1.push(waker.clone());
        }
    }

    /// Holds requests off from now on, until the section ends. Those inside go on: see
    /// [`emptied`](Self::emptied). Any thread.
    pub fn close(&self) -> Section<'_> {
        self.begin();
        Section(self)
    }

    /// [`close`](Self::close) without a guard: [`end`](Self::end) ends the section.
    pub fn begin(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.0 += 1;
        if closed.0 == 1 {
            self.gate.close();
            // Whoever leaves says so from now on, and not at the price of requests otherwise.
            self.gate.await_empty();
        }
    }

    /// Ends a section that [`begin`](Self::begin) began. Any thread.
    pub fn end(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.0 = closed.0.saturating_sub(1);
        if closed.0 > 0 {
            return;
        }
        self.gate.stop_waiting();
        self.gate.open();
        let wakers = std::mem::take(&mut closed.1);
        drop(closed);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Whether requests are held off.
    pub fn is_closed(&self) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).0 > 0
    }

    /// Waits until no request is inside. Only within a section: otherwise they keep coming.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.gate.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
