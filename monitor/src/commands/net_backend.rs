//! What network back ends are made of, as QAPI has it.

use super::chardev_backend::{
    FdSocketAddress, InetSocketAddress, SocketAddressType, UnixSocketAddress, refuse,
};
use crate::error::QmpError;
use crate::registry::keyval::typed;
use crate::registry::{
    At, Members, Qapi, QapiStruct, StructInfo, Type, Value, VariantsInfo, mistyped, required,
    take_member,
};
use crate::wire::Writer;
use crate::{qapi_enum, qapi_struct, qapi_union};
use devices::chardev::Address;
use devices::net::{self, DgramOptions, InetAddress, NetdevOptions, StreamOptions, TapOptions};
use devices::qdev::keyval;
use std::time::Duration;

qapi_enum! {
    /// A kind of back end.
    pub enum NetClientDriver {
        /// A tap interface of the host.
        Tap = "tap",
        /// A stream or datagram socket, in the older notation.
        Socket = "socket",
        /// A stream socket.
        Stream = "stream",
        /// A datagram socket.
        Dgram = "dgram",
    }
}

qapi_struct! {
    /// A tap interface of the host. No script is run for it.
    pub struct NetdevTapOptions {
        /// Its name; the host chooses one when absent.
        pub ifname: Option<String> = "ifname",
        /// A descriptor of it: a number, or a name (`getfd`).
        pub fd: Option<String> = "fd",
        /// One for each queue, separated by colons.
        pub fds: Option<String> = "fds",
        /// Must be `no`.
        pub script: Option<String> = "script",
        /// Must be `no`.
        pub downscript: Option<String> = "downscript",
        /// For a helper, which there is not.
        pub br: Option<String> = "br",
        /// There is none.
        pub helper: Option<String> = "helper",
        /// Bytes that it queues at most.
        pub sndbuf: Option<u64> = "sndbuf",
        /// Checksums and segmentation may be left to it; where it can when absent.
        pub vnet_hdr: Option<bool> = "vnet_hdr",
        /// Must be off.
        pub vhost: Option<bool> = "vhost",
        /// For vhost, which there is not.
        pub vhostfd: Option<String> = "vhostfd",
        /// For vhost, which there is not.
        pub vhostfds: Option<String> = "vhostfds",
        /// Must be off.
        pub vhostforce: Option<bool> = "vhostforce",
        /// Queue pairs; 1 when absent.
        pub queues: Option<u64> = "queues",
        /// For vhost: without effect.
        pub poll_us: Option<u64> = "poll-us",
    }
}

qapi_struct! {
    /// A socket. Exactly one of `fd`, `listen`, `connect` and `udp` says which.
    pub struct NetdevSocketOptions {
        /// A connected socket: the number of its descriptor, or a name (`getfd`).
        pub fd: Option<String> = "fd",
        /// Where to listen: `HOST:PORT`.
        pub listen: Option<String> = "listen",
        /// Where to connect: `HOST:PORT`.
        pub connect: Option<String> = "connect",
        /// There is no multicast.
        pub mcast: Option<String> = "mcast",
        /// Where datagrams are received.
        pub localaddr: Option<String> = "localaddr",
        /// Where datagrams are sent.
        pub udp: Option<String> = "udp",
    }
}

qapi_union! {
    /// The address of a socket.
    pub enum SocketAddress by SocketAddressType = "type" {
        Inet(InetSocketAddress),
        Unix(UnixSocketAddress),
        Fd(FdSocketAddress),
    }
}

qapi_struct! {
    /// A stream socket: before each frame its length, 4 bytes in network byte order.
    pub struct NetdevStreamOptions {
        /// Where it listens or connects.
        pub addr: SocketAddress = "addr",
        /// It listens; off when absent.
        pub server: Option<bool> = "server",
        /// Seconds after which a lost connection is made anew. Deprecated: use reconnect-ms.
        pub reconnect: Option<i64> = "reconnect",
        /// Milliseconds after which a lost connection is made anew; 0: never.
        pub reconnect_ms: Option<i64> = "reconnect-ms",
    }
}

qapi_struct! {
    /// A datagram socket: one frame each.
    pub struct NetdevDgramOptions {
        /// Where frames are received.
        pub local: Option<SocketAddress> = "local",
        /// Where they are sent.
        pub remote: Option<SocketAddress> = "remote",
    }
}

