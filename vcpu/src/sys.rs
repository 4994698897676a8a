//! System calls that no library of ours wraps, each behind a safe face.

use kvm_bindings::{KVMIO, kvm_ioeventfd, kvm_irqfd};
use reactor::Fd;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

ioctl_iow_nr!(KVM_IRQFD, KVMIO, 0x76, kvm_irqfd);
ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);

/// A new eventfd with count 0 that never blocks.
pub(crate) fn eventfd() -> io::Result<Fd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Whether a read of `fd` would find something now.
pub(crate) fn readable(fd: &Fd) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd on this stack, for the length of a call that does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLIN != 0
}

/// Takes the count of an eventfd that never blocks; false where it has none.
pub(crate) fn take(fd: &Fd) -> bool {
    let mut count = [0u8; 8];
    // SAFETY: the kernel fills at most the 8 bytes of this array.
    let len = unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    len == 8
}

/// `KVM_IRQFD` on the virtual machine `vm`.
pub(crate) fn irqfd(vm: &impl AsRawFd, argument: &kvm_irqfd) -> io::Result<()> {
    // SAFETY: the kernel reads one kvm_irqfd through the reference and keeps no pointer.
    check(unsafe { ioctl_with_ref(vm, KVM_IRQFD(), argument) })
}

/// `KVM_IOEVENTFD` on the virtual machine `vm`.
pub(crate) fn ioeventfd(vm: &impl AsRawFd, argument: &kvm_ioeventfd) -> io::Result<()> {
    // SAFETY: the kernel reads one kvm_ioeventfd through the reference and keeps no pointer.
    check(unsafe { ioctl_with_ref(vm, KVM_IOEVENTFD(), argument) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// 64 bits from the host kernel's random number generator.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the kernel fills at most the 8 bytes of this array. So short a request is served
    // whole and, once the generator is seeded, without waiting.
    let len =
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if len == 8 { Ok(u64::from_le_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}
