//! `blkdebug`: another node, with errors, delays and torn requests where rules say so: for tests.
//!
//! A rule waits for its event, and from then on holds for requests of its kind. As in QEMU, an event
//! that has rules puts them in the place of those that held before.

use super::{Driver, at_once};
use crate::block::graph::node::Node;
use crate::block::graph::options::Members;
use crate::block::{
    BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, Done, Request, SECTOR, SegmentTable, Segments,
};
use crate::clock::{Clock, ClockSleep};
use crate::error::CommandError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use vm_memory::GuestMemoryMmap;

/// What lets rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node was made.
    None,
    /// A read.
    ReadAio,
    /// A write.
    WriteAio,
    /// A write of zeroes.
    PwritevZero,
    /// A flush, the first half of it.
    FlushToOs,
    /// A flush, the second half.
    FlushToDisk,
}

impl Event {
    const ALL: [Self; 6] = [
        Self::None,
        Self::ReadAio,
        Self::WriteAio,
        Self::PwritevZero,
        Self::FlushToOs,
        Self::FlushToDisk,
    ];
    /// Their names, likewise.
    pub const WORDS: [&str; 6] =
        ["none", "read_aio", "write_aio", "pwritev_zero", "flush_to_os", "flush_to_disk"];
}

/// Kinds of requests that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoType {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Writes of zeroes.
    WriteZeroes,
    /// Discards.
    Discard,
    /// Flushes.
    Flush,
}

impl IoType {
    const ALL: [Self; 5] = [Self::Read, Self::Write, Self::WriteZeroes, Self::Discard, Self::Flush];
    /// Their names, likewise.
    pub const WORDS: [&str; 5] = ["read", "write", "write-zeroes", "discard", "flush"];
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectError {
    /// From when on it holds.
    pub event: Event,
    /// For which requests; `None`: for all.
    pub iotype: Option<IoType>,
    /// What they fail with; 0: they do not fail.
    pub errno: i32,
    /// For requests that touch this sector only.
    pub sector: Option<u64>,
    /// It holds for one request.
    pub once: bool,
    /// Nanoseconds by the machine's clock that they take longer.
    pub delay_ns: u64,
    /// Bytes of a read or write that are moved before it fails.
    pub torn_bytes: Option<u64>,
}

impl InjectError {
    /// The member `inject-error`.
    pub(in crate::block::graph) fn take_all(
        members: &mut Members,
    ) -> Result<Vec<Self>, CommandError> {
        members.objects("inject-error")?.into_iter().map(Self::take).collect()
    }

    fn take(mut members: Members) -> Result<Self, CommandError> {
        let event = members.word("event", &Event::WORDS)?;
        let event = event.ok_or_else(|| members.missing("event"))?;
        let iotype = members.word("iotype", &IoType::WORDS)?;
        let errno = members.number("errno")?.unwrap_or(libc::EIO as u64);
        let errno = i32::try_from(errno).ok().filter(|errno| *errno < 4096);
        let rule = Self {
            event: Event::ALL[event],
            iotype: iotype.map(|n| IoType::ALL[n]),
            errno: errno.ok_or_else(|| {
                CommandError::generic("Parameter 'errno' expects a number from 0 to 4095")
            })?,
            sector: members.number("sector")?,
            once: members.bool("once")?.unwrap_or(false),
            delay_ns: members.number("x-delay-ns")?.unwrap_or(0),
            torn_bytes: members.number("x-bytes")?,
        };
        // A completion never runs its handler here.
        members.bool("immediately")?;
        members.finish()?;
        Ok(rule)
    }

    fn meets(&self, request: &Request, bytes: u64) -> bool {
        let (iotype, offset, len) = match *request {
            Request::Read { offset } => (IoType::Read, offset, bytes),
            Request::Write { offset, .. } => (IoType::Write, offset, bytes),
            Request::WriteZeroes { offset, len, .. } => (IoType::WriteZeroes, offset, len),
            Request::Discard { offset, len } => (IoType::Discard, offset, len),
            Request::Flush => (IoType::Flush, 0, 0),
        };
        let touched = |sector: u64| {
            sector.checked_mul(SECTOR).is_some_and(|at| at >= offset && at - offset < len)
        };
        self.iotype.is_none_or(|wanted| wanted == iotype) && self.sector.is_none_or(touched)
    }
}

/// The rules of a node, shared by its queues.
struct Rules {
    all: Vec<InjectError>,
    /// Those that hold.
    armed: Box<[AtomicBool]>,
    clock: Arc<dyn Clock>,
}

impl Rules {
    fn happened(&self, event: Event) {
        if !self.all.iter().any(|rule| rule.event == event) {
            return;
        }
        for (rule, armed) in self.all.iter().zip(&self.armed) {
            armed.store(rule.event == event, Ordering::Relaxed);
        }
    }

