//! Management connections. Sockets, parsing, events and out-of-band commands live in the
//! *monitor* context; replies are sent from the context that has them, without waiting.

pub(crate) mod dispatcher;
pub(crate) mod endpoint;
pub(crate) mod fair;
pub(crate) mod hub;
pub(crate) mod listener;
mod outbox;
pub(crate) mod serve;

use crate::wire::Style;
use outbox::{Class, Outbox};
use reactor::sync::Notify;
use reactor::{Context, Fd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
}

impl Session {
    fn new(fd: Fd, style: Style, monitor: Context) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            outbox: Outbox::new(fd.clone(), monitor),
            fd,
            style,
            negotiated: AtomicBool::new(false),
            oob: AtomicBool::new(false),
            changed: Notify::new(),
        })
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
    #[cfg(test)]
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
