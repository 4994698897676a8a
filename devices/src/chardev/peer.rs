//! Who is at the other end of a UNIX socket, and who may be.

use nix::sys::socket::{getsockopt, sockopt};
use reactor::Fd;
use std::fmt;
use std::os::fd::AsFd;

/// A process at the other end, as it was when it connected (unix(7), `SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

impl Peer {
    /// Who is at the other end of `fd`; `None`: the socket has none, as one of TCP.
    pub fn of(fd: &Fd) -> Option<Self> {
        // A TCP socket answers too, with -1.
        let found = getsockopt(&fd.as_fd(), sockopt::PeerCredentials).ok()?;
        let peer = Self { pid: found.pid(), uid: found.uid(), gid: found.gid() };
        (peer.uid != u32::MAX).then_some(peer)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of user {}, group {}", self.pid, self.uid, self.gid)
    }
}

/// The users and groups that may connect to a UNIX socket. The process's own user and root always
/// may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids; only the peer's effective group is looked at.
    pub gids: Vec<u32>,
}

impl AllowList {
    /// Whether the peer may connect.
    pub fn admits(&self, peer: Peer) -> bool {
        let own = nix::unistd::Uid::effective().as_raw();
        peer.uid == 0
            || peer.uid == own
            || self.uids.contains(&peer.uid)
            || self.gids.contains(&peer.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::{AllowList, Peer};
    use reactor::Fd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn others_need_to_be_listed() {
        let own = nix::unistd::Uid::effective().as_raw();
        let peer = |uid, gid| Peer { pid: 1, uid, gid };
        let list = AllowList { uids: vec![own + 7], gids: vec![77] };
        for (uid, gid, admitted) in [
            (0, 1, true),
            (own, 1, true),
            (own + 7, 1, true),
            (own + 8, 1, false),
            (own + 8, 77, true),
        ] {
            assert_eq!(list.admits(peer(uid, gid)), admitted, "{uid} {gid}");
        }
        assert!(!AllowList::default().admits(peer(own + 7, 77)));
    }

    #[test]
    fn peers_are_known_on_unix_sockets_only() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = Peer::of(&Fd::from(a)).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(Peer::of(&Fd::from(tcp)), None);
    }
}
