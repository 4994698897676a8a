//! `raw`: another node as it is, or a part of it.

use super::bytes::Bytes;
use super::probed::GuardedQueue;
use super::{Driver, at_once};
use crate::block::graph::node::Node;
use crate::block::graph::options::Options;
use crate::block::{
    BoxFuture, Discard, Disk, DiskError, DiskInfo, DiskQueue, Done, Request, SECTOR, Segments,
};
use crate::error::CommandError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use vm_memory::GuestMemoryMmap;

/// A size that follows the child's.
const ALL: u64 = u64::MAX;

struct Raw {
    file: Arc<Node>,
    offset: u64,
    /// [`ALL`] where none was given.
    size: AtomicU64,
    read_only: bool,
    /// Discards end here.
    keep: bool,
    /// Flushes end here.
    no_flush: bool,
    /// Nobody has said that it is raw.
    probed: bool,
}

pub(super) fn open(
    options: &Options,
    file: Arc<Node>,
    offset: u64,
    size: Option<u64>,
    probed: bool,
) -> Result<Arc<dyn Driver>, CommandError> {
    let whole = file.size();
    if size.is_some_and(|size| !size.is_multiple_of(SECTOR)) {
        return Err(CommandError::generic("Specified size is not multiple of 512"));
    }
    if offset > whole {
        return Err(CommandError::generic(format!(
            "Offset ({offset}) cannot be greater than size of the containing file ({whole})"
        )));
    }
    if let Some(size) = size.filter(|size| whole - offset < *size) {
        return Err(CommandError::generic(format!(
            "The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  \
             actual size of the containing file ({whole})"
        )));
    }
    let below = file.options();
    Ok(Arc::new(Raw {
        offset,
        size: AtomicU64::new(size.unwrap_or(ALL)),
        read_only: options.read_only.unwrap_or(false),
        keep: options.discard.unwrap_or_default() == Discard::Ignore,
        no_flush: options.no_flush == Some(true) && below.no_flush != Some(true),
        probed: probed && offset == 0,
        file,
    }))
}

impl Disk for Raw {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn size(&self) -> u64 {
        match self.size.load(Ordering::Relaxed) {
            ALL => self.file.size().saturating_sub(self.offset),
            size => size,
        }
    }

    fn info(&self) -> DiskInfo {
        let info = self.file.info();
        let discard_granularity = info.discard_granularity.filter(|_| !self.keep);
        DiskInfo { read_only: self.read_only || info.read_only, discard_granularity, ..info }
    }

    /// Where nothing is to be changed, that of the child: a request costs no more than there.
    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        let mut inner = self.file.queue(ram, slots, segments)?;
        if let Some(bytes) = self.file.driver().bytes().filter(|_| self.probed) {
            inner = Box::new(GuardedQueue::new(inner, bytes));
        }
        let discards = self.keep && self.file.info().discard_granularity.is_some();
        if self.offset == 0 && !discards && !self.no_flush {
            return Ok(inner);
        }
        let (offset, keep, no_flush) = (self.offset, self.keep, self.no_flush);
        Ok(Box::new(RawQueue { inner, offset, keep, no_flush, answered: Vec::new() }))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.file.flush()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        // The child closes by itself.
        at_once()
    }
}

impl Driver for Raw {
    fn filename(&self) -> String {
        let below = self.file.driver().filename();
        match (self.offset, self.size.load(Ordering::Relaxed)) {
            (0, ALL) => below,
            (offset, ALL) => format!("json:{{\"driver\": \"raw\", \"offset\": {offset}}}"),
            (offset, size) => {
                format!("json:{{\"driver\": \"raw\", \"offset\": {offset}, \"size\": {size}}}")
            }
        }
    }

    fn allocated(&self) -> Option<u64> {
        self.file.driver().allocated()
    }

    /// Where it is all of its child.
    fn bytes(&self) -> Option<Arc<dyn Bytes>> {
        let whole = self.offset == 0 && self.size.load(Ordering::Relaxed) == ALL;
        self.file.driver().bytes().filter(|_| whole)
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        Box::pin(async move {
            if self.size.load(Ordering::Relaxed) != ALL {
                return Err(CommandError::generic("Cannot resize fixed-size raw disks"));
            }
            let whole = size.checked_add(self.offset);
            let whole = whole.ok_or_else(|| {
                CommandError::generic("Disk size too large for the chosen offset")
            })?;
            self.file.driver().resize(whole).await
        })
    }
}

/// Requests of a part of the child.
struct RawQueue {
    inner: Box<dyn DiskQueue>,
    offset: u64,
    keep: bool,
    no_flush: bool,
    /// Slots of requests that end here.
    answered: Vec<usize>,
}

impl DiskQueue for RawQueue {
    fn segments(&mut self, slot: usize) -> Segments<'_> {
        self.inner.segments(slot)
    }

    fn submit(&mut self, slot: usize, request: Request) {
        let request = match request {
            Request::Read { offset } => Request::Read { offset: offset + self.offset },
            Request::Write { offset, stable } => {
                Request::Write { offset: offset + self.offset, stable: stable && !self.no_flush }
            }
            Request::Flush if self.no_flush => return self.answered.push(slot),
            Request::Flush => Request::Flush,
            Request::Discard { .. } if self.keep => return self.answered.push(slot),
            Request::Discard { offset, len } => {
                Request::Discard { offset: offset + self.offset, len }
            }
            Request::WriteZeroes { offset, len, unmap, stable } => Request::WriteZeroes {
                offset: offset + self.offset,
                len,
                unmap: unmap && !self.keep,
                stable: stable && !self.no_flush,
            },
        };
        self.inner.submit(slot, request);
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        match self.answered.pop() {
            Some(slot) => Poll::Ready(Done { slot, result: Ok(()) }),
            None => self.inner.poll_done(cx),
        }
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.answered.len()
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}
