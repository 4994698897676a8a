//! `null-co`: storage that forgets, for measuring and testing.

use super::Driver;
use crate::block::graph::options::Options;
use crate::block::{
    BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, Done, Request, SegmentTable, Segments,
};
use crate::error::CommandError;
use reactor::Sleep;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use vm_memory::GuestMemoryMmap;

struct Null {
    size: u64,
    latency: Duration,
    read_zeroes: bool,
    read_only: bool,
    filename: String,
}

pub(super) fn open(
    options: &Options,
    size: u64,
    latency_ns: u64,
    read_zeroes: bool,
) -> Arc<dyn Driver> {
    Arc::new(Null {
        size,
        latency: Duration::from_nanos(latency_ns),
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
        let (latency, read_zeroes) = (self.latency, self.read_zeroes);
        Ok(Box::new(NullQueue::new(table, latency, read_zeroes, Ok(()))))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(std::future::ready(Ok(())))
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
    latency: Duration,
    read_zeroes: bool,
    result: Result<(), i32>,
    /// In the order of their times.
    answers: VecDeque<(Option<Instant>, usize)>,
    timer: Option<Sleep>,
    aborting: bool,
}

impl NullQueue {
    pub(in crate::block::graph) fn new(
        table: SegmentTable,
        latency: Duration,
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
        let due = (!self.latency.is_zero()).then(|| Instant::now() + self.latency);
        self.answers.push_back((due, slot));
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let Some(&(due, slot)) = self.answers.front() else { return Poll::Pending };
        if let (Some(due), false) = (due, self.aborting) {
            let timer = self.timer.get_or_insert_with(|| reactor::sleep_until(due));
            if Pin::new(timer).poll(cx).is_pending() {
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
