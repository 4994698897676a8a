//! A connection of a back end: what a front end reads from and writes to.

use super::peer::Peer;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use reactor::sync::{Notify, oneshot};
use reactor::{CancelOnDrop, Fd, io};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes moved at once between a descriptor that is no socket and a session.
const CHUNK: usize = 4096;

/// A duplex stream of bytes. The back end makes or accepts another one only after it was dropped.
pub struct Connection {
    /// Where input comes from; `None`: there never is any.
    pub input: Option<Fd>,
    /// Where output goes.
    pub output: Fd,
    /// Both are one connected stream socket.
    pub is_socket: bool,
    /// The end of the input is the end of the connection.
    pub ends_with_input: bool,
    /// The process at the other end of a UNIX socket, which may pass descriptors.
    pub peer: Option<Peer>,
    held: Held,
}

/// Keeps the back end from making another connection.
#[derive(Default)]
pub struct Held {
    _released: Option<oneshot::Sender<()>>,
    bridges: Option<Arc<Bridges>>,
}

impl Connection {
    /// A connected socket.
    pub(super) fn socket(fd: Fd, peer: Option<Peer>) -> Self {
        let (input, output) = (Some(fd.clone()), fd);
        let held = Held::default();
        Self { input, output, is_socket: true, ends_with_input: true, peer, held }
    }

    /// Two streams that are no socket.
    pub(super) fn streams(input: Option<Fd>, output: Fd, ends_with_input: bool) -> Self {
        Self { input, output, is_socket: false, ends_with_input, peer: None, held: Held::default() }
    }

    /// Sets who hears of its end.
    pub(super) fn hold(&mut self, released: oneshot::Sender<()>, bridges: Arc<Bridges>) {
        self.held = Held { _released: Some(released), bridges: Some(bridges) };
    }

    /// As one connected socket, with a bridge where it is something else; for who sends without
    /// waiting. To be called on a reactor. The connection lasts as long as what is returned last.
    pub fn into_socket(self) -> std::io::Result<(Fd, Option<Peer>, Held)> {
        if self.is_socket {
            return Ok((self.output, self.peer, self.held));
        }
        let (ours, theirs) = stream_pair()?;
        let context = reactor::current();
        let mut held = self.held;
        let running = held.bridges.take().map(Running::new);
        let output = self.output;
        let outward = ours.clone();
        let inward = self.input.map(|input| {
            let inward = async move {
                copy(&input, &ours).await;
                // The session hears of the end of its input; it fails when the session is gone.
                let _ = io::shutdown(&ours, std::net::Shutdown::Write).await;
            };
            CancelOnDrop::new(context.spawn("chardev-input", inward))
        });
        let outward = async move {
            // Until the session has closed its end and everything it sent is written.
            copy(&outward, &output).await;
            drop((running, inward, held));
        };
        context.spawn("chardev-output", outward).detach();
        Ok((theirs, None, Held::default()))
    }
}

/// Two connected stream sockets.
pub(super) fn stream_pair() -> std::io::Result<(Fd, Fd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    Ok((a.into(), b.into()))
}

/// Copies until the end of either.
async fn copy(from: &Fd, to: &Fd) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let (result, mut bytes) = io::read(from, buffer).await;
        match result {
            Ok(0) => return,
            Ok(n) => {
                bytes.truncate(n);
                let (result, back) = io::write_all(to, bytes).await;
                if result.is_err() {
                    return;
                }
                buffer = back;
                buffer.resize(CHUNK, 0);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => buffer = bytes,
            Err(_) => return,
        }
    }
}

/// Bridges with output on its way.
#[derive(Default)]
pub(super) struct Bridges {
    running: AtomicUsize,
    ended: Notify,
}

impl Bridges {
    /// Waits until all output has been written.
    pub(super) async fn settled(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

struct Running(Arc<Bridges>);

impl Running {
    fn new(bridges: Arc<Bridges>) -> Self {
        bridges.running.fetch_add(1, Ordering::AcqRel);
        Self(bridges)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_all();
    }
}
