//! Descriptors that the process was started with.

use reactor::Fd;
use std::os::fd::{FromRawFd, OwnedFd};

/// Takes over the descriptor `number` that the process was started with: it is closed with the
/// returned value and not passed on to children. An error for one that is not open, belongs to
/// somebody in the process or is a standard stream; the texts are QEMU's.
///
/// To be called before anything else deals with inherited descriptors by their numbers.
pub fn inherited(number: i32) -> Result<Fd, &'static str> {
    if (0..=2).contains(&number) {
        return Err("fd cannot be a standard I/O stream");
    }
    // SAFETY: F_GETFD takes a number and no pointer; for one that is not open it fails.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err("fd is not valid or already in use");
    }
    // SAFETY: as above; F_SETFD changes a flag of the descriptor.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err("fd is not valid or already in use");
    }
    // SAFETY: the descriptor is open and, since it was not close-on-exec, was not made in this
    // process, where every descriptor is: nobody else owns it. From here on it is marked as owned,
    // so that it is never taken twice.
    Ok(Fd::from(unsafe { OwnedFd::from_raw_fd(number) }))
}
