//! What a character device is made of, free of any syntax.

use super::address::Address;
use super::peer::AllowList;
use reactor::Fd;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes that a ring buffer holds when nothing else is asked for, as in QEMU.
pub const RINGBUF_SIZE: u64 = 65536;

/// A back end.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A stream socket.
    Socket(SocketOptions),
    /// Standard input and output.
    Stdio {
        /// Ctrl-C on a terminal ends the program; else it is input like any other.
        signal: bool,
    },
    /// A file for the output, and perhaps one for the input.
    File {
        /// Where output goes.
        path: PathBuf,
        /// Behind what the file has; else it is emptied.
        append: bool,
        /// Where input comes from.
        input: Option<PathBuf>,
    },
    /// Output goes nowhere and input never comes.
    Null,
    /// A pseudo terminal.
    Pty {
        /// A symbolic link to it.
        link: Option<PathBuf>,
    },
    /// Memory that keeps the last output.
    Ringbuf {
        /// Bytes, a power of two.
        size: u64,
    },
    /// Several front ends on one other character device.
    Mux {
        /// The id of the other one.
        base: String,
    },
}

/// Where a socket comes from.
#[derive(Clone, Debug)]
pub enum SocketFrom {
    /// It is made.
    Address(Address),
    /// It is there already; the text is how the user calls it.
    Fd(Fd, String),
}

/// A socket.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Where it comes from.
    pub from: SocketFrom,
    /// It listens; else it connects, or is connected.
    pub server: bool,
    /// The machine does not start before a client is connected. For servers.
    pub wait: bool,
    /// A lost connection is made anew after so long. For clients.
    pub reconnect: Option<Duration>,
    /// TCP sends small packets at once.
    pub nodelay: bool,
    /// Who may connect to a UNIX socket besides root and the process's own user.
    pub allow: AllowList,
}

impl SocketOptions {
    /// A socket with QEMU's defaults.
    pub fn new(from: SocketFrom, server: bool) -> Self {
        let (wait, allow) = (server, AllowList::default());
        Self { from, server, wait, reconnect: None, nodelay: false, allow }
    }
}
