//! A disk whose requests end when the test says so.

use crate::block::{
    BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, Done, Request, SegmentTable, Segments,
};
use crate::virtio::Ram;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// What all queues of the disk share with the test.
#[derive(Default)]
pub(crate) struct Held {
    state: Mutex<State>,
    size: AtomicU64,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    /// By queue and slot.
    waiting: Vec<(usize, usize)>,
    ended: Vec<(usize, Done)>,
    wakers: Vec<Waker>,
    queues: usize,
    open: usize,
    aborts: usize,
    /// Where each queue was opened.
    contexts: Vec<String>,
}

impl Held {
    /// Requests that have arrived so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.state.lock().unwrap().waiting.len()
    }

    /// Data handles that exist.
    pub(crate) fn open_queues(&self) -> usize {
        self.state.lock().unwrap().open
    }

    /// The contexts on which data handles were opened, in order.
    pub(crate) fn contexts(&self) -> Vec<String> {
        self.state.lock().unwrap().contexts.clone()
    }

    /// Data handles that were told to abort.
    pub(crate) fn aborts(&self) -> usize {
        self.state.lock().unwrap().aborts
    }

    pub(crate) fn aborted(&self) -> bool {
        self.aborts() > 0
    }

    /// Ends everything in flight.
    pub(crate) fn end_all(&self, result: Result<(), i32>) {
        let mut state = self.state.lock().unwrap();
        let waiting = std::mem::take(&mut state.waiting);
        let ended = waiting.into_iter().map(|(queue, slot)| (queue, Done { slot, result }));
        state.ended.extend(ended);
        state.wakers.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn set_size(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
    }
}

/// The disk.
struct HoldDisk(Arc<Held>);

/// A disk of `bytes` bytes and the hand on it.
pub(crate) fn hold_disk(bytes: u64) -> (Arc<Held>, Arc<dyn Disk>) {
    let held = Arc::new(Held::default());
    held.set_size(bytes);
    (Arc::clone(&held), Arc::new(HoldDisk(held)))
}

impl Disk for HoldDisk {
    fn name(&self) -> &'static str {
        "held disk"
    }

    fn size(&self) -> u64 {
        self.0.size.load(Ordering::Relaxed)
    }

    fn info(&self) -> DiskInfo {
        DiskInfo {
            read_only: false,
            writeback: true,
            physical_block: 512,
            discard_granularity: None,
        }
    }

    fn queue(
        &self,
        ram: &Arc<Ram>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        let table = SegmentTable::new(Arc::clone(ram), slots, segments);
        let mut state = self.0.state.lock().unwrap();
        state.queues += 1;
        state.open += 1;
        state.contexts.push(reactor::current().name().to_owned());
        let queue = state.queues;
        Ok(Box::new(HoldQueue { held: Arc::clone(&self.0), queue, table, in_flight: 0 }))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }
}

struct HoldQueue {
    held: Arc<Held>,
    queue: usize,
    table: SegmentTable,
    in_flight: usize,
}

impl DiskQueue for HoldQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.table.slot(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        self.in_flight += 1;
        let mut state = self.held.state.lock().unwrap();
        state.requests.push(request);
        state.waiting.push((self.queue, slot));
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let mut state = self.held.state.lock().unwrap();
        if let Some(at) = state.ended.iter().position(|(queue, _)| *queue == self.queue) {
            self.in_flight -= 1;
            Poll::Ready(state.ended.remove(at).1)
        } else {
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn abort(&mut self) {
        self.held.state.lock().unwrap().aborts += 1;
    }
}

impl Drop for HoldQueue {
    fn drop(&mut self) {
        self.held.state.lock().unwrap().open -= 1;
    }
}
