//! What character devices are made of, as QAPI has it.

use crate::error::QmpError;
use crate::{qapi_enum, qapi_struct, qapi_union};
use devices::chardev::{Address, Backend, RINGBUF_SIZE, SocketFrom, SocketOptions};
use reactor::Fd;
use std::time::Duration;

qapi_enum! {
    /// A kind of back end.
    pub enum ChardevBackendKind {
        /// Files.
        File = "file",
        /// A stream socket.
        Socket = "socket",
        /// A pseudo terminal.
        Pty = "pty",
        /// Nothing.
        Null = "null",
        /// Several front ends on another character device.
        Mux = "mux",
        /// Standard input and output.
        Stdio = "stdio",
        /// Memory that keeps the last output.
        Ringbuf = "ringbuf",
        /// The old name of ringbuf.
        Memory = "memory",
    }
}

qapi_struct! {
    /// Files.
    pub struct ChardevFile {
        /// Logging of output is not there.
        pub logfile: Option<String> = "logfile",
        /// Logging of output is not there.
        pub logappend: Option<bool> = "logappend",
        /// Where input comes from.
        pub input: Option<String> = "in",
        /// Where output goes.
        pub out: String = "out",
        /// Output goes behind what the file has; else it is emptied first.
        pub append: Option<bool> = "append",
    }
}

qapi_struct! {
    /// A stream socket.
    pub struct ChardevSocket {
        /// Logging of output is not there.
        pub logfile: Option<String> = "logfile",
        /// Logging of output is not there.
        pub logappend: Option<bool> = "logappend",
        /// Where it listens or connects.
        pub addr: SocketAddressLegacy = "addr",
        /// TLS is not there.
        pub tls_creds: Option<String> = "tls-creds",
        /// TLS is not there.
        pub tls_authz: Option<String> = "tls-authz",
        /// It listens; on when absent.
        pub server: Option<bool> = "server",
        /// Understood and without effect: no command waits for a client.
        pub wait: Option<bool> = "wait",
        /// Small packets are sent at once.
        pub nodelay: Option<bool> = "nodelay",
        /// Must be off.
        pub telnet: Option<bool> = "telnet",
        /// Must be off.
        pub tn3270: Option<bool> = "tn3270",
        /// Must be off.
        pub websocket: Option<bool> = "websocket",
        /// Seconds after which a lost connection is made anew. Deprecated: use reconnect-ms.
        pub reconnect: Option<i64> = "reconnect",
        /// Milliseconds after which a lost connection is made anew; 0: never.
        pub reconnect_ms: Option<i64> = "reconnect-ms",
    }
}

qapi_struct! {
    /// A pseudo terminal.
    pub struct ChardevPty {
        /// Logging of output is not there.
        pub logfile: Option<String> = "logfile",
        /// Logging of output is not there.
        pub logappend: Option<bool> = "logappend",
        /// Where to make a symbolic link to it.
        pub path: Option<String> = "path",
    }
}

qapi_struct! {
    /// What all kinds have.
    pub struct ChardevCommon {
        /// Logging of output is not there.
        pub logfile: Option<String> = "logfile",
        /// Logging of output is not there.
        pub logappend: Option<bool> = "logappend",
    }
}

qapi_struct! {
    /// Several front ends on another character device.
    pub struct ChardevMux {
        /// Logging of output is not there.
        pub logfile: Option<String> = "logfile",
        /// Logging of output is not there.
        pub logappend: Option<bool> = "logappend",
        /// The id of the other one.
        pub chardev: String = "chardev",
    }
}

qapi_struct! {
    /// Standard input and output.
    pub struct ChardevStdio {
        /// Logging of output is not there.
        pub logfile: Option<String> = "logfile",
        /// Logging of output is not there.
        pub logappend: Option<bool> = "logappend",
        /// Ctrl-C on a terminal ends the program; on when absent.
        pub signal: Option<bool> = "signal",
    }
}

qapi_struct! {
    /// Memory that keeps the last output.
    pub struct ChardevRingbuf {
        /// Logging of output is not there.
        pub logfile: Option<String> = "logfile",
        /// Logging of output is not there.
        pub logappend: Option<bool> = "logappend",
        /// Bytes, a power of two; 65536 when absent.
        pub size: Option<i64> = "size",
    }
}

