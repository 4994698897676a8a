//! What the lock-free parts stand on: `std`'s atomics here, loom's in `tests/loom.rs`, which builds the
//! same sources over a `primitive` module of its own.

pub(crate) use futures_util::task::AtomicWaker;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence,
};

/// The readers' half of an asymmetric fence: keeps the compiler in order. The other half, the
/// `membarrier` of the waiting side, does the same for the CPU.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is no instruction at all")]
pub(crate) fn light_fence() {
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}
