//! Listening sockets: how they come to be, and what remains of them.

use super::address::Address;
use super::error_text;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use reactor::Fd;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a socket cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("{0}: another process is listening there; end it or choose another path")]
    Live(Address),
    /// The path names something else.
    #[error("{0}: the path exists and is no socket; remove it or choose another path")]
    NotASocket(Address),
    /// The path or the name cannot be had.
    #[error("Failed to bind socket to {place}: {}", error_text(.source))]
    Bind {
        /// The path or the name.
        place: String,
        /// The reason.
        source: io::Error,
    },
    /// The system refused.
    #[error("{address}: {what}: {source}")]
    Os {
        /// The address.
        address: Address,
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// A socket that listens. The file of a UNIX socket goes with it.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub fd: Fd,
    /// Where clients connect; a TCP port 0 has become the one that was assigned.
    pub address: Address,
    _file: Option<SocketFile>,
}

/// Starts to listen. Blocks for the time of the system calls only.
pub fn open(address: &Address) -> Result<Listening, ListenError> {
    match address {
        Address::Unix(path) => open_unix(address, path),
        Address::Abstract(name) => open_abstract(address, name),
        Address::Tcp(to) => open_tcp(address, *to),
    }
}

fn open_tcp(address: &Address, to: SocketAddr) -> Result<Listening, ListenError> {
    let os = |what, source| ListenError::Os { address: address.clone(), what, source };
    let listener = TcpListener::bind(to).map_err(|error| os("listen", error))?;
    let bound = listener.local_addr().map_err(|error| os("read the address", error))?;
    Ok(Listening { fd: listener.into(), address: Address::Tcp(bound), _file: None })
}

fn open_unix(address: &Address, path: &Path) -> Result<Listening, ListenError> {
    let os = |what, source: io::Error| ListenError::Os { address: address.clone(), what, source };
    let errno = |what| move |error: nix::Error| os(what, error.into());
    let name = UnixAddr::new(path).map_err(errno("use the path"))?;
    clear_the_way(address, path, &name)?;
    let fd = stream_socket().map_err(errno("make a socket"))?;
    // Linux takes the mode of the file from the socket, so it is never open to others.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR).map_err(errno("set the mode"))?;
    bind(fd.as_raw_fd(), &name).map_err(|error| {
        let place = path.display().to_string();
        ListenError::Bind { place, source: error.into() }
    })?;
    let file = SocketFile::new(path).map_err(|error| os("look at the socket", error))?;
    listen(&fd, Backlog::MAXCONN).map_err(errno("listen"))?;
    Ok(Listening { fd: fd.into(), address: address.clone(), _file: Some(file) })
}

/// The kernel refuses a name that is taken, and gives it back when the socket is closed.
fn open_abstract(address: &Address, name: &str) -> Result<Listening, ListenError> {
    let os = |what, error: nix::Error| ListenError::Os {
        address: address.clone(),
        what,
        source: error.into(),
    };
    let named =
        UnixAddr::new_abstract(name.as_bytes()).map_err(|error| os("use the name", error))?;
    let fd = stream_socket().map_err(|error| os("make a socket", error))?;
    bind(fd.as_raw_fd(), &named).map_err(|error| match error {
        nix::Error::EADDRINUSE => ListenError::Live(address.clone()),
        error => ListenError::Bind { place: name.to_owned(), source: error.into() },
    })?;
    listen(&fd, Backlog::MAXCONN).map_err(|error| os("listen", error))?;
    Ok(Listening { fd: fd.into(), address: address.clone(), _file: None })
}

fn stream_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// Removes the socket of a process that is gone.
fn clear_the_way(address: &Address, path: &Path, name: &UnixAddr) -> Result<(), ListenError> {
    let os = |what, source: io::Error| ListenError::Os { address: address.clone(), what, source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(os("look at the path", error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket(address.clone()));
        }
        Ok(_) => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .map_err(|error| os("make a socket", error.into()))?;
    match connect(probe.as_raw_fd(), name) {
        Err(nix::Error::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|error| os("remove the stale socket", error))
        }
        Err(nix::Error::ENOENT) => Ok(()),
        // EAGAIN: its backlog is full, so it lives.
        Ok(()) | Err(nix::Error::EAGAIN) => Err(ListenError::Live(address.clone())),
        Err(error) => Err(os("try the socket that exists", error.into())),
    }
}

/// Whether an error of accept(2) is about one client only.
pub fn is_of_the_client(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNABORTED))
}

/// The file of a UNIX socket; removed on drop if it is still the same.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays behind");
        }
    }
}
