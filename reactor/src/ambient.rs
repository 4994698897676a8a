//! What applies to the operations that the future being polled submits: a deadline, cancellers, drain
//! tokens. Futures that set it (`io::within`, `io::cancellable`, `DrainToken::tag`) do so for the time
//! of each poll; an operation picks it up when it is submitted and keeps it until its completion.

use crate::drain::{DrainToken, InFlight};
use crate::io::limits::{Canceller, Registration};
use crate::local::{self, Local};
use crate::mailbox::Shared;
use crate::op::token::Token;
use io_uring::types::Timespec;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Ambient {
    /// How many futures around the current one have set anything.
    depth: Cell<u32>,
    deadline: Cell<Option<Instant>>,
    cancellers: RefCell<Vec<Canceller>>,
    tags: RefCell<Vec<DrainToken>>,
}

/// Undoes one setting, also when the poll panics.
struct Restore<'a, F: FnMut(&Ambient)> {
    local: &'a Local,
    undo: F,
}

impl<F: FnMut(&Ambient)> Drop for Restore<'_, F> {
    fn drop(&mut self) {
        let ambient = &self.local.ambient;
        ambient.depth.set(ambient.depth.get() - 1);
        (self.undo)(ambient);
    }
}

fn set<R>(set: impl FnOnce(&Ambient), undo: impl FnMut(&Ambient), poll: impl FnOnce() -> R) -> R {
    // Off a reactor nothing is submitted.
    let Some(local) = local::try_with(Rc::clone) else { return poll() };
    let ambient = &local.ambient;
    ambient.depth.set(ambient.depth.get() + 1);
    set(ambient);
    let _restore = Restore { local: &local, undo };
    poll()
}

/// Polls under a deadline; the earliest of those around counts.
pub(crate) fn with_deadline<R>(deadline: Instant, poll: impl FnOnce() -> R) -> R {
    let before = local::try_with(|local| local.ambient.deadline.get()).flatten();
    let earliest = before.map_or(deadline, |before| before.min(deadline));
    set(
        |ambient| ambient.deadline.set(Some(earliest)),
        |ambient| ambient.deadline.set(before),
        poll,
    )
}

pub(crate) fn with_canceller<R>(canceller: &Canceller, poll: impl FnOnce() -> R) -> R {
    set(
        |ambient| ambient.cancellers.borrow_mut().push(canceller.clone()),
        |ambient| drop(ambient.cancellers.borrow_mut().pop()),
        poll,
    )
}

pub(crate) fn with_tag<R>(token: &DrainToken, poll: impl FnOnce() -> R) -> R {
    set(
        |ambient| ambient.tags.borrow_mut().push(token.clone()),
        |ambient| drop(ambient.tags.borrow_mut().pop()),
        poll,
    )
}

/// Whether the future being polled carries `token`.
pub(crate) fn has_tag(token: &DrainToken) -> bool {
    local::try_with(|local| local.ambient.tags.borrow().iter().any(|tag| tag.is(token)))
        .unwrap_or(false)
}

/// What an operation has picked up. Dropped with it, after its completion.
#[derive(Default)]
pub(crate) struct Extras {
    deadline: Option<Instant>,
    /// What the linked timeout points to.
    timespec: Timespec,
    registrations: Vec<Registration>,
    tags: Vec<InFlight>,
}

impl Extras {
    /// What applies to an operation submitted now; an errno where it need not be submitted at all.
    pub(crate) fn collect(local: &Local) -> Result<Option<Box<Self>>, i32> {
        let ambient = &local.ambient;
        if ambient.depth.get() == 0 {
            return Ok(None);
        }
        let mut extras = Box::<Self>::default();
        if let Some(deadline) = ambient.deadline.get() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(libc::ETIMEDOUT);
            }
            extras.deadline = Some(deadline);
            extras.timespec = Timespec::from(left);
        }
        for canceller in &*ambient.cancellers.borrow() {
            extras.registrations.push(canceller.register().ok_or(libc::ECANCELED)?);
        }
        extras.tags = ambient.tags.borrow().iter().map(DrainToken::begin).collect();
        Ok(Some(extras))
    }

    /// The time limit for the operation, to be linked to it.
    pub(crate) fn timespec(&self) -> Option<*const Timespec> {
        self.deadline.map(|_| &raw const self.timespec)
    }

    /// Tells the cancellers how the operation is named.
    pub(crate) fn submitted(&self, home: &Arc<Shared>, token: Token) {
        for registration in &self.registrations {
            registration.submitted(home, token);
        }
    }

    /// The result as its user sees it. What the kernel's workers were doing when it was cancelled ends
    /// with EINTR; what the linked timeout cancelled has timed out.
    pub(crate) fn interpret(&self, result: i32) -> i32 {
        if result != -libc::ECANCELED && result != -libc::EINTR {
            return result;
        }
        if self.registrations.iter().any(Registration::is_cancelled) {
            -libc::ECANCELED
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            -libc::ETIMEDOUT
        } else {
            result
        }
    }
}
