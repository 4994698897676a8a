//! `membarrier(2)`: a full memory fence in every running thread of the process, paid by the caller.

use std::sync::LazyLock;

const QUERY: libc::c_int = 0;
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

fn membarrier(command: libc::c_int) -> libc::c_long {
    // SAFETY: membarrier takes no pointer.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

static REGISTERED: LazyLock<bool> = LazyLock::new(|| {
    let supported = membarrier(QUERY);
    let wanted = libc::c_long::from(PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED);
    supported >= 0 && supported & wanted == wanted && membarrier(REGISTER_PRIVATE_EXPEDITED) == 0
});

/// Whether the kernel offers it to this process. Registers the process at the first call.
pub(crate) fn is_available() -> bool {
    *REGISTERED
}

/// Fences every running thread. False when the kernel refuses (a seccomp filter installed since).
pub(crate) fn fence_all() -> bool {
    is_available() && membarrier(PRIVATE_EXPEDITED) == 0
}
