//! The task that makes or accepts connections.

use super::super::options::{InetAddress, SocketAddress, StreamOptions};
use super::super::table::{NetEvent, NetEventSink, NetReactors};
use super::Shared;
use crate::chardev::error_text;
use crate::net::NetError;
use nix::sys::socket::{MsgFlags, recv};
use reactor::net::{Listener, Stream};
use reactor::{Fd, JoinHandle};
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// The state of a back end that waits for connections.
const LISTENING: &str = "listening";
/// How long after a failed accept (too many open files, mostly) the next one is tried.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Checks the address, listens where that is asked for, and starts the task.
pub(super) fn start(
    (id, kind): (&str, &'static str),
    options: StreamOptions,
    shared: Arc<Shared>,
    reactors: &NetReactors<'_>,
    events: NetEventSink,
) -> Result<JoinHandle<()>, NetError> {
    let StreamOptions { address, server, reconnect } = options;
    let link = Link { id: id.to_owned(), kind, shared, events };
    if let SocketAddress::Inet(inet) = &address {
        resolve(inet)?;
    }
    if !server {
        let task = connect(link, address, reconnect);
        return Ok(reactors.home.spawn("net connect", task));
    }
    let listener = match &address {
        SocketAddress::Unix(path) => {
            remove_stale(path);
            Listener::bind_unix(path)
        }
        SocketAddress::Inet(inet) => Listener::bind_tcp(resolve(inet)?),
        SocketAddress::Fd(name) => {
            let fd = (reactors.descriptor)(name).map_err(NetError::Options)?;
            super::super::tap::sys::set_blocking(&fd).map(|()| Listener::from_fd(fd))
        }
    };
    let listener =
        listener.map_err(|error| NetError::system(cannot_bind(kind, &address), error))?;
    link.is_idle(LISTENING);
    let path = if let SocketAddress::Unix(path) = address { Some(path) } else { None };
    Ok(reactors.home.spawn("net listen", accept(link, listener, path.map(Remove))))
}

/// As QEMU does, a socket that nobody may be listening on makes way.
fn remove_stale(path: &Path) {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
}

/// Removes the file of a listening socket at the end.
struct Remove(std::path::PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        remove_stale(&self.0);
    }
}

fn resolve(address: &InetAddress) -> Result<std::net::SocketAddr, NetError> {
    address
        .resolve()
        .ok_or_else(|| NetError::Options(format!("can't resolve host address '{}'", address.host)))
}

/// What QEMU says of an address that cannot be listened on.
fn cannot_bind(kind: &str, address: &SocketAddress) -> String {
    match address {
        SocketAddress::Inet(inet) if kind == "socket" => {
            format!(
                "can't bind ip={} to socket",
                inet.resolve().map_or_else(String::new, |at| at.ip().to_string())
            )
        }
        SocketAddress::Unix(path) => format!("Failed to bind socket to {}", path.display()),
        SocketAddress::Inet(_) | SocketAddress::Fd(_) => "Failed to bind socket".to_owned(),
    }
}

/// What QEMU says of an address that nobody listens on.
fn cannot_connect(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Inet(inet) => format!("Failed to connect to '{}:{}'", inet.host, inet.port),
        SocketAddress::Unix(path) => format!("Failed to connect to '{}'", path.display()),
        SocketAddress::Fd(fd) => format!("Failed to connect to '{fd}'"),
    }
}

fn uri(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Unix(path) => format!("unix:{}", path.display()),
        SocketAddress::Inet(inet) => format!("tcp:{}:{}", inet.host, inet.port),
        SocketAddress::Fd(fd) => format!("fd:{fd}"),
    }
}

/// What both kinds of task need.
struct Link {
    id: String,
    /// The type as the user named it.
    kind: &'static str,
    shared: Arc<Shared>,
    events: NetEventSink,
}

