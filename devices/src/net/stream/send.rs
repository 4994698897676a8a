//! From guest memory to the connection.

use super::super::buffer::BufferOp;
use super::super::{FRAME_MAX, HEADER, NetSender};
use super::Shared;
use super::frames::PREFIX;
use crate::block::{SegmentTable, Segments};
use crate::signal::Watch;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes that are collected while others are on their way.
const BATCH: usize = 2 * (PREFIX + FRAME_MAX);

/// Collects the frames that come while a write is under way, and sends them with the next one.
pub(super) struct Sender {
    shared: Arc<Shared>,
    watch: Watch,
    table: SegmentTable,
    /// What is on its way, and what is being collected.
    writing: BufferOp,
    next: Box<[u8]>,
    next_len: usize,
    /// Bytes of `writing` that are on their way, and how many of them have been sent.
    on_way: usize,
    done: usize,
    waiting: VecDeque<usize>,
    sent: VecDeque<usize>,
    number: u64,
    stale: bool,
    cancelled: bool,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, watch: Watch, table: SegmentTable) -> Self {
        let mut sender = Self {
            shared,
            watch,
            table,
            writing: BufferOp::new(vec![0; BATCH].into()),
            next: vec![0; BATCH].into(),
            next_len: 0,
            on_way: 0,
            done: 0,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            number: u64::MAX,
            stale: true,
            cancelled: false,
        };
        sender.adopt();
        sender
    }

    /// Takes the connection that is there now into use, with what is left to send there.
    fn adopt(&mut self) {
        let (number, connection) = self.shared.connection();
        self.stale = false;
        if number == self.number {
            return;
        }
        self.number = number;
        // Half a frame means nothing to another connection.
        (self.next_len, self.on_way, self.done) = (0, 0, 0);
        let before = self.shared.lock().unsent.take_if(|(of, _)| *of == number);
        if let Some((_, bytes)) = before {
            self.writing.bytes()[..bytes.len()].copy_from_slice(&bytes);
            self.on_way = bytes.len();
        }
        self.writing.attach(connection);
    }

    /// Collects the frames that there is room for.
    fn collect(&mut self) {
        while let Some(&slot) = self.waiting.front() {
            let packet = self.table.slot(slot);
            let len = usize::try_from(packet.bytes()).unwrap_or(usize::MAX).saturating_sub(HEADER);
            if self.writing.attached() && !self.cancelled && len <= FRAME_MAX {
                let room = &mut self.next[self.next_len..];
                if room.len() < PREFIX + len {
                    break;
                }
                room[..PREFIX].copy_from_slice(&(len as u32).to_be_bytes());
                packet.read_at(HEADER as u64, &mut room[PREFIX..PREFIX + len]);
                self.next_len += PREFIX + len;
            }
            self.waiting.pop_front();
            self.sent.push_back(slot);
        }
    }

    /// Writes what there is, if nothing is on its way.
    fn write(&mut self) {
        if self.writing.in_flight() || self.cancelled || !self.writing.attached() {
            return;
        }
        if self.done == self.on_way {
            if self.next_len == 0 {
                return;
            }
            let len = std::mem::take(&mut self.next_len);
            self.writing.bytes()[..len].copy_from_slice(&self.next[..len]);
            (self.on_way, self.done) = (len, 0);
        }
        self.writing.write(self.done..self.on_way);
    }

    /// The write has ended.
    fn written(&mut self, result: std::io::Result<usize>) {
        match result {
            Ok(n) if n > 0 => self.done += n,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EINTR)) => {}
            _ => {
                self.shared.lost(self.number);
                self.stale = true;
            }
        }
    }
}

impl NetSender for Sender {
    fn packet(&mut self, slot: usize) -> Segments<'_> {
        self.table.slot(slot)
    }

    fn submit(&mut self, slot: usize) {
        self.waiting.push_back(slot);
        self.collect();
        self.write();
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.stale |= self.watch.look(cx);
        if self.writing.in_flight() {
            if self.stale {
                self.writing.cancel();
            }
            if let Poll::Ready(result) = self.writing.poll(cx) {
                self.written(result);
            }
        }
        if !self.writing.in_flight() {
            if self.stale {
                self.adopt();
            }
            self.write();
            self.collect();
            self.write();
            if self.writing.in_flight() {
                // Registers for its end.
                if let Poll::Ready(result) = self.writing.poll(cx) {
                    self.written(result);
                    cx.waker().wake_by_ref();
                }
            }
        }
        self.sent.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.sent.len() + usize::from(self.writing.in_flight())
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        self.writing.cancel();
        self.collect();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.writing.in_flight() || !self.writing.attached() {
            return;
        }
        // Half a frame may be out: whoever sends next begins with the other half.
        let mut rest = self.writing.bytes()[self.done..self.on_way].to_vec();
        if rest.len() + self.next_len <= BATCH {
            rest.extend_from_slice(&self.next[..self.next_len]);
        }
        if !rest.is_empty() {
            self.shared.lock().unsent = Some((self.number, rest));
        }
    }
}