    /// The rule that holds for a request, which this is the only one to meet if it holds once.
    fn holding(&self, request: &Request, bytes: u64) -> Option<&InjectError> {
        let events: &[Event] = match request {
            Request::Read { .. } => &[Event::ReadAio],
            Request::Write { .. } => &[Event::WriteAio],
            Request::WriteZeroes { .. } => &[Event::PwritevZero],
            Request::Flush => &[Event::FlushToOs, Event::FlushToDisk],
            Request::Discard { .. } => &[],
        };
        for event in events {
            self.happened(*event);
        }
        let holds = |(rule, armed): &(&InjectError, &AtomicBool)| {
            rule.meets(request, bytes)
                && if rule.once {
                    armed.swap(false, Ordering::Relaxed)
                } else {
                    armed.load(Ordering::Relaxed)
                }
        };
        self.all.iter().zip(&self.armed).find(holds).map(|(rule, _)| rule)
    }
}

struct Blkdebug {
    image: Arc<Node>,
    rules: Arc<Rules>,
}

pub(super) fn open(
    image: Arc<Node>,
    rules: &[InjectError],
    clock: &Arc<dyn Clock>,
) -> Arc<dyn Driver> {
    let armed = rules.iter().map(|_| AtomicBool::new(false)).collect();
    let rules = Rules { all: rules.to_vec(), armed, clock: Arc::clone(clock) };
    rules.happened(Event::None);
    Arc::new(Blkdebug { image, rules: Arc::new(rules) })
}

impl Disk for Blkdebug {
    fn name(&self) -> &str {
        self.image.name()
    }

    fn size(&self) -> u64 {
        self.image.size()
    }

    fn info(&self) -> DiskInfo {
        self.image.info()
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        Ok(Box::new(BlkdebugQueue {
            inner: self.image.queue(ram, slots, segments)?,
            rules: Arc::clone(&self.rules),
            whole: SegmentTable::new(Arc::clone(ram), slots, segments),
            results: vec![None; slots].into(),
            late: Vec::new(),
            aborting: false,
        }))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.image.flush()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        // The child closes by itself.
        at_once()
    }
}

impl Driver for Blkdebug {
    fn filename(&self) -> String {
        format!("blkdebug::{}", self.image.filename())
    }

    fn allocated(&self) -> Option<u64> {
        self.image.allocated()
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        self.image.resize(size)
    }
}

/// A request whose time has not come.
struct Late {
    slot: usize,
    request: Request,
    sleep: Option<ClockSleep>,
}

struct BlkdebugQueue {
    inner: Box<dyn DiskQueue>,
    rules: Arc<Rules>,
    /// The lists of torn requests as they were.
    whole: SegmentTable,
    /// By slot: what a torn request ends with.
    results: Box<[Option<i32>]>,
    late: Vec<(Late, Option<Fault>)>,
    aborting: bool,
}

/// What a request meets.
#[derive(Clone, Copy)]
struct Fault {
    errno: i32,
    torn_bytes: Option<u64>,
}

impl BlkdebugQueue {
    /// Starts a request whose time has come; the result of one that ends here.
    fn go(&mut self, slot: usize, request: Request, fault: Option<Fault>) -> Option<Done> {
        let Some(Fault { errno, torn_bytes }) = fault else {
            self.inner.submit(slot, request);
            return None;
        };
        let moves = matches!(request, Request::Read { .. } | Request::Write { .. });
        match torn_bytes {
            Some(bytes) if moves && bytes > 0 => {
                let mut list = self.inner.segments(slot);
                self.whole.slot(slot).adopt(&list);
                list.truncate(bytes);
                self.results[slot] = Some(errno);
                self.inner.submit(slot, request);
                None
            }
            _ => Some(Done { slot, result: Err(errno) }),
        }
    }
}

impl DiskQueue for BlkdebugQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.inner.segments(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        let bytes = self.inner.segments(slot).bytes();
        let rules = Arc::clone(&self.rules);
        let Some(rule) = rules.holding(&request, bytes) else {
            return self.inner.submit(slot, request);
        };
        let fault = Fault { errno: rule.errno, torn_bytes: rule.torn_bytes };
        let fault = Some(fault).filter(|fault| fault.errno != 0);
        let clock = &rules.clock;
        let wait = || clock.sleep_until(clock.monotonic_ns().saturating_add(rule.delay_ns));
        let sleep = (rule.delay_ns > 0).then(wait);
        self.late.push((Late { slot, request, sleep }, fault));
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let mut n = 0;
        while let Some((late, _)) = self.late.get_mut(n) {
            if !self.aborting
                && let Some(sleep) = &mut late.sleep
                && sleep.as_mut().poll(cx).is_pending()
            {
                n += 1;
                continue;
            }
            let (Late { slot, request, .. }, fault) = self.late.remove(n);
            if self.aborting {
                return Poll::Ready(Done { slot, result: Err(libc::ECANCELED) });
            }
            if let Some(done) = self.go(slot, request, fault) {
                return Poll::Ready(done);
            }
        }
        let Poll::Ready(done) = self.inner.poll_done(cx) else { return Poll::Pending };
        let Some(errno) = self.results[done.slot].take() else { return Poll::Ready(done) };
        let whole = self.whole.slot(done.slot);
        self.inner.segments(done.slot).adopt(&whole);
        Poll::Ready(Done { slot: done.slot, result: done.result.and(Err(errno)) })
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.late.len()
    }

    fn abort(&mut self) {
        self.aborting = true;
        self.inner.abort();
    }
}