qapi_union! {
    /// A back end.
    pub enum NetdevBackend by NetClientDriver = "type" {
        Tap(NetdevTapOptions),
        Socket(NetdevSocketOptions),
        Stream(NetdevStreamOptions),
        Dgram(NetdevDgramOptions),
    }
}

/// A back end with its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Netdev {
    /// Its id.
    pub id: String,
    /// What it is.
    pub backend: NetdevBackend,
}

impl Qapi for Netdev {
    const TYPE: Type = Type::Struct(Self::INFO);

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        match value {
            Value::Object(members) => Self::read_members(members, at),
            _ => Err(mistyped(at, "object")),
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.begin_object();
        self.write_members(writer);
        writer.end_object();
    }
}

impl QapiStruct for Netdev {
    const INFO: &'static StructInfo = &StructInfo {
        name: "Netdev",
        doc: "A network back end.\n",
        members: &[
            required("id", "Its id, which must be free.\n", Type::String),
            required("type", "What it is.\n", NetClientDriver::TYPE),
        ],
        variants: match &NetdevBackend::INFO.variants {
            Some(variants) => Some(VariantsInfo { tag: variants.tag, cases: variants.cases }),
            None => None,
        },
    };

    fn take_members(members: &mut Members, at: At<'_>) -> Result<Self, QmpError> {
        let id = take_member(members, "id", at)?;
        Ok(Self { id, backend: NetdevBackend::take_members(members, at)? })
    }

    fn write_members(&self, writer: &mut Writer) {
        self.id.write_member("id", writer);
        self.backend.write_members(writer);
    }
}

impl Netdev {
    /// From an option string, `socket,id=n0,listen=:1234`.
    pub fn keyval(text: &str) -> Result<Self, QmpError> {
        Self::options(&keyval(text, "type")?)
    }

    /// From the parts of an option string.
    pub fn options(pairs: &Members) -> Result<Self, QmpError> {
        Self::read_members(typed(Self::INFO, pairs)?, At::Root)
    }

    /// From JSON.
    pub fn json(members: Members) -> Result<Self, QmpError> {
        Self::read_members(members, At::Root)
    }

    /// What `-netdev help` prints.
    pub fn help() -> String {
        "Available netdev backend types:\nsocket\nstream\ndgram\ntap\n".to_owned()
    }
}

fn generic(text: impl Into<String>) -> QmpError {
    QmpError::generic(text)
}

/// `HOST:PORT`
fn host_and_port(text: &str) -> Result<net::SocketAddress, QmpError> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(generic(format!(
            "host address '{text}' doesn't contain ':' separating host from port"
        )));
    };
    let address = InetAddress::parse(text);
    let address = address.ok_or_else(|| generic(format!("port number '{port}' is invalid")))?;
    match address.resolve() {
        Some(_) => Ok(net::SocketAddress::Inet(address)),
        None => Err(generic(format!("can't resolve host address '{host}'"))),
    }
}

impl NetdevBackend {
    /// The back end to make.
    pub fn checked(self) -> Result<NetdevOptions, QmpError> {
        match self {
            Self::Tap(options) => options.checked().map(NetdevOptions::Tap),
            Self::Socket(options) => options.checked(),
            Self::Stream(options) => {
                let options = options.checked()?;
                Ok(NetdevOptions::Stream { kind: "stream", options })
            }
            Self::Dgram(options) => {
                let address = |address: Option<SocketAddress>| {
                    address.map(SocketAddress::checked).transpose()
                };
                let (local, remote) = (address(options.local)?, address(options.remote)?);
                let options = DgramOptions { local, remote };
                Ok(NetdevOptions::Dgram { kind: "dgram", options })
            }
        }
    }
}

impl SocketAddress {
    fn checked(self) -> Result<net::SocketAddress, QmpError> {
        Ok(match self {
            Self::Fd(data) => net::SocketAddress::Fd(data.str),
            Self::Unix(data) => match data.checked()? {
                Address::Unix(path) => net::SocketAddress::Unix(path),
                _ => return Err(generic("abstract names are not supported here; use a path")),
            },
            Self::Inet(mut data) => {
                // Any address of the host.
                if data.host.is_empty() {
                    "0.0.0.0".clone_into(&mut data.host);
                }
                let Address::Tcp(address) = data.checked()? else {
                    return Err(generic("an IP address is needed"));
                };
                let (host, port) = (address.ip().to_string(), address.port());
                net::SocketAddress::Inet(InetAddress { host, port })
            }
        })
    }

