//! A device queue's data handle: requests pass through to the root's, are counted, and are held
//! off while the graph drains, or after an error until the machine goes on.

use super::backend::Backend;
use super::drivers::null::NullQueue;
use super::errors::ErrorAction;
use super::limiter::Limiter;
use super::options::DetectZeroes;
use super::stats::{Account, Kind, QueueStats};
use crate::block::{DiskQueue, Done, Request, SegmentTable, Segments};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use vm_memory::GuestMemoryMmap;

/// How a queue was made, to make it again.
struct Shape {
    ram: Arc<GuestMemoryMmap<()>>,
    slots: usize,
    segments: usize,
}

/// A request that has been let in.
#[derive(Clone, Copy)]
struct Started {
    account: Account,
    at: Instant,
    request: Request,
}

pub(super) struct BackendQueue {
    backend: Arc<Backend>,
    shape: Shape,
    /// Of the root, when `inner` was made.
    detect_zeroes: DetectZeroes,
    /// The root's data handle.
    inner: Box<dyn DiskQueue>,
    /// Of the graph, when `inner` was made.
    generation: u64,
    /// Where its requests are counted in the quiescer.
    place: usize,
    /// Requests whose time has not come. A drain does not wait for them.
    limiter: Limiter,
    /// Of the back end, when the limits of `limiter` were set.
    throttle_version: u64,
    /// Requests held off, in their order.
    held: VecDeque<(usize, Request)>,
    /// Requests that have stopped the machine, in the order in which they failed.
    stopped: Vec<(usize, Request)>,
    /// Of the back end, when `stopped` was last started again.
    retries: u64,
    /// Slots of requests that were held off or stopped, and given up.
    given_up: Vec<usize>,
    aborting: bool,
    /// By slot.
    started: Box<[Started]>,
    stats: Arc<QueueStats>,
    /// Told of changes of the graph.
    watching: Option<Waker>,
}

impl BackendQueue {
    pub(super) fn new(
        backend: Arc<Backend>,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
        stats: Arc<QueueStats>,
    ) -> io::Result<Self> {
        let shape = Shape { ram: Arc::clone(ram), slots, segments };
        let generation = backend.generation();
        let inner = open(&backend, &shape)?;
        let detect_zeroes = backend.detect_zeroes();
        let account = Account { kind: Kind::Flush, bytes: 0, end: 0 };
        let nothing = Started { account, at: Instant::now(), request: Request::Flush };
        Ok(Self {
            place: backend.quiesce.place(),
            retries: backend.errors.retries(),
            backend,
            shape,
            detect_zeroes,
            inner,
            generation,
            limiter: Limiter::default(),
            throttle_version: 0,
            held: VecDeque::new(),
            stopped: Vec::new(),
            given_up: Vec::new(),
            aborting: false,
            started: vec![nothing; slots].into(),
            stats,
            watching: None,
        })
    }

    /// Starts a request that has been let in.
    fn start(&mut self, slot: usize, request: Request) {
        self.refresh(Some(slot));
        let account = self.account(slot, &request);
        let request = self.without_zeroes(slot, request);
        self.started[slot] = Started { account, at: Instant::now(), request };
        self.stats.begin();
        self.inner.submit(slot, request);
    }

    /// A write of zeroes needs no data, where `detect-zeroes` says so.
    fn without_zeroes(&mut self, slot: usize, request: Request) -> Request {
        match request {
            Request::Write { offset, stable } if self.detect_zeroes != DetectZeroes::Off => {
                let segments = self.inner.segments(slot);
                if segments.bytes() == 0 || !segments.are_zero() {
                    return request;
                }
                let unmap = self.detect_zeroes == DetectZeroes::Unmap;
                Request::WriteZeroes { offset, len: segments.bytes(), unmap, stable }
            }
            other => other,
        }
    }

    fn account(&mut self, slot: usize, request: &Request) -> Account {
        let kind = Kind::of(request);
        let (bytes, end) = match *request {
            Request::Read { .. } => (self.inner.segments(slot).bytes(), 0),
            Request::Write { offset, .. } => {
                let bytes = self.inner.segments(slot).bytes();
                (bytes, offset + bytes)
            }
            Request::WriteZeroes { offset, len, .. } => (len, offset + len),
            Request::Discard { len, .. } => (len, 0),
            Request::Flush => (0, 0),
        };
        Account { kind, bytes, end }
    }

    /// Goes over to the present root, if it is another than when the handle was made. Nothing is in
    /// flight then. The lists of requests that wait, and of `slot`, are taken along.
    fn refresh(&mut self, slot: Option<usize>) {
        let generation = self.backend.generation();
        if generation == self.generation || self.inner.in_flight() > 0 {
            return;
        }
        let failed = |_| failing(&self.shape, libc::EIO);
        let mut fresh = open(&self.backend, &self.shape).unwrap_or_else(failed);
        let waiting = self.held.iter().chain(&self.stopped).map(|(slot, _)| *slot);
        for slot in waiting.chain(self.limiter.slots()).chain(slot) {
            // Both are in the same memory and of the same size.
            fresh.segments(slot).adopt(&self.inner.segments(slot));
        }
        self.inner = fresh;
        self.detect_zeroes = self.backend.detect_zeroes();
        self.generation = generation;
        // Woken for this, it is to be woken again.
        self.watching = None;
    }

    /// Starts what was held off, as far as requests are let in again.
    fn release(&mut self, waker: &Waker) {
        self.backend.quiesce.wake_when_open(waker);
        while !self.held.is_empty() && self.backend.quiesce.enter(self.place) {
            if let Some((slot, request)) = self.held.pop_front() {
                self.start(slot, request);
            }
        }
    }

