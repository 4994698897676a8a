//! Stream sockets, over [`crate::io`]. Functions that wait are called in tasks, panic off reactors and may
//! be dropped while they wait; the others work on any thread and do not block, unless they say so. Errors
//! are those of the system call that each stands for.

mod address;

use crate::fd::Fd;
use crate::io;
use crate::op::Op;
use crate::op::codes::{Connect, RawAddress};
use address::{tcp_address, unix_address};
use std::io::Result;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
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

    /// Connections one after the other, with one submission for all (multishot); see
    /// [`io::accept_multishot`].
    pub fn incoming(&self) -> Incoming {
        Incoming(io::accept_multishot(&self.fd))
    }
}

/// See [`Listener::incoming`].
pub struct Incoming(io::AcceptMulti);

impl Incoming {
    /// The next connection. An error, such as too many open files, is no end: call again, perhaps later.
    pub async fn next(&mut self) -> Result<Stream> {
        self.0.next().await.map(Stream::from_fd)
    }
}

/// Who is at the other end of a UNIX socket, as of its connect(2) or socketpair(2) (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The process, 0 where it is not visible from here.
    pub pid: i32,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
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

    /// Receives into buffers of `buffers`, with one submission for all (multishot); see
    /// [`io::recv_multishot`].
    pub fn incoming(&self, buffers: &crate::BufRing) -> io::ReadMulti {
        io::recv_multishot(&self.fd, buffers)
    }

    /// Receives up to `buffer.len()` bytes over a UNIX socket, and up to `fds_max` descriptors; see
    /// [`io::recv_with_fds`].
    pub async fn recv_with_fds<B: io::IoBufMut>(
        &self,
        buffer: B,
        fds_max: usize,
    ) -> (Result<io::Received>, B) {
        io::recv_with_fds(&self.fd, buffer, fds_max).await
    }

    /// Sends the whole buffer over a UNIX socket, and `fds` with its first byte; see
    /// [`io::send_with_fds`].
    pub async fn send_all_with_fds<B: io::IoBuf>(
        &self,
        buffer: B,
        fds: Vec<Fd>,
    ) -> (Result<()>, B) {
        let (result, buffer) = io::send_with_fds(&self.fd, buffer, fds).await;
        match result {
            Ok(n) => {
                let (result, tail) = self.send_all(io::Tail::new(buffer, n)).await;
                (result, tail.into_inner())
            }
            Err(error) => (Err(error), buffer),
        }
    }

    /// Who is at the other end of a UNIX socket.
    pub fn peer_credentials(&self) -> Result<PeerCredentials> {
        let mut answer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `answer`, and the length to `len`.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut answer).cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(PeerCredentials { pid: answer.pid, uid: answer.uid, gid: answer.gid })
    }

    /// Shuts the connection down for reading, writing or both.
    pub async fn shutdown(&self, how: std::net::Shutdown) -> Result<()> {
        io::shutdown(&self.fd, how).await
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
