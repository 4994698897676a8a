//! From the connection into guest memory.

use super::super::NetReceiver;
use super::super::buffer::BufferOp;
use super::super::dgram::deliver;
use super::Shared;
use super::frames::Decoder;
use crate::block::{SegmentTable, Segments};
use crate::signal::Watch;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Reads as much as there is and hands it out frame by frame.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    watch: Watch,
    table: SegmentTable,
    op: BufferOp,
    decoder: Decoder,
    /// Of the connection in use.
    number: u64,
    /// A packet is asked for.
    wanted: bool,
    cancelled: bool,
    /// The connection is not the one in use.
    stale: bool,
}

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>, watch: Watch, table: SegmentTable) -> Self {
        let op = BufferOp::new(Decoder::buffer());
        let mut receiver = Self {
            shared,
            watch,
            table,
            op,
            decoder: Decoder::default(),
            number: u64::MAX,
            wanted: false,
            cancelled: false,
            stale: true,
        };
        receiver.adopt();
        receiver
    }

    /// Takes the connection that is there now into use, with what was read from it before.
    fn adopt(&mut self) {
        let (number, connection) = self.shared.connection();
        self.stale = false;
        if number == self.number {
            return;
        }
        self.number = number;
        let before = self.shared.lock().received.take_if(|(of, _)| *of == number);
        self.decoder = before.map_or_else(Decoder::default, |(_, decoder)| decoder);
        self.decoder.restore(self.op.bytes());
        self.op.attach(connection);
    }

    /// Delivers the next frame, if it is there.
    fn deliver(&mut self) -> Option<u64> {
        match self.decoder.next(self.op.bytes()) {
            Ok(frame) => frame.map(|frame| deliver(&mut self.table.slot(0), frame)),
            Err(error) => {
                tracing::warn!(%error, "a network connection is given up");
                self.shared.lost(self.number);
                self.decoder = Decoder::default();
                self.op.attach(None);
                None
            }
        }
    }

    fn report(&mut self, packet: Option<u64>) -> Poll<Option<u64>> {
        (self.wanted, self.cancelled) = (false, false);
        Poll::Ready(packet)
    }
}

impl NetReceiver for Receiver {
    fn buffers(&mut self) -> Segments<'_> {
        self.table.slot(0)
    }

    fn start(&mut self) {
        self.wanted = true;
    }

    fn receiving(&self) -> bool {
        self.wanted
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.stale |= self.watch.look(cx);
        loop {
            if self.op.in_flight() {
                if self.stale {
                    self.op.cancel();
                }
                let Poll::Ready(result) = self.op.poll(cx) else { return Poll::Pending };
                match result {
                    Ok(n) if n > 0 => self.decoder.read(n),
                    Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
                    Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                    _ => {
                        self.shared.lost(self.number);
                        self.stale = true;
                    }
                }
            }
            if !self.wanted {
                return Poll::Pending;
            }
            if let Some(packet) = self.deliver() {
                return self.report(Some(packet));
            }
            if self.stale {
                self.adopt();
            }
            if self.cancelled {
                return self.report(None);
            }
            if !self.op.attached() {
                return Poll::Pending;
            }
            let free = self.decoder.free(self.op.bytes());
            self.op.read(free);
        }
    }

    fn cancel(&mut self) {
        self.cancelled = self.wanted;
        self.op.cancel();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Whoever receives next goes on where this one has stopped.
        if !self.op.in_flight() && self.op.attached() {
            self.decoder.keep(self.op.bytes());
            let decoder = std::mem::take(&mut self.decoder);
            self.shared.lock().received = Some((self.number, decoder));
        }
    }
}