/// QAPI wraps the members of these variants in one called `data`.
macro_rules! wrappers {
    ($( $name:ident($ty:ty), )*) => {
        $(
            qapi_struct! {
                /// A wrapper.
                pub struct $name {
                    /// What it wraps.
                    pub data: $ty = "data",
                }
            }
        )*
    };
}

wrappers! {
    ChardevFileWrapper(ChardevFile),
    ChardevSocketWrapper(ChardevSocket),
    ChardevPtyWrapper(ChardevPty),
    ChardevCommonWrapper(ChardevCommon),
    ChardevMuxWrapper(ChardevMux),
    ChardevStdioWrapper(ChardevStdio),
    ChardevRingbufWrapper(ChardevRingbuf),
    InetSocketAddressWrapper(InetSocketAddress),
    UnixSocketAddressWrapper(UnixSocketAddress),
    FdSocketAddressWrapper(FdSocketAddress),
}

qapi_union! {
    /// A back end.
    pub enum ChardevBackend by ChardevBackendKind = "type" {
        File(ChardevFileWrapper),
        Socket(ChardevSocketWrapper),
        Pty(ChardevPtyWrapper),
        Null(ChardevCommonWrapper),
        Mux(ChardevMuxWrapper),
        Stdio(ChardevStdioWrapper),
        Ringbuf(ChardevRingbufWrapper),
        Memory(ChardevRingbufWrapper),
    }
}

qapi_enum! {
    /// A kind of address.
    pub enum SocketAddressType {
        /// TCP.
        Inet = "inet",
        /// A UNIX socket.
        Unix = "unix",
        /// A descriptor.
        Fd = "fd",
    }
}

qapi_struct! {
    /// A TCP port.
    pub struct InetSocketAddress {
        /// `localhost`, an IP address, or nothing for the loopback interface.
        pub host: String = "host",
        /// The port.
        pub port: String = "port",
        /// Names are not resolved in any case.
        pub numeric: Option<bool> = "numeric",
        /// The last port to try to listen on.
        pub to: Option<i64> = "to",
        /// IPv4 is allowed.
        pub ipv4: Option<bool> = "ipv4",
        /// IPv6 is allowed.
        pub ipv6: Option<bool> = "ipv6",
        /// Must be off.
        pub keep_alive: Option<bool> = "keep-alive",
        /// Must be off.
        pub mptcp: Option<bool> = "mptcp",
    }
}

qapi_struct! {
    /// A UNIX socket.
    pub struct UnixSocketAddress {
        /// Its path, or its name in the abstract namespace.
        pub path: String = "path",
        /// In the abstract namespace.
        pub hidden: Option<bool> = "abstract",
        /// An abstract name is as long as it is, without zeros behind; must be on.
        pub tight: Option<bool> = "tight",
    }
}

qapi_struct! {
    /// A descriptor.
    pub struct FdSocketAddress {
        /// Its name (`getfd`).
        pub str: String = "str",
    }
}

qapi_union! {
    /// The address of a socket.
    pub enum SocketAddressLegacy by SocketAddressType = "type" {
        Inet(InetSocketAddressWrapper),
        Unix(UnixSocketAddressWrapper),
        Fd(FdSocketAddressWrapper),
    }
}

/// Refuses what is there only so that a client may say that it does not want it.
pub(super) fn refuse(wanted: bool, what: &str) -> Result<(), QmpError> {
    if wanted { Err(QmpError::generic(format!("{what} is not supported"))) } else { Ok(()) }
}

