//! Stream sockets, over [`crate::io`].

use crate::fd::Fd;
use crate::io;
use crate::op::Op;
use crate::op::codes::{Connect, RawAddress};
use std::io::Result;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;

/// A listening UNIX or TCP socket.
#[derive(Clone, Debug)]
pub struct Listener {
    fd: Fd,
}

impl Listener {
    /// Binds and listens on a path. Blocks for the time of bind(2). A file that is in the way is
    /// `AddrInUse`.
    pub fn bind_unix(path: &Path) -> Result<Self> {
        Ok(Self { fd: Fd::from(std::os::unix::net::UnixListener::bind(path)?) })
    }

    /// Binds and listens on an abstract name (unix(7)), without its leading NUL.
    pub fn bind_abstract(name: &[u8]) -> Result<Self> {
        let address = UnixAddr::from_abstract_name(name)?;
        Ok(Self { fd: Fd::from(std::os::unix::net::UnixListener::bind_addr(&address)?) })
    }

    /// Binds and listens on a TCP address.
    pub fn bind_tcp(address: SocketAddr) -> Result<Self> {
        Ok(Self { fd: Fd::from(std::net::TcpListener::bind(address)?) })
    }

    /// Takes over a socket that listens already.
    pub fn from_fd(fd: Fd) -> Self {
        Self { fd }
    }

    /// The socket.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> Result<Stream> {
        io::accept(&self.fd).await.map(Stream::from_fd)
    }
}

/// A connected stream socket. Clones share it.
#[derive(Clone, Debug)]
pub struct Stream {
    fd: Fd,
}

impl Stream {
    /// Takes over a connected socket.
    pub fn from_fd(fd: Fd) -> Self {
        Self { fd }
    }

    /// The socket.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Connects to a path.
    pub async fn connect_unix(path: &Path) -> Result<Self> {
        let address = unix_address(path.as_os_str().as_bytes(), 0)?;
        connect(libc::AF_UNIX, address).await
    }

    /// Connects to an abstract name (unix(7)), without its leading NUL.
    pub async fn connect_abstract(name: &[u8]) -> Result<Self> {
        connect(libc::AF_UNIX, unix_address(name, 1)?).await
    }

    /// Connects to a TCP address.
    pub async fn connect_tcp(address: SocketAddr) -> Result<Self> {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        connect(family, tcp_address(address)).await
    }

    /// Receives up to `buffer.len()` bytes; 0 when the peer has closed.
    pub async fn recv<B: io::IoBufMut>(&self, buffer: B) -> (Result<usize>, B) {
        io::recv(&self.fd, buffer).await
    }

    /// Sends the whole buffer.
    pub async fn send_all<B: io::IoBuf>(&self, buffer: B) -> (Result<()>, B) {
        io::send_all(&self.fd, buffer).await
    }
}

async fn connect(family: i32, address: RawAddress) -> Result<Stream> {
    // SAFETY: socket(2) takes no pointer.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is known to nobody else.
    let owned = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let fd = Fd::from(owned);
    Op::new(Connect { fd: fd.clone(), address }).await?;
    Ok(Stream { fd })
}

fn empty_storage() -> libc::sockaddr_storage {
    // SAFETY: `sockaddr_storage` consists of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// `name` in `sun_path` from byte `at` on (1: abstract).
fn unix_address(name: &[u8], at: usize) -> Result<RawAddress> {
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

fn tcp_address(address: SocketAddr) -> RawAddress {
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