    fn ended(&mut self, done: &Done) {
        let Started { account, at, .. } = &self.started[done.slot];
        self.stats.end(account, done.result.is_ok(), at.elapsed());
        self.backend.quiesce.leave(self.place);
    }

    /// What becomes of a request that the root has finished; `None`: it is kept.
    fn judged(&mut self, done: Done) -> Option<Done> {
        let Done { slot, result } = done;
        let done = match result {
            Err(errno) if !self.aborting => {
                let read = matches!(self.started[slot].request, Request::Read { .. });
                match self.backend.failed(read, errno) {
                    ErrorAction::Report => done,
                    ErrorAction::Ignore => Done { slot, result: Ok(()) },
                    ErrorAction::Stop => {
                        self.put_off(slot);
                        return None;
                    }
                }
            }
            _ => done,
        };
        self.ended(&done);
        Some(done)
    }

    /// Keeps a request until the machine goes on.
    fn put_off(&mut self, slot: usize) {
        let Started { account, request, .. } = self.started[slot];
        if matches!(request, Request::Read { .. } | Request::Write { .. }) {
            // All of it again: what was written may be lost when a flush has failed.
            let mut segments = self.inner.segments(slot);
            let moved = account.bytes - segments.bytes();
            segments.rewind(moved);
        }
        self.stats.put_off();
        self.backend.quiesce.leave(self.place);
        self.stopped.push((slot, request));
    }

    /// Starts what has stopped the machine again, if it goes on.
    fn update_retries(&mut self) {
        let retries = self.backend.errors.retries();
        if retries == self.retries {
            return;
        }
        self.retries = retries;
        // Woken for this, it is to be woken again.
        self.watching = None;
        for (slot, request) in std::mem::take(&mut self.stopped) {
            self.admit(slot, request);
        }
    }

    /// Asks to be polled when the graph changes, so that an idle queue lets go of its image.
    fn watch(&mut self, waker: &Waker) {
        let known = self.watching.as_ref().is_some_and(|known| known.will_wake(waker));
        if !known {
            self.backend.watch(waker);
            self.watching = Some(waker.clone());
        }
    }
}

/// A data handle whose requests all fail.
fn failing(shape: &Shape, errno: i32) -> Box<dyn DiskQueue> {
    let table = SegmentTable::new(Arc::clone(&shape.ram), shape.slots, shape.segments);
    Box::new(NullQueue::new(table, None, false, Err(errno)))
}

/// The data handle of the root.
fn open(backend: &Backend, shape: &Shape) -> io::Result<Box<dyn DiskQueue>> {
    let Some(root) = backend.root() else { return Ok(failing(shape, libc::ENOMEDIUM)) };
    root.queue(&shape.ram, shape.slots, shape.segments)
}

impl DiskQueue for BackendQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.inner.segments(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        self.update_limits();
        let bytes = self.inner.segments(slot).bytes();
        if !self.limiter.takes(slot, request, bytes) {
            self.admit(slot, request);
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        loop {
            self.update_limits();
            while let Poll::Ready((slot, request)) = self.limiter.poll_next(false, cx) {
                self.admit(slot, request);
            }
            if let Poll::Ready(done) = self.poll_admitted(cx) {
                return Poll::Ready(done);
            }
            self.refresh(None);
            self.watch(cx.waker());
            // What changes from now on wakes; what has changed since it was looked at does not.
            if !self.is_behind() {
                return Poll::Pending;
            }
        }
    }

    fn in_flight(&self) -> usize {
        let kept = self.held.len() + self.stopped.len() + self.given_up.len() + self.limiter.len();
        self.inner.in_flight() + kept
    }

    /// An idle one too, when what is below it or its limits have changed.
    fn needs_poll(&self) -> bool {
        self.in_flight() > 0 || self.watching.is_none() || self.is_behind()
    }

    fn abort(&mut self) {
        self.aborting = true;
        let kept = self.held.drain(..).chain(self.stopped.drain(..));
        self.given_up.extend(kept.map(|(slot, _)| slot));
        self.given_up.extend(self.limiter.give_up());
        self.inner.abort();
    }
}

impl BackendQueue {
    /// Whether something has changed that can be gone over to at once.
    fn is_behind(&self) -> bool {
        let other_root = self.backend.generation() != self.generation;
        other_root && self.inner.in_flight() == 0
            || self.backend.throttle_version() != self.throttle_version
            || self.backend.errors.retries() != self.retries
    }

    /// Goes over to the present limits, if they are others.
    fn update_limits(&mut self) {
        let version = self.backend.throttle_version();
        if version != self.throttle_version {
            self.throttle_version = version;
            self.limiter.set_group(self.backend.throttle());
            // Woken for this, it is to be woken again.
            self.watching = None;
        }
    }

    /// Starts a request, unless requests are held off.
    fn admit(&mut self, slot: usize, request: Request) {
        if self.held.is_empty() && self.backend.quiesce.enter(self.place) {
            self.start(slot, request);
        } else {
            self.held.push_back((slot, request));
        }
    }

    fn poll_admitted(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if let Some(slot) = self.given_up.pop() {
            return Poll::Ready(Done { slot, result: Err(libc::ECANCELED) });
        }
        self.update_retries();
        if !self.held.is_empty() {
            self.release(cx.waker());
        }
        while let Poll::Ready(done) = self.inner.poll_done(cx) {
            if let Some(done) = self.judged(done) {
                return Poll::Ready(done);
            }
        }
        Poll::Pending
    }
}

impl Drop for BackendQueue {
    fn drop(&mut self) {
        for _ in 0..self.inner.in_flight() {
            self.backend.quiesce.leave(self.place);
        }
        self.backend.queue_ended(&self.stats);
    }
}
