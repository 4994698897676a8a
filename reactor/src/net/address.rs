//! Socket addresses in the kernel's form.

use crate::op::codes::RawAddress;
use std::io::Result;
use std::net::SocketAddr;

fn empty_storage() -> libc::sockaddr_storage {
    // SAFETY: `sockaddr_storage` consists of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// `name` in `sun_path` from byte `at` on (1: abstract).
pub(super) fn unix_address(name: &[u8], at: usize) -> Result<RawAddress> {
    let mut storage = Box::new(empty_storage());
    // SAFETY: `sockaddr_storage` is large enough and aligned for every socket address type.
    let address = unsafe { &mut *(&raw mut *storage).cast::<libc::sockaddr_un>() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // A path needs its NUL.
    if at + name.len() + (1 - at) > address.sun_path.len() || name.contains(&0) {
        let text = "a UNIX socket name has at most 107 bytes and no NUL";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    }
    for (to, from) in address.sun_path[at..].iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let header = std::mem::offset_of!(libc::sockaddr_un, sun_path);
    Ok(RawAddress { storage, len: (header + 1 + name.len()) as libc::socklen_t })
}

pub(super) fn tcp_address(address: SocketAddr) -> RawAddress {
    let mut storage = Box::new(empty_storage());
    let len = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: `sockaddr_storage` is large enough and aligned for every address type.
            let raw = unsafe { &mut *(&raw mut *storage).cast::<libc::sockaddr_in>() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let raw = unsafe { &mut *(&raw mut *storage).cast::<libc::sockaddr_in6>() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_flowinfo = v6.flowinfo();
            raw.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    };
    RawAddress { storage, len: len as libc::socklen_t }
}
