//! What each error of `io_uring_enter` means for the loop: one place, one answer.

use std::io;

/// What the loop does after an enter that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterEnter {
    /// Reap completions and come back: nothing is lost, unsubmitted entries stay queued.
    Reap,
    /// The ring is unusable.
    Fail,
}

/// Maps an error of `io_uring_enter(2)`:
/// EINTR: a signal arrived, the loop looks at its state. ETIME: the wait is over.
/// EAGAIN: the kernel had no memory for a request just now. EBUSY: the completion queue has
/// overflowed and must be reaped before more is submitted. ENOMEM: as EAGAIN.
pub(crate) fn after_enter(error: &io::Error) -> AfterEnter {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
            AfterEnter::Reap
        }
        _ => AfterEnter::Fail,
    }
}
