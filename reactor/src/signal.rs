//! Signals as something to await (signalfd(2)).

use crate::fd::Fd;
use crate::io;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};

/// A set of signals that are blocked in every thread started later, and read here instead.
///
/// Make it before [`crate::run`], so that no thread of the process takes the signals.
pub struct Signals {
    fd: Fd,
}

impl Signals {
    /// Blocks `signals` in the calling thread (and those it starts) and opens a descriptor for them.
    /// Any thread; never blocks. Errors: a number that is no signal's; no descriptor left.
    pub fn new(signals: &[i32]) -> std::io::Result<Self> {
        // SAFETY: a sigset_t consists of integers, for which zero is a value.
        let mut set: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `set` is valid for writing; so in the calls below, which check the numbers.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in signals {
            // SAFETY: as above.
            if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        let none = std::ptr::null_mut();
        // SAFETY: `set` is valid; the old mask is not asked for.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, none) };
        if error != 0 {
            return Err(std::io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is valid.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and is known to nobody else.
        Ok(Self { fd: Fd::from(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// The number of the next signal. Tasks only. Errors: what the kernel answers to the read.
    pub async fn next(&self) -> std::io::Result<i32> {
        let size = size_of::<libc::signalfd_siginfo>();
        let (result, bytes) = io::read(&self.fd, vec![0; size]).await;
        if result? < size {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // `ssi_signo` is the first member.
        let number = bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        Ok(number.cast_signed())
    }
}
