//! What a session has to send, bounded.
//!
//! A message is sent at once, by whichever thread has it, when nothing is waiting before it: one
//! non-blocking send(2). What the socket does not take is kept, and a task of the monitor context
//! sends the rest.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use reactor::sync::Notify;
use reactor::{Context, Fd, io};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Unsent bytes from which on events are dropped.
pub(crate) const EVENTS_UNSENT_MAX: usize = 256 << 10;
/// Unsent bytes from which on no further request is read.
pub(crate) const READ_UNSENT_MAX: usize = 64 << 10;

#[derive(Default)]
struct State {
    /// Behind what the flusher is sending.
    backlog: Vec<u8>,
    /// Bytes the flusher has taken.
    flushing_bytes: usize,
    flushing: bool,
    closed: bool,
    /// The client has had the reply behind which events may come.
    wants_events: bool,
    events_dropped: u64,
}

impl State {
    fn unsent(&self) -> usize {
        self.backlog.len() + self.flushing_bytes
    }
}

/// How a message may be treated when the peer does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Kept; their number is bounded by the requests that were read.
    Reply,
    /// A reply behind which events may come.
    ReplyThenEvents,
    /// Not sent before they may come; dropped and counted when too much is waiting.
    Event,
}

/// The sending side of a socket.
pub(crate) struct Outbox {
    fd: Fd,
    monitor: Context,
    state: Mutex<State>,
    /// What was taken has been sent, or the outbox was closed.
    drained: Notify,
}

impl Outbox {
    pub(crate) fn new(fd: Fd, monitor: Context) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { fd, monitor, state, drained: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message. Any thread; never waits.
    pub(crate) fn push(self: &Arc<Self>, message: &[u8], class: Class) {
        let mut state = self.lock();
        state.wants_events |= class == Class::ReplyThenEvents;
        if state.closed || (class == Class::Event && !state.wants_events) {
            return;
        }
        let mut rest = message;
        if !state.flushing {
            match send_now(&self.fd, message) {
                Ok(sent) => rest = message.get(sent..).unwrap_or_default(),
                Err(error) => {
                    tracing::debug!(%error, "a monitor client cannot be written to");
                    self.close_locked(&mut state);
                    return;
                }
            }
        } else if class == Class::Event && state.unsent() + message.len() > EVENTS_UNSENT_MAX {
            state.events_dropped += 1;
            return;
        }
        if rest.is_empty() {
            return;
        }
        state.backlog.extend_from_slice(rest);
        if !state.flushing {
            state.flushing = true;
            drop(state);
            self.monitor.spawn("monitor-flush", flush(Arc::clone(self))).detach();
        }
    }

    /// Bytes that the peer has not taken. Any thread.
    pub(crate) fn unsent(&self) -> usize {
        self.lock().unsent()
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Events that were dropped because the peer did not read.
    pub(crate) fn events_dropped(&self) -> u64 {
        self.lock().events_dropped
    }

    /// Waits until at most `bytes` are unsent or the outbox is closed.
    pub(crate) async fn drained_to(&self, bytes: usize) {
        loop {
            let changed = self.drained.notified();
            {
                let state = self.lock();
                if state.closed || state.unsent() <= bytes {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Drops what is waiting and ends the connection in both directions; a send or receive in
    /// flight ends with it.
    pub(crate) fn close(&self) {
        self.close_locked(&mut self.lock());
    }

    fn close_locked(&self, state: &mut State) {
        if state.closed {
            return;
        }
        state.closed = true;
        state.backlog = Vec::new();
        // It fails for a peer that is gone already.
        let _ = nix::sys::socket::shutdown(self.fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        self.drained.notify_all();
    }

    /// Takes what is to be sent next; `None` ends the flusher.
    fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.flushing_bytes = 0;
        self.drained.notify_all();
        if state.closed || state.backlog.is_empty() {
            state.flushing = false;
            return None;
        }
        let taken = std::mem::take(&mut state.backlog);
        state.flushing_bytes = taken.len();
        Some(taken)
    }
}

/// Sends the backlog until none is left.
async fn flush(outbox: Arc<Outbox>) {
    while let Some(bytes) = outbox.take() {
        let (result, _) = io::send_all(&outbox.fd, bytes).await;
        if let Err(error) = result {
            tracing::debug!(%error, "a monitor client cannot be written to");
            outbox.close();
        }
    }
}

/// Sends what the socket takes without waiting and returns how much that was.
fn send_now(fd: &Fd, bytes: &[u8]) -> Result<usize, Errno> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match send(fd.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(n) => sent += n,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