impl Link {
    /// There is no connection, because of `state`; of a `socket` that is not told.
    fn is_idle(&self, state: &str) {
        let state = if self.kind == "socket" { "" } else { state };
        state.clone_into(&mut self.shared.lock().info);
    }

    /// What `info network` shows of a connection.
    fn connected(&self, address: &SocketAddress, accepted: bool) -> String {
        match (self.kind, address) {
            ("socket", SocketAddress::Inet(inet)) => {
                let how = if accepted { "connection from" } else { "connect to" };
                format!("socket: {how} {}:{}", inet.host, inet.port)
            }
            _ => uri(address),
        }
    }

    /// Uses `stream` until it ends.
    async fn serve(&self, stream: Stream, address: SocketAddress, afterwards: &str) {
        let info = self.connected(&address, afterwards == LISTENING);
        let number = self.shared.set_connection(Some(stream.fd().clone()), info);
        (self.events)(NetEvent::Connected { id: self.id.clone(), address });
        {
            let mut ended = pin!(self.shared.ended.notified());
            let mut hung_up = pin!(hung_up(stream.fd()));
            let found = poll_fn(|cx| match ended.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => hung_up.as_mut().poll(cx).map(|()| true),
            });
            if found.await {
                // One way or the other there is a notification now.
                self.shared.lost(number);
                ended.await;
            }
        }
        drop(stream);
        self.is_idle(afterwards);
        (self.events)(NetEvent::Disconnected { id: self.id.clone() });
    }
}

/// Resolves when the other end has closed and nothing is left to receive: that may be long before a
/// device receives anything.
async fn hung_up(fd: &Fd) {
    let closed = reactor::io::poll(fd, libc::POLLRDHUP as u32).await;
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let left = recv(std::os::fd::AsRawFd::as_raw_fd(fd), &mut byte, flags);
    if closed.is_err() || left.is_ok_and(|n| n > 0) {
        // Whoever receives what is left finds the end.
        std::future::pending::<()>().await;
    }
}

async fn accept(link: Link, listener: Listener, remove: Option<Remove>) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let address = peer(&stream).unwrap_or_else(|| {
                    let path = remove.as_ref().map(|file| file.0.clone());
                    SocketAddress::Unix(path.unwrap_or_default())
                });
                link.serve(stream, address, LISTENING).await;
            }
            Err(error) => {
                tracing::warn!(netdev = link.id, %error, "a connection cannot be accepted");
                reactor::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The address of a TCP peer.
fn peer(stream: &Stream) -> Option<SocketAddress> {
    use nix::sys::socket::{SockaddrStorage, getpeername};
    let fd = std::os::fd::AsRawFd::as_raw_fd(stream.fd());
    let address: SockaddrStorage = getpeername(fd).ok()?;
    let v4 = address.as_sockaddr_in().map(|v4| (v4.ip().to_string(), v4.port()));
    let found = v4.or_else(|| address.as_sockaddr_in6().map(|v6| (v6.ip().to_string(), v6.port())));
    found.map(|(host, port)| SocketAddress::Inet(InetAddress { host, port }))
}

async fn connect(link: Link, address: SocketAddress, reconnect: Option<Duration>) {
    link.is_idle("connecting");
    loop {
        match connect_once(&address).await {
            Ok(stream) => link.serve(stream, address.clone(), "disconnected").await,
            Err(error) => {
                let error = format!("{}: {}", cannot_connect(&address), error_text(&error));
                tracing::debug!(netdev = link.id, "{error}");
                link.is_idle(&format!("error: {error}"));
            }
        }
        match reconnect {
            Some(pause) => reactor::sleep(pause).await,
            None => return,
        }
    }
}

async fn connect_once(address: &SocketAddress) -> io::Result<Stream> {
    match address {
        SocketAddress::Unix(path) => Stream::connect_unix(path).await,
        SocketAddress::Inet(inet) => {
            let address = inet.resolve().ok_or(io::ErrorKind::InvalidInput)?;
            Stream::connect_tcp(address).await
        }
        SocketAddress::Fd(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}
