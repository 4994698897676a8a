//! The data handle of an image whose format takes requests as futures.
//!
//! ```text
//!   Read, Write ──▶ plan ──▶ a piece of the file ──▶ the file's own queue, on guest memory ──▶ next piece
//!                     └────▶ anything else (to be allocated, zero, compressed) ──▶ a copy ──▶ next piece
//! ```
//! Where the format only translates offsets, a request costs a look into its tables; data does not
//! pass through here.

use super::bytes::Local;
use crate::block::{DiskQueue, Done, Request, SegmentTable, Segments};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes that are copied at once: what a request asks for is up to the guest.
const COPY_MAX: u64 = 1 << 20;

/// How the next piece of a read or write is to be done.
pub(super) enum Plan {
    /// `len` bytes at `at` of the file, as long as `keep` is kept.
    Direct { at: u64, len: u64, keep: Box<dyn Any> },
    /// With a copy.
    Copied,
}

/// What requests become futures of.
pub(super) trait Image: Send + Sync + 'static {
    /// Looks where the file has the start of a range, to be written or read.
    fn plan(self: Arc<Self>, offset: u64, len: u64, write: bool) -> Local<'static, Plan>;
    /// Reads `len` bytes.
    fn read(self: Arc<Self>, offset: u64, len: usize) -> Local<'static, io::Result<Vec<u8>>>;
    /// Any other request; `data` is what a write carries.
    fn change(self: Arc<Self>, request: Request, data: Vec<u8>) -> Local<'static, io::Result<()>>;
}

/// What a future of a slot comes to.
enum Outcome {
    Planned(Plan),
    Read(Vec<u8>),
    /// So many bytes are written.
    Wrote(u64),
    Done,
}

type Running = Local<'static, (usize, io::Result<Outcome>)>;

struct Slot {
    request: Request,
    /// Bytes of a read or write, and how many of them are done.
    len: u64,
    moved: u64,
    /// While the file's queue has a piece: its length, and what is kept.
    direct: Option<(u64, Box<dyn Any>)>,
}

/// Requests of one queue, all in flight at once.
pub(super) struct AsyncQueue<I, K: 'static> {
    image: Arc<I>,
    table: SegmentTable,
    running: FuturesUnordered<Running>,
    /// The file's queue, of the same shape; `None` where data may not go past the format.
    file: Option<Box<dyn DiskQueue>>,
    slots: Box<[Slot]>,
    /// Slots that the file's queue has.
    direct: usize,
    aborting: bool,
    /// Kept as long as anything is in flight.
    keep: Option<K>,
}

impl<I: Image, K> AsyncQueue<I, K> {
    pub(super) fn new(
        image: Arc<I>,
        table: SegmentTable,
        slots: usize,
        file: Option<Box<dyn DiskQueue>>,
        keep: K,
    ) -> Self {
        let idle = || Slot { request: Request::Flush, len: 0, moved: 0, direct: None };
        let slots = (0..slots).map(|_| idle()).collect();
        let running = FuturesUnordered::new();
        let keep = Some(keep);
        Self { image, table, running, file, slots, direct: 0, aborting: false, keep }
    }

    fn run<F>(&mut self, slot: usize, future: F)
    where
        F: Future<Output = io::Result<Outcome>> + 'static,
    {
        self.running.push(Box::pin(async move { (slot, future.await) }));
    }

    fn change(&mut self, slot: usize, request: Request) {
        let change = Arc::clone(&self.image).change(request, Vec::new());
        self.run(slot, async { change.await.map(|()| Outcome::Done) });
    }

    /// Goes on with a read or write; its result when all of it is done.
    fn advance(&mut self, slot: usize) -> Option<Result<(), i32>> {
        let Slot { request, len, moved, .. } = self.slots[slot];
        let (offset, write) = match request {
            Request::Read { offset } => (offset, false),
            Request::Write { offset, .. } => (offset, true),
            _ => return Some(Ok(())),
        };
        if moved < len && self.aborting {
            return Some(Err(libc::ECANCELED));
        }
        if moved < len && self.file.is_some() {
            let plan = Arc::clone(&self.image).plan(offset + moved, len - moved, write);
            self.run(slot, async { Ok(Outcome::Planned(plan.await)) });
        } else if moved < len {
            self.copy(slot);
        } else if let Request::Write { stable: true, .. } = request {
            self.change(slot, Request::Flush);
        } else {
            return Some(Ok(()));
        }
        None
    }

    /// Starts a piece that goes through a copy.
    fn copy(&mut self, slot: usize) {
        let Slot { request, len, moved, .. } = self.slots[slot];
        let image = Arc::clone(&self.image);
        let here = (len - moved).min(COPY_MAX);
        if let Request::Write { offset, .. } = request {
            // The guest may change its memory meanwhile: one copy is what is written.
            let mut data = vec![0; here as usize];
            self.table.slot(slot).read_at(moved, &mut data);
            let piece = Request::Write { offset: offset + moved, stable: false };
            let change = image.change(piece, data);
            self.run(slot, async move { change.await.map(|()| Outcome::Wrote(here)) });
        } else if let Request::Read { offset } = request {
            let read = image.read(offset + moved, here as usize);
            self.run(slot, async { read.await.map(Outcome::Read) });
        }
    }

