//! What threads hand to a context.

use crate::bh;
use crate::buffers::Pool;
use crate::op::table::Orphan;
use crate::op::token::Token;
use crate::ring::Slot;
use crate::task::Runnable;
use crate::timer::Key;
use std::sync::Arc;

pub(crate) enum Work {
    /// A task whose home this is and that has been woken.
    Task(Arc<dyn Runnable>),
    /// A one-shot bottom half.
    Once(&'static str, Box<dyn FnOnce() + Send>),
    /// A reusable bottom half.
    Reusable(Arc<bh::Inner>),
    /// Housekeeping that only the context's own thread can do; done as soon as it is taken out.
    Home(HomeWork),
}

pub(crate) enum HomeWork {
    /// The future of an operation was dropped elsewhere: cancel it, keep its memory until it ends.
    Abandon(Token, Box<dyn Orphan>),
    /// Cancel an operation whose future is still there.
    Cancel(Token),
    /// Forget a timer.
    Disarm(Key),
    /// A buffer of a provided buffer ring is free again.
    Provide(Arc<Pool>, u16),
    /// Nobody uses the pool any more: unregister it.
    Retire(crate::buffers::Region, u16),
    /// Empty a slot of the ring's table of files or of buffers.
    Release(Slot),
}

impl HomeWork {
    /// Whether the kernel may still use memory that this owns.
    pub(crate) fn holds_memory(&self) -> bool {
        matches!(self, Self::Abandon(..) | Self::Retire(..) | Self::Release(_))
    }
}
