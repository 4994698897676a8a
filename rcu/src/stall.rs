//! Readers that stay too long: reported by thread and place, and kicked where they can be.

use crate::domain::DOMAIN;
use crate::threads::{Pinned, Record};
use std::fmt;
use std::panic::Location;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A reader that has held up a grace period for longer than the limit
/// ([`set_stall_limit`](crate::set_stall_limit)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Its thread's name.
    pub thread: String,
    /// Where its outermost section was opened. In a reactor's turn: where the turn's last section
    /// was, if there was one; that one may be over, and the turn be what is long.
    pub place: Option<&'static Location<'static>>,
    /// Whether it is a reactor in its turn.
    pub in_turn: bool,
    /// For how long it has been in the way at least.
    pub held: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} has held up a grace period for {:?}", self.thread, self.held)?;
        match (self.in_turn, self.place) {
            (true, None) => f.write_str(", in a turn of its reactor"),
            (true, Some(place)) => {
                write!(f, ", in a turn of its reactor that last read at {place}")
            }
            (false, Some(place)) => write!(f, ", in a section opened at {place}"),
            (false, None) => Ok(()),
        }
    }
}

type Handler = Arc<dyn Fn(&Stall) + Send + Sync>;

static HANDLERS: Mutex<Vec<Handler>> = Mutex::new(Vec::new());

/// Keeps a stall handler in place; dropping it removes the handler.
#[must_use = "dropping it removes the handler"]
pub struct StallHandler(Handler);

impl Drop for StallHandler {
    fn drop(&mut self) {
        let mut handlers = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
        handlers.retain(|handler| !Arc::ptr_eq(handler, &self.0));
    }
}

/// Calls `f` with each stall, beside the warning in the log. `f` runs on whichever thread drives the
/// grace period, reactors included: it must not block.
pub fn on_stall(f: impl Fn(&Stall) + Send + Sync + 'static) -> StallHandler {
    let handler: Handler = Arc::new(f);
    HANDLERS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&handler));
    StallHandler(handler)
}

/// Reports a reader that was in the way for `held` and still is.
pub(crate) fn report(pinned: &Pinned, held: Duration) {
    let stall = Stall {
        thread: pinned.record.name().to_owned(),
        place: pinned.record.place(),
        in_turn: pinned.is_fenced(),
        held,
    };
    if !pinned.is_still() {
        // It left meanwhile; the place may be another's.
        return;
    }
    DOMAIN.stats.stalls.fetch_add(1, Ordering::Relaxed);
    tracing::warn!("{stall}");
    let handlers = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for handler in handlers {
        handler(&stall);
    }
}

/// Asks a reader to leave, where its thread has a notifier for that.
pub(crate) fn kick(record: &Record) {
    let force = record.force().clone();
    if let Some(force) = force {
        DOMAIN.stats.kicks.fetch_add(1, Ordering::Relaxed);
        force();
    }
}
