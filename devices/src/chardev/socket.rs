//! Stream sockets: one client at a time, or one server.

use super::address::Address;
use super::connection::Connection;
use super::listener::{self, Listening};
use super::options::{SocketFrom, SocketOptions};
use super::peer::{AllowList, Peer};
use super::slot::Slot;
use crate::text::system_error;
use futures_util::future::{Either, select};
use nix::sys::socket::{Backlog, SockType, SockaddrStorage, getpeername, getsockname};
use nix::sys::socket::{getsockopt, listen, setsockopt, sockopt};
use reactor::net::Stream;
use reactor::{Fd, io, sleep, timeout};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to come about: a command waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// After an error of accept(2) that time may cure, such as no free descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the connections come from.
enum Way {
    Listen(Listening),
    /// A socket that listens already.
    Accept(Fd),
    Connect(Address),
    /// The one connection there was at the start.
    Once,
}

/// The source of a socket's connections.
pub(super) struct Source {
    way: Way,
    reconnect: Option<Duration>,
    nodelay: bool,
    allow: AllowList,
    id: String,
}

impl Source {
    /// Listens, or makes the first connection. A client that may try again later begins without
    /// one where there is no server.
    pub(super) async fn open(
        id: &str,
        options: SocketOptions,
    ) -> Result<(Self, Option<Connection>), String> {
        let SocketOptions { from, server, reconnect, nodelay, allow, .. } = options;
        let (way, fd) = match (from, server) {
            (SocketFrom::Address(address), true) => {
                let listening = listener::open(&address).map_err(|error| error.to_string())?;
                (Way::Listen(listening), None)
            }
            (SocketFrom::Address(address), false) => {
                let fd = match connect(&address).await {
                    Ok(fd) => Some(fd),
                    Err(error) if reconnect.is_some() => {
                        warn_unconnected(id, &error);
                        None
                    }
                    Err(error) => return Err(error),
                };
                (Way::Connect(address), fd)
            }
            (SocketFrom::Fd(fd, name), server) => {
                let is_stream = getsockopt(&fd, sockopt::SockType);
                if !is_stream.is_ok_and(|kind| kind == SockType::Stream) {
                    return Err(format!("File descriptor '{name}' is not a socket"));
                }
                if server {
                    listen(&fd, Backlog::MAXCONN).map_err(|error| {
                        format!("Failed to listen on fd socket: {}", error.desc())
                    })?;
                    (Way::Accept(fd), None)
                } else {
                    (Way::Once, Some(fd))
                }
            }
        };
        let source = Self { way, reconnect, nodelay, allow, id: id.to_owned() };
        let first = fd.map(|fd| source.connection(fd));
        Ok((source, first))
    }

    /// Where it listens; a TCP port 0 has become the one that was assigned.
    pub(super) fn listens_at(&self) -> String {
        match &self.way {
            Way::Listen(listening) => format!("{},server=on", listening.address),
            Way::Accept(fd) => format!("{},server=on", local_name(fd)),
            Way::Connect(address) => address.to_string(),
            Way::Once => "unix:".to_owned(),
        }
    }

    /// How a connection is called.
    pub(super) fn name(&self, connection: &Connection) -> String {
        let server = matches!(self.way, Way::Listen(_) | Way::Accept(_));
        let fd = &connection.output;
        let local = tcp(getsockname::<SockaddrStorage>(fd.as_raw_fd()));
        let peer = tcp(getpeername::<SockaddrStorage>(fd.as_raw_fd()));
        let server = if server { ",server=on" } else { "" };
        match (local, peer) {
            (Some(local), Some(peer)) => format!("tcp:{local}{server} <-> {peer}"),
            _ => match &self.way {
                Way::Listen(_) | Way::Accept(_) | Way::Connect(_) => self.listens_at(),
                Way::Once => format!("unix:{server}"),
            },
        }
    }

