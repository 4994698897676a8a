//! `null-co`: storage that forgets, for measuring and testing.

use super::{Driver, at_once};
use crate::block::graph::options::Options;
use crate::block::{
    BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, Done, Request, SegmentTable, Segments,
};
use crate::clock::{Clock, ClockSleep};
use crate::error::CommandError;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use vm_memory::GuestMemoryMmap;

struct Null {
    size: u64,
    latency_ns: u64,
    clock: Arc<dyn Clock>,
    read_zeroes: bool,
    read_only: bool,
    filename: String,
}

pub(super) fn open(
    options: &Options,
    size: u64,
    latency_ns: u64,
    read_zeroes: bool,
    clock: &Arc<dyn Clock>,
) -> Arc<dyn Driver> {
    Arc::new(Null {
        size,
        latency_ns,
        clock: Arc::clone(clock),
        read_zeroes,
        read_only: options.read_only.unwrap_or(false),
        filename: format!("json:{{\"driver\": \"null-co\", \"size\": {size}}}"),
    })
}

impl Disk for Null {
    fn name(&self) -> &str {
        &self.filename
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn info(&self) -> DiskInfo {
        DiskInfo {
            read_only: self.read_only,
            writeback: true,
            physical_block: 512,
            discard_granularity: None,
        }
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        let table = SegmentTable::new(Arc::clone(ram), slots, segments);
        let clock = Some(Arc::clone(&self.clock)).filter(|_| self.latency_ns > 0);
        let latency = clock.map(|clock| (clock, self.latency_ns));
        Ok(Box::new(NullQueue::new(table, latency, self.read_zeroes, Ok(()))))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        at_once()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        at_once()
    }
}

impl Driver for Null {
    fn filename(&self) -> String {
        self.filename.clone()
    }

    fn allocated(&self) -> Option<u64> {
        Some(0)
    }

    fn resize(&self, _: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        let error = CommandError::generic("Image format driver does not support resize");
        Box::pin(std::future::ready(Err(error)))
    }
}

/// Answers every request alike, after a while.
pub(in crate::block::graph) struct NullQueue {
    table: SegmentTable,
    /// What each request takes by a clock, in nanoseconds.
    latency: Option<(Arc<dyn Clock>, u64)>,
    read_zeroes: bool,
    result: Result<(), i32>,
    /// In the order of their times.
    answers: VecDeque<(u64, usize)>,
    timer: Option<ClockSleep>,
    aborting: bool,
}

impl NullQueue {
    pub(in crate::block::graph) fn new(
        table: SegmentTable,
        latency: Option<(Arc<dyn Clock>, u64)>,
        read_zeroes: bool,
        result: Result<(), i32>,
    ) -> Self {
        let (answers, timer) = (VecDeque::new(), None);
        Self { table, latency, read_zeroes, result, answers, timer, aborting: false }
    }
}

impl DiskQueue for NullQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.table.slot(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        if self.read_zeroes && matches!(request, Request::Read { .. }) {
            self.table.slot(slot).zero();
        }
        let latency = self.latency.as_ref();
        let due = latency.map_or(0, |(clock, ns)| clock.monotonic_ns().saturating_add(*ns));
        self.answers.push_back((due, slot));
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let Some(&(due, slot)) = self.answers.front() else { return Poll::Pending };
        if let (Some((clock, _)), false) = (&self.latency, self.aborting) {
            let timer = self.timer.get_or_insert_with(|| clock.sleep_until(due));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
        self.answers.pop_front();
        let result = if self.aborting { Err(libc::ECANCELED) } else { self.result };
        Poll::Ready(Done { slot, result })
    }

    fn in_flight(&self) -> usize {
        self.answers.len()
    }

    fn abort(&mut self) {
        self.aborting = true;
    }
}
