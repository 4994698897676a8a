//! Getting a thread out of `KVM_RUN`: one real-time signal and KVM's `immediate_exit` flag.
//!
//! A kick is: the kicker makes its request visible ([`super::control`]), then sends the signal.
//! Three cases on the vCPU's thread, and in each the request is seen without another kick:
//!
//! - inside `KVM_RUN`, guest code or HLT: the signal ends it with EINTR;
//! - after the thread has looked for requests, before `KVM_RUN`: the handler sets
//!   `immediate_exit`, so `KVM_RUN` returns EINTR at once;
//! - anywhere else: the flag makes the next `KVM_RUN` return at once, and the thread clears the
//!   flag *before* it looks for requests, so a request made after the look has a flag that stays.
//!
//! The handler stores one byte through a thread-local pointer: no lock, no allocation, no errno.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};

/// Raised by what a thread does itself; blocking them would kill the process without a word.
const OWN_FAULTS: &[libc::c_int] =
    &[libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

thread_local! {
    /// The `immediate_exit` byte of the vCPU that this thread runs. Const-initialized and without
    /// a destructor, so that the handler's access is a plain load at any time of a thread's life.
    static FLAG: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
}

extern "C" fn on_kick(_: libc::c_int) {
    let flag = FLAG.get();
    if !flag.is_null() {
        // SAFETY: `Kickable` points it at a byte that outlives the pointer's stay here.
        unsafe { &*flag }.store(1, Ordering::Relaxed);
    }
}

/// The signal that kicks, installed at the first use.
fn kick_signal() -> io::Result<libc::c_int> {
    static INSTALLED: OnceLock<Result<libc::c_int, i32>> = OnceLock::new();
    INSTALLED.get_or_init(install).map_err(io::Error::from_raw_os_error)
}

fn install() -> Result<libc::c_int, i32> {
    let signal = libc::SIGRTMIN();
    // SAFETY: all zeroes is a valid sigaction: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_kick as *const () as libc::sighandler_t;
    // Restart: system calls of device models on this thread are not disturbed; KVM_RUN is never
    // restarted.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler is async-signal-safe (see above) and lives as long as the program.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if result == 0 { Ok(signal) } else { Err(last_errno()) }
}

/// Sends the kick to thread `tid` of this process. A thread that has ended meanwhile is no error.
pub(super) fn kick(tid: libc::pid_t) {
    let Ok(signal) = kick_signal() else { return };
    // SAFETY: no memory is involved. Should the kernel have given the number to another thread of
    // this process, its handler finds no flag, or sets one that only costs a turn of its loop.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) };
}

/// This thread's number in the kernel.
pub(super) fn thread_id() -> libc::pid_t {
    // SAFETY: no memory is involved.
    unsafe { libc::gettid() }
}

/// The current thread's right to run one vCPU and to be kicked out of it.
pub(super) struct Kickable {
    flag: *const AtomicU8,
}

impl Kickable {
    /// Makes the thread kickable. Every other signal is blocked, since those are for reactors, but
    /// for the ones that the thread's own code raises.
    ///
    /// # Safety
    /// `flag` is the `immediate_exit` byte of a mapped `kvm_run`, valid until the value is dropped.
    pub unsafe fn new(flag: *mut u8) -> io::Result<Self> {
        let signal = kick_signal()?;
        let flag = flag.cast::<AtomicU8>().cast_const();
        FLAG.set(flag);
        // SAFETY: the set is on this stack, filled before it is read.
        let result = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            for open in OWN_FAULTS.iter().chain([&signal]) {
                libc::sigdelset(&raw mut set, *open);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut())
        };
        if result != 0 {
            FLAG.set(ptr::null());
            return Err(io::Error::from_raw_os_error(result));
        }
        Ok(Self { flag })
    }

    /// Makes the next `KVM_RUN` return at once, having completed a pending access.
    pub fn set(&self) {
        self.store(1);
    }

    /// To be called after `KVM_RUN` and before requests are looked at.
    pub fn clear(&self) {
        self.store(0);
        // The look at requests must not move before the store, for the handler's sake.
        compiler_fence(Ordering::SeqCst);
    }

    fn store(&self, value: u8) {
        // SAFETY: valid until `self` is dropped, by the contract of `new`.
        unsafe { &*self.flag }.store(value, Ordering::Relaxed);
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        FLAG.set(ptr::null());
        compiler_fence(Ordering::SeqCst);
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}