    /// The next connection after the first.
    pub(super) async fn next(&self, slot: &Slot) -> Connection {
        let made = pin!(async {
            match &self.way {
                Way::Listen(listening) => self.accept(&listening.fd).await,
                Way::Accept(fd) => self.accept(fd).await,
                Way::Connect(address) => self.connect_again(address).await,
                Way::Once => std::future::pending().await,
            }
        });
        match select(made, pin!(slot.added())).await {
            Either::Left((connection, _)) => connection,
            Either::Right((fd, _)) => self.connection(fd),
        }
    }

    fn connection(&self, fd: Fd) -> Connection {
        if self.nodelay {
            // A UNIX socket refuses, which is fine.
            let _ = setsockopt(&fd.as_fd(), sockopt::TcpNoDelay, &true);
        }
        let peer = Peer::of(&fd);
        Connection::socket(fd, peer)
    }

    async fn accept(&self, listening: &Fd) -> Connection {
        loop {
            match io::accept(listening).await {
                Ok(fd) => {
                    let connection = self.connection(fd);
                    if admits(&self.allow, connection.peer, &self.listens_at()) {
                        return connection;
                    }
                }
                Err(error) if listener::is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(id = self.id, %error, "a client cannot be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connect_again(&self, address: &Address) -> Connection {
        // As in QEMU, a lost connection stays lost unless asked otherwise.
        let Some(pause) = self.reconnect else { return std::future::pending().await };
        let mut told = false;
        loop {
            sleep(pause).await;
            match connect(address).await {
                Ok(fd) => return self.connection(fd),
                Err(error) if !told => {
                    warn_unconnected(&self.id, &error);
                    told = true;
                }
                Err(_) => {}
            }
        }
    }
}

/// Whether a client may stay; says so in the log.
pub fn admits(allow: &AllowList, peer: Option<Peer>, address: &str) -> bool {
    match peer {
        None => tracing::info!(%address, "a client has connected"),
        Some(peer) if allow.admits(peer) => {
            tracing::info!(%address, %peer, "a client has connected");
        }
        Some(peer) => {
            tracing::warn!(%address, %peer, "a client is not allowed to connect");
            return false;
        }
    }
    true
}

fn warn_unconnected(id: &str, error: &str) {
    tracing::warn!("Unable to connect character device {id}: {error}");
}

async fn connect(address: &Address) -> Result<Fd, String> {
    let connecting = async {
        match address {
            Address::Unix(path) => Stream::connect_unix(path).await,
            Address::Abstract(name) => Stream::connect_abstract(name.as_bytes()).await,
            Address::Tcp(to) => Stream::connect_tcp(*to).await,
        }
    };
    let name = match address {
        Address::Unix(path) => path.display().to_string(),
        Address::Abstract(name) => name.clone(),
        Address::Tcp(to) => to.to_string(),
    };
    let failed = |why: &str| format!("Failed to connect to '{name}': {why}");
    match timeout(CONNECT_MAX, connecting).await {
        Ok(Ok(stream)) => Ok(stream.fd().clone()),
        Ok(Err(error)) => Err(failed(&system_error(&error))),
        Err(_) => Err(failed("Connection timed out")),
    }
}

fn tcp(address: nix::Result<SockaddrStorage>) -> Option<SocketAddr> {
    let address = address.ok()?;
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

fn local_name(fd: &Fd) -> String {
    let address = getsockname::<SockaddrStorage>(fd.as_raw_fd());
    let path = address.ok().and_then(|address| {
        address.as_unix_addr().and_then(|unix| unix.path().map(|path| path.display().to_string()))
    });
    match tcp(address) {
        Some(tcp) => format!("tcp:{tcp}"),
        None => format!("unix:{}", path.unwrap_or_default()),
    }
}

/// Offers one connection after the other, for ever.
pub(super) async fn keep(
    source: Source,
    slot: Arc<Slot>,
    mut first: Option<reactor::sync::oneshot::Receiver<()>>,
) {
    loop {
        let gone = if let Some(gone) = first.take() {
            gone
        } else {
            let connection = source.next(&slot).await;
            let name = source.name(&connection);
            slot.offer(connection, name)
        };
        // An error means that the connection was dropped, which is its end.
        let _ = gone.await;
        slot.disconnected();
    }
}
