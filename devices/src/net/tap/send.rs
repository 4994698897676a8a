//! From guest memory straight to the interface.

use super::super::NetSender;
use crate::block::{SegmentTable, Segments};
use crate::signal::Watch;
use reactor::{Fd, OpGroup, Target};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Every packet is one write; an interface takes them at once, so they keep their order.
pub(super) struct Sender {
    table: SegmentTable,
    queue: Option<(Fd, OpGroup)>,
    /// Bytes at the start of a packet that the interface does not want.
    skip: u64,
    in_flight: usize,
    /// Dropped without being sent.
    dropped: VecDeque<usize>,
    closed: Watch,
    gone: bool,
    cancelled: bool,
}

impl Sender {
    pub(super) fn new(
        fd: Option<Fd>,
        skip: u64,
        closed: Watch,
        table: SegmentTable,
        slots: usize,
    ) -> Self {
        let queue = fd.map(|fd| {
            let fd = fd.register().unwrap_or(fd);
            let group = OpGroup::new(slots, table.keep());
            group.keep(Rc::new(fd.clone()));
            (fd, group)
        });
        let dropped = VecDeque::new();
        Self { table, queue, skip, in_flight: 0, dropped, closed, gone: false, cancelled: false }
    }
}

impl NetSender for Sender {
    fn packet(&mut self, slot: usize) -> Segments<'_> {
        self.table.slot(slot)
    }

    fn submit(&mut self, slot: usize) {
        self.in_flight += 1;
        let (Some((fd, group)), false) = (&self.queue, self.cancelled) else {
            return self.dropped.push_back(slot);
        };
        let mut packet = self.table.slot(slot);
        packet.advance(self.skip);
        let (iovecs, n) = packet.as_iovecs();
        // SAFETY: iovecs and guest memory are the table's storage, which the group keeps; the slot
        // is left alone until the completion.
        unsafe { group.writev(Target::Fd(fd), iovecs, n, u64::MAX, slot as u64) };
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.gone |= self.closed.look(cx);
        if self.gone && !self.cancelled {
            self.cancel();
        }
        if let Some(slot) = self.dropped.pop_front() {
            self.in_flight -= 1;
            return Poll::Ready(slot);
        }
        let Some((_, group)) = &self.queue else { return Poll::Pending };
        // A frame that the interface refuses, or an interface that is down: it is lost.
        let Poll::Ready(completion) = group.poll_next(cx) else {
            if self.gone && self.in_flight == 0 {
                self.queue = None;
            }
            return Poll::Pending;
        };
        self.in_flight -= 1;
        Poll::Ready(completion.token as usize)
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        if let Some((_, group)) = &self.queue {
            group.cancel_all();
        }
    }
}
