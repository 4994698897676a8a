//! What a back end is told at creation.

use std::path::PathBuf;
use std::time::Duration;

/// A host and a port, not yet looked up. Names of hosts are those that need no name service:
/// addresses, `localhost`, and nothing for any address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InetAddress {
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// A path.
    Unix(PathBuf),
    /// A TCP or UDP port.
    Inet(InetAddress),
    /// A descriptor that the caller has: a number, or a name given by `getfd`.
    Fd(String),
}

/// A stream socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Where.
    pub address: SocketAddress,
    /// Listen there instead of connecting.
    pub server: bool,
    /// Connect again so long after a connection has ended or failed.
    pub reconnect: Option<Duration>,
}

/// A datagram socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DgramOptions {
    /// Where frames are received.
    pub local: Option<SocketAddress>,
    /// Where they are sent.
    pub remote: Option<SocketAddress>,
}

/// A tap interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapOptions {
    /// Its name; the kernel chooses one where there is none. May contain `%d`.
    pub ifname: Option<String>,
    /// Open queues of the interface instead, each a number or a name given by `getfd`.
    pub fds: Vec<String>,
    /// Pass the virtio header; by default where the interface can.
    pub virtio_header: Option<bool>,
    /// Queue pairs, 1 to 128.
    pub queues: Option<u16>,
    /// Bytes that the interface queues at most; by default no limit.
    pub sndbuf: Option<u64>,
}

/// A back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetdevOptions {
    /// `socket` and `stream`: the name says which.
    Stream {
        /// The type as the user named it.
        kind: &'static str,
        /// The rest.
        options: StreamOptions,
    },
    /// `dgram`, and `socket` with UDP.
    Dgram {
        /// The type as the user named it.
        kind: &'static str,
        /// The rest.
        options: DgramOptions,
    },
    /// `tap`.
    Tap(TapOptions),
}

impl NetdevOptions {
    /// The type's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stream { kind, .. } | Self::Dgram { kind, .. } => kind,
            Self::Tap(_) => "tap",
        }
    }
}

impl NetdevOptions {
    /// The descriptors that it needs, as they are called.
    pub fn descriptors(&self) -> Vec<&str> {
        let address = match self {
            Self::Tap(options) => return options.fds.iter().map(String::as_str).collect(),
            Self::Stream { options, .. } => Some(&options.address),
            Self::Dgram { options, .. } => options.local.as_ref(),
        };
        match address {
            Some(SocketAddress::Fd(name)) => vec![name],
            _ => Vec::new(),
        }
    }
}

impl InetAddress {
    /// `HOST:PORT`, `:PORT`, `[HOST]:PORT`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// The address, if no name service is needed to tell.
    pub fn resolve(&self) -> Option<std::net::SocketAddr> {
        let host = match self.host.as_str() {
            "" => "0.0.0.0",
            "localhost" => "127.0.0.1",
            other => other,
        };
        Some(std::net::SocketAddr::new(host.parse().ok()?, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::InetAddress;

    #[test]
    fn hosts_and_ports() {
        for (text, expected) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("localhost:1", Some("127.0.0.1:1")),
            (":1234", Some("0.0.0.0:1234")),
            ("[::1]:9", Some("[::1]:9")),
            ("::1:9", Some("[::1]:9")),
            ("example.org:80", None),
            ("1.2.3.4", None),
            ("1.2.3.4:65536", None),
        ] {
            let found = InetAddress::parse(text).and_then(|address| address.resolve());
            assert_eq!(found.map(|at| at.to_string()).as_deref(), expected, "{text}");
        }
    }
}
