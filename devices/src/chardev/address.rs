//! Where sockets are, as QEMU writes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The address of a stream socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket in the file system.
    Unix(PathBuf),
    /// A UNIX socket in the abstract namespace, by its name (unix(7)).
    Abstract(String),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl Address {
    /// A TCP address of a host and a port. No host means the loopback interface. Names are not
    /// resolved, which would block: a host is `localhost` or an IP address, in brackets or not.
    pub fn tcp(host: &str, port: &str) -> Result<Self, String> {
        let port = port.parse().map_err(|_| format!("'{port}' is not a port number"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ip = match host {
            "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => host.parse().map_err(|_| format!("'{host}' is not an IP address"))?,
        };
        Ok(Self::Tcp(SocketAddr::new(ip, port)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:{name},abstract=on,tight=on"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn tcp_hosts_are_numbers_or_this_one() {
        let text = |host, port| Address::tcp(host, port).map(|address| address.to_string());
        assert_eq!(text("", "4444").unwrap(), "tcp:127.0.0.1:4444");
        assert_eq!(text("localhost", "1"), text("", "1"));
        assert_eq!(text("[::1]", "1").unwrap(), "tcp:[::1]:1");
        assert_eq!(text("::1", "1").unwrap(), "tcp:[::1]:1");
        assert_eq!(text("h", "1").unwrap_err(), "'h' is not an IP address");
        assert_eq!(text("", "99999").unwrap_err(), "'99999' is not a port number");
    }
}