    /// Hands a piece to the file's queue; false where its segments do not fit there.
    fn submit_direct(&mut self, slot: usize, at: u64, len: u64, keep: Box<dyn Any>) -> bool {
        let Some(file) = &mut self.file else { return false };
        let state = &mut self.slots[slot];
        let len = len.min(state.len - state.moved);
        let mut list = file.segments(slot);
        list.clear();
        if list.extend(&self.table.slot(slot), state.moved, len).is_err() {
            return false;
        }
        state.direct = Some((len, keep));
        self.direct += 1;
        let write = matches!(state.request, Request::Write { .. });
        file.submit(
            slot,
            if write {
                Request::Write { offset: at, stable: false }
            } else {
                Request::Read { offset: at }
            },
        );
        true
    }

    /// Goes on with a slot whose future has ended; its result when that was all.
    fn ended(&mut self, slot: usize, outcome: io::Result<Outcome>) -> Option<Result<(), i32>> {
        match outcome {
            Ok(Outcome::Planned(Plan::Direct { at, len, keep })) if !self.aborting => {
                if !self.submit_direct(slot, at, len, keep) {
                    self.copy(slot);
                }
                return None;
            }
            Ok(Outcome::Planned(_)) if self.aborting => return Some(Err(libc::ECANCELED)),
            Ok(Outcome::Planned(_)) => {
                self.copy(slot);
                return None;
            }
            Ok(Outcome::Read(data)) => {
                let moved = self.slots[slot].moved;
                self.table.slot(slot).write_at(moved, &data);
                self.slots[slot].moved += data.len() as u64;
            }
            Ok(Outcome::Wrote(bytes)) => self.slots[slot].moved += bytes,
            Ok(Outcome::Done) => return Some(Ok(())),
            Err(error) => return Some(Err(error.raw_os_error().unwrap_or(libc::EIO))),
        }
        self.advance(slot)
    }

    /// Goes on with a slot whose piece the file's queue has done.
    fn ended_direct(&mut self, Done { slot, result }: Done) -> Option<Result<(), i32>> {
        self.direct -= 1;
        let (len, keep) = self.slots[slot].direct.take()?;
        drop(keep);
        if result.is_err() {
            return Some(result);
        }
        self.slots[slot].moved += len;
        self.advance(slot)
    }
}

impl<I: Image, K> DiskQueue for AsyncQueue<I, K> {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.table.slot(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        let transfer = matches!(request, Request::Read { .. } | Request::Write { .. });
        let len = if transfer { self.table.slot(slot).bytes() } else { 0 };
        self.slots[slot] = Slot { request, len, moved: 0, direct: None };
        if len == 0 {
            return self.change(slot, request);
        }
        if let Some(result) = self.advance(slot) {
            let result = result.map(|()| Outcome::Done).map_err(io::Error::from_raw_os_error);
            self.run(slot, std::future::ready(result));
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        loop {
            if let Poll::Ready(Some((slot, outcome))) = self.running.poll_next_unpin(cx) {
                if let Some(result) = self.ended(slot, outcome) {
                    return Poll::Ready(Done { slot, result });
                }
                continue;
            }
            let Some(file) = self.file.as_mut().filter(|_| self.direct > 0) else {
                return Poll::Pending;
            };
            let Poll::Ready(done) = file.poll_done(cx) else { return Poll::Pending };
            let slot = done.slot;
            if let Some(result) = self.ended_direct(done) {
                return Poll::Ready(Done { slot, result });
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.running.len() + self.direct
    }

    /// A change of the format's tables ends by itself: they are not left half changed.
    fn abort(&mut self) {
        self.aborting = true;
        if let Some(file) = &mut self.file {
            file.abort();
        }
    }
}

impl<I, K> Drop for AsyncQueue<I, K> {
    /// As [`abort`](DiskQueue::abort); the image stays open for it, and what a piece keeps is kept until
    /// the kernel has let go.
    fn drop(&mut self) {
        let mut running = std::mem::take(&mut self.running);
        let file = self.file.take().filter(|_| self.direct > 0);
        if running.is_empty() && file.is_none() {
            return;
        }
        let (slots, keep) = (std::mem::take(&mut self.slots), self.keep.take());
        let rest = reactor::spawn_local("image", async move {
            if let Some(mut file) = file {
                file.abort();
                while file.in_flight() > 0 {
                    poll_fn(|cx| file.poll_done(cx)).await;
                }
            }
            drop(slots);
            while running.next().await.is_some() {}
            drop(keep);
        });
        // It goes on by itself.
        drop(rest);
    }
}
