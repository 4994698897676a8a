//! Where a monitor listens: QEMU's `unix:PATH,server=on,wait=off` and `tcp:HOST:PORT,...`.

use super::peer::AllowList;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// Do not start the machine before a client is connected (`wait=on`, QEMU's default).
    pub wait: bool,
    /// Who may connect to a UNIX socket besides root and the process's own user.
    pub allow: AllowList,
}

/// The address of an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket in the file system.
    Unix(PathBuf),
    /// A UNIX socket in the abstract namespace, by its name (unix(7)).
    Abstract(String),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:{name},abstract=on"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Why a text names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' names no monitor socket: {reason}")]
pub struct EndpointError {
    text: String,
    reason: String,
}

impl Endpoint {
    /// A UNIX socket; nobody waits for a client.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { address: Address::Unix(path.into()), wait: false, allow: AllowList::default() }
    }

    /// A TCP port; nobody waits for a client.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { address: Address::Tcp(address), wait: false, allow: AllowList::default() }
    }

    /// Parses QEMU's short form. A TCP host that is left out means the loopback interface.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::parse_reason(text).map_err(|reason| EndpointError { text: text.to_owned(), reason })
    }

    fn parse_reason(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let head = parts.next().unwrap_or_default();
        let mut address = match head.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Address::Unix(PathBuf::from(path)),
            Some(("tcp", rest)) => Address::Tcp(tcp(rest)?),
            _ => return Err("write unix:PATH or tcp:HOST:PORT".to_owned()),
        };
        let (mut server, mut wait, mut hidden) = (false, true, false);
        let mut allow = AllowList::default();
        for option in parts {
            let (name, value) = option.split_once('=').unwrap_or((option, "on"));
            match name {
                "uids" => {
                    allow.uids = ids(name, value)?;
                    continue;
                }
                "gids" => {
                    allow.gids = ids(name, value)?;
                    continue;
                }
                _ => {}
            }
            let on = match value {
                "on" | "yes" | "true" => Ok(true),
                "off" | "no" | "false" => Ok(false),
                _ => Err(format!("'{name}' is on or off, not '{value}'")),
            };
            match name {
                "server" => server = on?,
                "wait" => wait = on?,
                "nowait" => wait = !on?,
                "abstract" => hidden = on?,
                _ => {
                    let known = "server, wait, abstract, uids, gids";
                    return Err(format!("there is no option '{name}' ({known})"));
                }
            }
        }
        if !server {
            return Err("only listening sockets are supported: add server=on".to_owned());
        }
        if let Address::Tcp(_) = address
            && (hidden || allow != AllowList::default())
        {
            return Err("abstract, uids and gids are for UNIX sockets".to_owned());
        }
        if let (Address::Unix(path), true) = (&address, hidden) {
            let name = path.to_str().ok_or("an abstract name is UTF-8")?;
            address = Address::Abstract(name.to_owned());
        }
        Ok(Self { address, wait, allow })
    }
}

/// `1000:1001`
fn ids(name: &str, value: &str) -> Result<Vec<u32>, String> {
    let id = |id: &str| id.parse().map_err(|_| format!("'{name}' is ID:ID:..., not '{value}'"));
    value.split(':').map(id).collect()
}

fn tcp(text: &str) -> Result<SocketAddr, String> {
    let (host, port) =
        text.rsplit_once(':').ok_or_else(|| "a TCP address is HOST:PORT".to_owned())?;
    let port = port.parse().map_err(|_| format!("'{port}' is not a port number"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = match host {
        "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => host.parse().map_err(|_| format!("'{host}' is not an IP address"))?,
    };
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::{Address, Endpoint};

    #[test]
    fn the_forms_of_qemu_are_understood() {
        let unix = Endpoint::parse("unix:/run/a b,server=on,wait=off").unwrap();
        assert_eq!(unix, Endpoint::unix("/run/a b"));
        assert!(Endpoint::parse("unix:x,server").unwrap().wait);
        assert!(!Endpoint::parse("unix:x,server,nowait").unwrap().wait);
        let tcp = |text: &str| Endpoint::parse(text).unwrap();
        assert_eq!(
            tcp("tcp:127.0.0.1:4444,server=on,wait=off"),
            Endpoint::tcp("127.0.0.1:4444".parse().unwrap())
        );
        let listed = Endpoint::parse("unix:x,server=on,abstract=on,uids=1:2,gids=3").unwrap();
        assert_eq!(listed.address, Address::Abstract("x".to_owned()));
        assert_eq!((listed.allow.uids, listed.allow.gids), (vec![1, 2], vec![3]));
        assert_eq!(tcp("tcp::4444,server=on").address, tcp("tcp:localhost:4444,server=on").address);
        assert_eq!(tcp("tcp:[::1]:1,server=on").address.to_string(), "tcp:[::1]:1");
    }

    #[test]
    fn errors_say_what_to_write() {
        let error = |text: &str| Endpoint::parse(text).unwrap_err().to_string();
        for (text, part) in [
            ("", "write unix:PATH or tcp:HOST:PORT"),
            ("unix:,server=on", "write unix:PATH"),
            ("vsock:1:2,server=on", "write unix:PATH"),
            ("unix:x", "add server=on"),
            ("unix:x,server=on,wait=maybe", "'wait' is on or off, not 'maybe'"),
            ("unix:x,server=on,speed=9", "there is no option 'speed'"),
            ("unix:x,server=on,uids=root", "'uids' is ID:ID:..., not 'root'"),
            ("tcp::1,server=on,gids=1", "for UNIX sockets"),
            ("tcp::1,server=on,abstract=on", "for UNIX sockets"),
            ("tcp:4444,server=on", "HOST:PORT"),
            ("tcp:h:4444,server=on", "'h' is not an IP address"),
            ("tcp::99999,server=on", "'99999' is not a port number"),
        ] {
            assert!(error(text).contains(part), "{text}: {}", error(text));
        }
    }
}
