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
///
/// EBADR is not among them: the kernel has dropped completions for want of memory, so operations wait
/// that have ended, and nobody can tell which.
pub(crate) fn after_enter(error: &io::Error) -> AfterEnter {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
            AfterEnter::Reap
        }
        _ => AfterEnter::Fail,
    }
}

/// Says what an error means that ends the loop, where its number alone does not.
pub(crate) fn explain(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EBADR) {
        let text = "the kernel had no memory for completions and has dropped some (EBADR): \
                    free memory, or use a larger ring";
        return io::Error::new(io::ErrorKind::OutOfMemory, text);
    }
    error
}
