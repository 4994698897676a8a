//! Disks: what a storage device reads from and writes to.
//!
//! A [`Disk`] is the control handle: opening, size, flush and close, used from `main`. It hands
//! out [`DiskQueue`]s, the data handles: one for each device queue, living on that queue's core
//! and never shared, so that a request meets no lock. A block graph puts its nodes behind the same
//! two traits.

mod bounce;
mod error;
mod file;
pub mod format;
pub mod graph;
mod lock;
mod open;
mod options;
mod raw;
mod scratch;
mod segments;
#[cfg(test)]
mod tests;
mod written;
mod zero;

pub use error::{DiskError, OpenError};
pub use open::open_file;
pub use options::{Cache, Discard, FileOptions, UnknownValue};
pub use scratch::scratch;
pub use segments::{SegmentError, SegmentTable, Segments};

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use vm_memory::GuestMemoryMmap;

/// Bytes of a sector, the unit of disk sizes.
pub const SECTOR: u64 = 512;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a device tells its guest about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// The guest may not write.
    pub read_only: bool,
    /// Writes may sit in a volatile cache until a flush.
    pub writeback: bool,
    /// Bytes that the storage writes at once without reading around them: a power of two, 512
    /// to 4096.
    pub physical_block: u32,
    /// Granularity in bytes of discards that free space; `None` where they are ignored.
    pub discard_granularity: Option<u32>,
}

/// A disk's control handle.
pub trait Disk: Send + Sync {
    /// What messages call it.
    fn name(&self) -> &str;
    /// Its size in bytes, a multiple of [`SECTOR`]. Any thread; may change.
    fn size(&self) -> u64;
    /// What else there is to know.
    fn info(&self) -> DiskInfo;
    /// A data handle with `slots` request slots of up to `segments` segments in `ram`, for the
    /// calling context. Fails once the disk is closed.
    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>>;
    /// Makes all completed writes stable, whatever `cache=` says. On a reactor.
    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>>;
    /// Flushes (unless `cache=unsafe`), unlocks and closes. Queues must be gone by then. On a
    /// reactor; a second call does nothing.
    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>>;
}

/// What a request asks for; data is in the slot's segments, offsets and lengths are bytes and
/// multiples of [`SECTOR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fills the segments from `offset`.
    Read {
        /// First byte.
        offset: u64,
    },
    /// Writes the segments to `offset`.
    Write {
        /// First byte.
        offset: u64,
        /// Stable before it completes.
        stable: bool,
    },
    /// Makes writes that have completed stable.
    Flush,
    /// The bytes are not needed any more.
    Discard {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// The bytes read as zero from now on.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Their space may be freed.
        unmap: bool,
        /// Stable before it completes.
        stable: bool,
    },
}

/// A finished request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its slot, free again.
    pub slot: usize,
    /// Success, or the errno.
    pub result: Result<(), i32>,
}

/// A disk's data handle for one device queue, on one context.
///
/// A request occupies a slot, numbered from 0, from [`DiskQueue::submit`] until it is
/// reported. Dropping the handle cancels what is in flight; memory that the kernel may still
/// touch stays until it has let go.
pub trait DiskQueue {
    /// The scatter list of an idle slot, to be filled before a read or write is submitted.
    fn segments(&mut self, slot: usize) -> Segments<'_>;
    /// Starts `request` in an idle slot. Short transfers, EINTR and EAGAIN are taken care of.
    fn submit(&mut self, slot: usize, request: Request);
    /// The next finished request. `Pending` registers the task to be woken.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done>;
    /// How many requests are in flight.
    fn in_flight(&self) -> usize;
    /// Whether [`DiskQueue::poll_done`] has something to do: who has many handles may leave the
    /// others alone.
    fn needs_poll(&self) -> bool {
        self.in_flight() > 0
    }
    /// Asks that everything in flight end as soon as it can; each request is still reported.
    fn abort(&mut self);
}