impl ChardevBackend {
    /// The back end to open. `take` gives the descriptor of a name.
    pub(crate) fn checked(
        self,
        take: impl FnOnce(&str) -> Result<Fd, QmpError>,
    ) -> Result<Backend, QmpError> {
        let (logfile, backend) = match self {
            Self::File(ChardevFileWrapper { data }) => {
                let (path, input) = (data.out.into(), data.input.map(Into::into));
                (data.logfile, Backend::File { path, append: data.append == Some(true), input })
            }
            Self::Socket(ChardevSocketWrapper { data }) => {
                (data.logfile.clone(), Backend::Socket(data.checked(take)?))
            }
            Self::Pty(ChardevPtyWrapper { data }) => {
                (data.logfile, Backend::Pty { link: data.path.map(Into::into) })
            }
            Self::Null(ChardevCommonWrapper { data }) => (data.logfile, Backend::Null),
            Self::Mux(ChardevMuxWrapper { data }) => {
                (data.logfile, Backend::Mux { base: data.chardev })
            }
            Self::Stdio(ChardevStdioWrapper { data }) => {
                (data.logfile, Backend::Stdio { signal: data.signal != Some(false) })
            }
            Self::Ringbuf(ChardevRingbufWrapper { data })
            | Self::Memory(ChardevRingbufWrapper { data }) => {
                // A negative size is no power of two either.
                let size = data.size.map_or(RINGBUF_SIZE, |size| u64::try_from(size).unwrap_or(0));
                (data.logfile, Backend::Ringbuf { size })
            }
        };
        refuse(logfile.is_some(), "logfile")?;
        Ok(backend)
    }
}

impl ChardevSocket {
    fn checked(
        self,
        take: impl FnOnce(&str) -> Result<Fd, QmpError>,
    ) -> Result<SocketOptions, QmpError> {
        let server = self.server != Some(false);
        if let Some(credentials) = self.tls_creds {
            let text = format!("No TLS credentials with id '{credentials}'");
            return Err(QmpError::generic(text));
        }
        refuse(self.tls_authz.is_some(), "tls-authz")?;
        refuse(self.telnet == Some(true), "telnet")?;
        refuse(self.tn3270 == Some(true), "tn3270")?;
        refuse(self.websocket == Some(true), "websocket")?;
        if !server && self.wait == Some(true) {
            let text = "'wait' option is incompatible with socket in client connect mode";
            return Err(QmpError::generic(text));
        }
        if self.reconnect.is_some() && self.reconnect_ms.is_some() {
            let text = "'reconnect' and 'reconnect-ms' are mutually exclusive";
            return Err(QmpError::generic(text));
        }
        let reconnect = match (self.reconnect, self.reconnect_ms) {
            (Some(seconds), _) => seconds.saturating_mul(1000),
            (None, ms) => ms.unwrap_or(0),
        };
        let from = match self.addr {
            SocketAddressLegacy::Inet(InetSocketAddressWrapper { data }) => {
                SocketFrom::Address(data.checked()?)
            }
            SocketAddressLegacy::Unix(UnixSocketAddressWrapper { data }) => {
                SocketFrom::Address(data.checked()?)
            }
            SocketAddressLegacy::Fd(FdSocketAddressWrapper { data }) => {
                SocketFrom::Fd(take(&data.str)?, data.str)
            }
        };
        let mut options = SocketOptions::new(from, server);
        // Nothing but the start of the machine waits.
        options.wait = false;
        options.nodelay = self.nodelay == Some(true);
        let reconnect = u64::try_from(reconnect).ok().filter(|ms| *ms > 0);
        options.reconnect = reconnect.map(Duration::from_millis);
        Ok(options)
    }
}

impl InetSocketAddress {
    pub(super) fn checked(self) -> Result<Address, QmpError> {
        refuse(self.to.is_some(), "a range of ports")?;
        refuse(self.keep_alive == Some(true), "keep-alive")?;
        refuse(self.mptcp == Some(true), "mptcp")?;
        let address = Address::tcp(&self.host, &self.port).map_err(QmpError::generic)?;
        let v4 = matches!(address, Address::Tcp(address) if address.is_ipv4());
        // Either can be asked for, which excludes the other, or excluded.
        let (ours, other) = if v4 { (self.ipv4, self.ipv6) } else { (self.ipv6, self.ipv4) };
        if ours == Some(false) || (ours.is_none() && other == Some(true)) {
            let text = format!("'{}' is not of the address family asked for", self.host);
            return Err(QmpError::generic(text));
        }
        Ok(address)
    }
}

impl UnixSocketAddress {
    pub(super) fn checked(self) -> Result<Address, QmpError> {
        if self.hidden == Some(true) {
            refuse(self.tight == Some(false), "tight=off")?;
            return Ok(Address::Abstract(self.path));
        }
        Ok(Address::Unix(self.path.into()))
    }
}
