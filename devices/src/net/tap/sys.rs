//! The kernel's interface of tap devices (`Documentation/networking/tuntap.rst`).

use super::super::Offloads;
use reactor::Fd;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const IFF_TAP: i32 = 0x0002;
const IFF_MULTI_QUEUE: i32 = 0x0100;
const IFF_ATTACH_QUEUE: i32 = 0x0200;
const IFF_DETACH_QUEUE: i32 = 0x0400;
const IFF_NO_PI: i32 = 0x1000;
const IFF_VNET_HDR: i32 = 0x4000;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETSNDBUF: libc::c_ulong = 0x4004_54d4;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUNSETQUEUE: libc::c_ulong = 0x4004_54d9;

const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_UFO: libc::c_ulong = 0x10;

fn empty_request() -> libc::ifreq {
    // SAFETY: `ifreq` consists of characters, integers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Passes `request`, which the kernel may fill in.
fn with_request(fd: &Fd, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the requests that this is called with read and write an `ifreq` and no more.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) })
}

/// Opens the interface `name`, or makes it; the name may have a `%d` for the kernel to fill in.
/// Returns its name.
pub(in super::super) fn open(name: &str, header: bool, multi: bool) -> io::Result<(Fd, String)> {
    // SAFETY: a static path with its NUL.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    check(fd)?;
    // SAFETY: just opened, known to nobody else.
    let fd = Fd::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut request = empty_request();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name has 16 bytes or more"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = IFF_TAP
        | IFF_NO_PI
        | if header { IFF_VNET_HDR } else { 0 }
        | if multi { IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    with_request(&fd, TUNSETIFF, &mut request)?;
    let found = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    let found = String::from_utf8(found).unwrap_or_else(|_| name.to_owned());
    Ok((fd, found))
}

/// Whether the interface passes the virtio header. An error: it is no tap interface.
pub(super) fn has_virtio_header(fd: &Fd) -> io::Result<bool> {
    let mut request = empty_request();
    with_request(fd, TUNGETIFF, &mut request)?;
    // SAFETY: TUNGETIFF has filled in the flags, and any bits are an integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(flags) & IFF_VNET_HDR != 0)
}

/// Sets the bytes of the virtio header.
pub(super) fn set_header_size(fd: &Fd, bytes: usize) -> io::Result<()> {
    let bytes = bytes as i32;
    // SAFETY: reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ, &raw const bytes) })
}

/// Limits what the interface queues.
pub(super) fn set_sndbuf(fd: &Fd, bytes: u64) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETSNDBUF, &raw const bytes) })
}

/// Says what the reader of the interface takes.
pub(super) fn set_offloads(fd: &Fd, offloads: Offloads) -> io::Result<()> {
    let mut flags = 0;
    if offloads.checksum {
        flags |= TUN_F_CSUM;
        for (wanted, flag) in [
            (offloads.tso4, TUN_F_TSO4),
            (offloads.tso6, TUN_F_TSO6),
            (offloads.ecn && (offloads.tso4 || offloads.tso6), TUN_F_TSO_ECN),
            (offloads.ufo, TUN_F_UFO),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
    }
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, flags) })
}

/// Takes one queue of a multiqueue interface into use, or out of it.
pub(super) fn attach_queue(fd: &Fd, attach: bool) -> io::Result<()> {
    let mut request = empty_request();
    let flag = if attach { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE };
    request.ifr_ifru.ifru_flags = flag as libc::c_short;
    with_request(fd, TUNSETQUEUE, &mut request)
}

/// Clears `O_NONBLOCK`: the ring waits by itself, and gives up on such a descriptor instead.
pub(in super::super) fn set_blocking(fd: &Fd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
    Ok(())
}
