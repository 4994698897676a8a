//! Where a monitor listens for any number of clients.

use devices::chardev::{Address, AllowList};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// What `query-chardev` calls it; where it is `None`, it does not tell of it.
    pub label: Option<String>,
    /// Do not start the machine before a client is connected (`wait=on`, QEMU's default).
    pub wait: bool,
    /// Who may connect to a UNIX socket besides root and the process's own user.
    pub allow: AllowList,
}

impl Endpoint {
    /// A UNIX socket; nobody waits for a client.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::at(Address::Unix(path.into()))
    }

    /// A TCP port; nobody waits for a client.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::at(Address::Tcp(address))
    }

    fn at(address: Address) -> Self {
        Self { address, label: None, wait: false, allow: AllowList::default() }
    }
}