    /// As events tell of it.
    pub(crate) fn of(address: net::SocketAddress) -> Self {
        match address {
            net::SocketAddress::Unix(path) => Self::Unix(UnixSocketAddress {
                path: path.to_string_lossy().into_owned(),
                hidden: None,
                tight: None,
            }),
            net::SocketAddress::Inet(inet) => Self::Inet(InetSocketAddress {
                host: inet.host,
                port: inet.port.to_string(),
                numeric: None,
                to: None,
                ipv4: None,
                ipv6: None,
                keep_alive: None,
                mptcp: None,
            }),
            net::SocketAddress::Fd(str) => Self::Fd(FdSocketAddress { str }),
        }
    }
}

impl NetdevSocketOptions {
    fn checked(self) -> Result<NetdevOptions, QmpError> {
        let Self { fd, listen, connect, mcast, localaddr, udp } = self;
        let ways = [&fd, &listen, &connect, &mcast, &udp];
        if ways.iter().filter(|way| way.is_some()).count() != 1 {
            return Err(generic("exactly one of listen=, connect=, mcast= or udp= is required"));
        }
        refuse(mcast.is_some(), "mcast=")?;
        if localaddr.is_some() && udp.is_none() {
            return Err(generic("localaddr= is only valid with mcast= or udp="));
        }
        if let Some(udp) = udp {
            let local = localaddr.ok_or_else(|| generic("localaddr= is mandatory with udp="))?;
            let (local, remote) = (Some(host_and_port(&local)?), Some(host_and_port(&udp)?));
            let options = DgramOptions { local, remote };
            return Ok(NetdevOptions::Dgram { kind: "socket", options });
        }
        let server = listen.is_some();
        let address = match (fd, listen.or(connect)) {
            (Some(fd), _) => net::SocketAddress::Fd(fd),
            (None, address) => host_and_port(&address.unwrap_or_default())?,
        };
        let options = StreamOptions { address, server, reconnect: None };
        Ok(NetdevOptions::Stream { kind: "socket", options })
    }
}

impl NetdevStreamOptions {
    fn checked(self) -> Result<StreamOptions, QmpError> {
        let server = self.server == Some(true);
        let pause = match (self.reconnect, self.reconnect_ms) {
            (Some(_), _) | (_, Some(_)) if server => {
                return Err(generic(
                    "'reconnect' and 'reconnect-ms' options are incompatible with socket in server mode",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(generic("'reconnect' and 'reconnect-ms' are mutually exclusive"));
            }
            (Some(seconds), None) => seconds.saturating_mul(1000),
            (None, ms) => ms.unwrap_or(0),
        };
        let pause = u64::try_from(pause).ok().filter(|ms| *ms > 0);
        let address = self.addr.checked()?;
        Ok(StreamOptions { address, server, reconnect: pause.map(Duration::from_millis) })
    }
}

impl NetdevTapOptions {
    fn checked(self) -> Result<TapOptions, QmpError> {
        let named = self.ifname.is_some()
            || self.script.is_some()
            || self.downscript.is_some()
            || self.vnet_hdr.is_some()
            || self.helper.is_some()
            || self.queues.is_some();
        if self.fd.is_some() && (named || self.fds.is_some() || self.vhostfds.is_some()) {
            return Err(generic(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=",
            ));
        }
        if self.fds.is_some() && (named || self.vhostfd.is_some()) {
            return Err(generic(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=",
            ));
        }
        refuse(self.vhost == Some(true), "vhost=on")?;
        refuse(self.vhostforce == Some(true), "vhostforce=on")?;
        if self.vhostfd.is_some() || self.vhostfds.is_some() {
            return Err(generic("vhostfd(s)= is not valid without vhost"));
        }
        refuse(self.helper.is_some(), "helper=")?;
        for (name, script) in [("script", &self.script), ("downscript", &self.downscript)] {
            if script.as_ref().is_some_and(|script| !script.is_empty() && script != "no") {
                return Err(generic(format!(
                    "{name}= must be no: set the interface up beforehand"
                )));
            }
        }
        let queues = self.queues.map(|queues| u16::try_from(queues).unwrap_or(u16::MAX));
        let fds = match (self.fd, self.fds) {
            (Some(fd), _) => vec![fd],
            (None, fds) => fds.iter().flat_map(|fds| fds.split(':')).map(str::to_owned).collect(),
        };
        let (ifname, sndbuf) = (self.ifname, self.sndbuf);
        Ok(TapOptions { ifname, fds, virtio_header: self.vnet_hdr, queues, sndbuf })
    }
}
