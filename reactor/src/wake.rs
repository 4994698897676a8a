//! The sleep and wake-up protocol of a context.
//!
//! ```text
//!   bit SLEEPING   set by the owner before it checks its queue for the last time
//!   bit IN_FLIGHT  set by the one sender that posts the wake-up message,
//!                  cleared by the owner when that message arrives
//! ```
//!
//! A sender pushes its work first and looks at the bits second; the owner sets SLEEPING first and
//! looks at the queue second. The two SeqCst fences (one here in `notify`, one in `prepare_sleep`)
//! forbid that both miss the other, so no wake-up is lost. While IN_FLIGHT is set nobody else
//! sends: the message on its way wakes the owner, who looks again before it sleeps. Hence at most one
//! is in flight, and who sets the bit posts its message at once: everybody else relies on it.
//! Model-checked in `tests/loom.rs`.

use crate::primitive::{AtomicU32, Ordering, fence};

const SLEEPING: u32 = 1;
const IN_FLIGHT: u32 = 2;

/// What the sender of work has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notify {
    /// Post the wake-up message; nobody else will.
    Send,
    /// The owner is awake, or a message is on its way.
    Coalesced,
}

pub(crate) struct WakeState(AtomicU32);

impl WakeState {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Called by a sender after its work is in the queue.
    pub(crate) fn notify(&self) -> Notify {
        // Pairs with the fence in `prepare_sleep`.
        fence(Ordering::SeqCst);
        let bits = self.0.load(Ordering::Relaxed);
        if bits & SLEEPING == 0 || bits & IN_FLIGHT != 0 {
            return Notify::Coalesced;
        }
        // AcqRel: the message must not be posted before the bit is seen as set.
        if self.0.fetch_or(IN_FLIGHT, Ordering::AcqRel) & IN_FLIGHT == 0 {
            Notify::Send
        } else {
            Notify::Coalesced
        }
    }

    /// Called by the owner before its last look at the queue.
    pub(crate) fn prepare_sleep(&self) {
        self.0.fetch_or(SLEEPING, Ordering::Relaxed);
        // Pairs with the fence in `notify`.
        fence(Ordering::SeqCst);
    }

    /// Called by the owner when it is awake again, for whatever reason.
    pub(crate) fn awake(&self) {
        self.0.fetch_and(!SLEEPING, Ordering::Relaxed);
    }

    /// Called by the owner when the wake-up message has arrived.
    pub(crate) fn message_arrived(&self) {
        // Relaxed: a sender whose fence comes before that of the owner's next `prepare_sleep` has its
        // work found by the look that follows it; one whose fence comes after sees the bit cleared.
        self.0.fetch_and(!IN_FLIGHT, Ordering::Relaxed);
    }
}
