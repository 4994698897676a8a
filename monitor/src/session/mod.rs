//! Management connections. Sockets, parsing, events and out-of-band commands live in the
//! *monitor* context; replies are sent from the context that has them, without waiting.

pub(crate) mod descriptors;
pub(crate) mod dispatcher;
pub(crate) mod endpoint;
pub(crate) mod fair;
pub(crate) mod hub;
pub(crate) mod latency;
mod outbox;
pub(crate) mod serve;
mod throttle;

use crate::wire::Style;
use descriptors::Descriptors;
use devices::chardev::Peer;
use latency::{Latencies, Timing};
use outbox::{Class, Outbox};
use reactor::sync::Notify;
use reactor::{Context, Fd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A QMP connection.
pub(crate) struct Session {
    id: u64,
    fd: Fd,
    style: Style,
    outbox: Arc<Outbox>,
    negotiated: AtomicBool,
    oob: AtomicBool,
    /// Something that reading may be waiting for has changed. Only the reader waits for it.
    changed: Notify,
    peer: Option<Peer>,
    since: Instant,
    descriptors: Mutex<Descriptors>,
    latencies: Mutex<Latencies>,
}

impl Session {
    fn new(fd: Fd, peer: Option<Peer>, style: Style, monitor: Context) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            outbox: Outbox::new(fd.clone(), monitor),
            fd,
            style,
            negotiated: AtomicBool::new(false),
            oob: AtomicBool::new(false),
            changed: Notify::new(),
            peer,
            since: Instant::now(),
            descriptors: Mutex::default(),
            latencies: Mutex::default(),
        })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Who is connected; none over TCP.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// When it began.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Whether out-of-band execution was negotiated.
    pub(crate) fn has_oob(&self) -> bool {
        self.oob.load(Ordering::Acquire)
    }

    /// The descriptors that were passed. Held for moments only.
    pub(crate) fn descriptors(&self) -> MutexGuard<'_, Descriptors> {
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long its commands took. Held for moments only.
    pub(crate) fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command has been answered.
    fn count(&self, timing: Timing) {
        if let Some(command) = timing.command {
            self.latencies().record(command, timing.since.elapsed());
        }
    }

    /// A request that brought descriptors begins.
    fn hand_over(&self, fds: Vec<Fd>) {
        if !fds.is_empty() {
            self.descriptors().arrive(fds);
        }
    }

    /// How messages to it are laid out.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Whether the capabilities have been negotiated.
    pub(crate) fn is_negotiated(&self) -> bool {
        self.negotiated.load(Ordering::Acquire)
    }

    /// Ends the negotiation.
    pub(crate) fn negotiate(&self, oob: bool) {
        self.oob.store(oob, Ordering::Release);
        self.negotiated.store(true, Ordering::Release);
    }

    /// Waits until everything is sent or the connection has ended.
    pub(crate) async fn drained(&self) {
        self.outbox.drained_to(0).await;
    }

    /// Bytes that wait for the client, and events it has missed.
    pub(crate) fn waiting(&self) -> (usize, u64) {
        (self.outbox.unsent(), self.outbox.events_dropped())
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.outbox.close();
    }

    fn send_reply(&self, message: &[u8]) {
        // Events begin behind the reply to the negotiation.
        let class = if self.is_negotiated() { Class::ReplyThenEvents } else { Class::Reply };
        self.outbox.push(message, class);
    }

    fn send_event(&self, message: &[u8]) {
        self.outbox.push(message, Class::Event);
    }
}
