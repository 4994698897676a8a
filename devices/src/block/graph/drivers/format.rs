//! An image in a format of imago's: its disk over the file's node, and requests on any core.
//!
//! imago's futures run in the context that asks, over storage of ours, so that the queues of all cores
//! share an image. Reading and writing go on beside each other; what takes clusters away (discards,
//! shrinking) has the image for itself, because a request may be under way to the place of one.

use super::async_queue::{AsyncQueue, Image, Plan};
use super::bytes::{Bytes, Kept, Local, NodeStorage};
use super::{Driver, at_once};
use crate::block::file::{User, Users};
use crate::block::format::{Qcow2Header, Snapshot};
use crate::block::graph::node::Node;
use crate::block::graph::options::Options;
use crate::block::graph::permissions::{Access, Permissions};
use crate::block::{
    BoxFuture, Discard, Disk, DiskError, DiskInfo, DiskQueue, Request, SegmentTable,
};
use crate::error::CommandError;
use crate::text::system_error;
use imago::format::PreallocateMode;
use imago::{FormatAccess, Mapping, ShallowMapping};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::RwLock;
use vm_memory::GuestMemoryMmap;

/// Where pages of the page cache end: a piece of one may not be written around it.
const PAGE: u64 = 4096;
/// Bytes of zeroes that are written at once, where the format has nothing better.
const ZEROES: u64 = 1 << 20;

/// What a format's image tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// What the header of a qcow2 image says, as it was opened.
    pub header: Option<Qcow2Header>,
    /// The snapshots inside.
    pub snapshots: Vec<Snapshot>,
}

impl Details {
    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> Option<u64> {
        self.header.as_ref().map(Qcow2Header::cluster_size)
    }
}

/// An open image.
pub(super) struct Clusters {
    access: Arc<RwLock<FormatAccess<NodeStorage>>>,
    size: AtomicU64,
    /// The node that holds it.
    file: Arc<Node>,
    /// Discards free clusters.
    discard: bool,
    /// It can say that clusters are zero.
    has_zeroes: bool,
    backed: bool,
    no_flush: bool,
    /// Requests that go past the format have to be whole pages.
    by_pages: bool,
}

pub(super) struct Format {
    clusters: Arc<Clusters>,
    details: Arc<Details>,
    read_only: bool,
    users: Arc<Users>,
}

/// Runs a future of this context for a caller whose future is of any.
pub(in crate::block::graph) fn here<T, M, F>(make: M) -> BoxFuture<'static, io::Result<T>>
where
    T: Send + 'static,
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = io::Result<T>> + 'static,
{
    Box::pin(async move {
        let task = reactor::current().spawn_local_with("image", make);
        task.await.map_err(io::Error::other)?
    })
}

/// Why the image in `file` cannot be opened.
pub(super) fn refused(file: &Node, why: &str) -> CommandError {
    CommandError::generic(format!("Could not open '{}': {why}", file.filename()))
}

impl Format {
    pub(super) fn new(
        options: &Options,
        file: Arc<Node>,
        access: FormatAccess<NodeStorage>,
        details: Details,
        backed: bool,
        read_only: bool,
    ) -> Self {
        let clusters = Clusters {
            size: AtomicU64::new(access.size()),
            access: Arc::new(RwLock::new(access)),
            discard: options.discard.unwrap_or_default() == Discard::Unmap,
            has_zeroes: details.header.as_ref().is_some_and(|header| header.version >= 3),
            backed,
            no_flush: options.no_flush.unwrap_or(false),
            by_pages: file.options().direct == Some(true),
            file,
        };
        Self {
            clusters: Arc::new(clusters),
            details: Arc::new(details),
            read_only,
            users: Arc::default(),
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> DiskError {
        DiskError { disk: format!("image '{}'", self.filename()), what, source }
    }
}

impl Clusters {
    async fn flush(&self) -> io::Result<()> {
        let access = self.access.read().await;
        access.flush().await?;
        if self.no_flush { Ok(()) } else { access.sync().await }
    }

    async fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if self.has_zeroes && unmap && self.discard {
            return self.access.write().await.discard_to_zero(offset, len).await;
        }
        if self.has_zeroes {
            return self.access.read().await.write_zeroes(offset, len).await;
        }
        let end = offset + len;
        let zeroes = vec![0; len.min(ZEROES) as usize];
        let mut at = offset;
        while at < end {
            let n = (end - at).min(ZEROES);
            self.access.read().await.write(&zeroes[..n as usize], at).await?;
            at += n;
        }
        Ok(())
    }

    /// Frees whole clusters. What has another image behind it must not let that show through.
    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.discard {
            return Ok(());
        }
        if self.has_zeroes {
            // Parts of clusters stay as they are: nothing is promised of what a discard leaves.
            return self.access.write().await.discard_to_any(offset, len).await;
        }
        if self.backed {
            return Ok(());
        }
        self.access.write().await.discard_to_backing(offset, len).await
    }

    /// Tells of an error that is the image's fault, which the guest cannot see.
    fn told(&self, error: io::Error) -> io::Error {
        if error.raw_os_error().is_none() {
            tracing::error!(image = self.file.filename(), %error, "a request to an image");
        }
        error
    }
}

impl Image for Clusters {
    fn plan(self: Arc<Self>, offset: u64, len: u64, write: bool) -> Local<'static, Plan> {
        Box::pin(async move {
            let access = Arc::clone(&self.access).read_owned().await;
            let found = access.get_mapping(offset, len).await;
            let Ok((Mapping::Raw { storage, offset: at, writable, .. }, here)) = found else {
                return Plan::Copied;
            };
            let len = here.min(len);
            let whole = !self.by_pages || [offset, at, len].iter().all(|n| n.is_multiple_of(PAGE));
            // A file may end within its last cluster.
            let there = at.checked_add(len).is_some_and(|end| end <= self.file.size());
            // Its file's, and not that of an image behind it.
            if !whole || !there || (write && !writable) || !storage.is_of(self.file.name()) {
                return Plan::Copied;
            }
            Plan::Direct { at, len, keep: Box::new(access) }
        })
    }

    fn read(self: Arc<Self>, offset: u64, len: usize) -> Local<'static, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let mut data = vec![0; len];
            let read = self.access.read().await.read(&mut data, offset).await;
            read.map_err(|error| self.told(error))?;
            Ok(data)
        })
    }

    fn change(self: Arc<Self>, request: Request, data: Vec<u8>) -> Local<'static, io::Result<()>> {
        Box::pin(async move {
            let (result, stable) = match request {
                Request::Read { .. } => return Ok(()),
                Request::Write { offset, stable } => {
                    (self.access.read().await.write(&data, offset).await, stable)
                }
                Request::WriteZeroes { offset, len, unmap, stable } => {
                    (self.write_zeroes(offset, len, unmap).await, stable)
                }
                Request::Discard { offset, len } => (self.discard(offset, len).await, false),
                Request::Flush => (Ok(()), true),
            };
            let result = match result {
                Ok(()) if stable => self.flush().await,
                result => result,
            };
            result.map_err(|error| self.told(error))
        })
    }
}

impl Disk for Format {
    fn name(&self) -> &str {
        self.clusters.file.name()
    }

    fn size(&self) -> u64 {
        self.clusters.size.load(Ordering::Relaxed)
    }

    fn info(&self) -> DiskInfo {
        let cluster = self.details.cluster_size();
        let discards = self.clusters.discard && !self.read_only;
        DiskInfo {
            read_only: self.read_only,
            discard_granularity: cluster.filter(|_| discards).map(|bytes| bytes as u32),
            physical_block: 512,
            writeback: true,
        }
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        let table = SegmentTable::new(Arc::clone(ram), slots, segments);
        let file = self.clusters.file.queue(ram, slots, segments)?;
        let image = Arc::clone(&self.clusters);
        let queue = AsyncQueue::new(image, table, slots, Some(file), User::new(&self.users));
        Ok(Box::new(queue))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        if self.read_only {
            return at_once();
        }
        let clusters = Arc::clone(&self.clusters);
        let flushed = here(move || async move { clusters.flush().await });
        Box::pin(async move { flushed.await.map_err(|source| self.failed("flush", source)) })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.flush()
    }
}

impl Driver for Format {
    fn filename(&self) -> String {
        self.clusters.file.filename()
    }

    fn allocated(&self) -> Option<u64> {
        self.clusters.file.allocated()
    }

    fn details(&self) -> Option<Arc<Details>> {
        Some(Arc::clone(&self.details))
    }

    fn child_access(&self, role: &str, access: Access) -> Access {
        child_access(self.read_only, role, access)
    }

    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>> {
        let clusters = Arc::clone(&self.clusters);
        let resized = here(move || async move { clusters.resize_to(size).await });
        Box::pin(async move {
            resized.await.map_err(|error| {
                let text = format!("Failed to resize the image: {}", system_error(&error));
                CommandError::generic(text)
            })
        })
    }

    fn unused(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.users.unused())
    }

    fn bytes(&self) -> Option<Arc<dyn Bytes>> {
        Some(Arc::clone(&self.clusters) as Arc<dyn Bytes>)
    }
}

impl Clusters {
    async fn resize_to(&self, size: u64) -> io::Result<()> {
        let mut access = self.access.write().await;
        access.resize(size, PreallocateMode::None).await?;
        access.flush().await?;
        self.size.store(access.size(), Ordering::Relaxed);
        Ok(())
    }
}

/// As what is behind another image, and for tools.
impl Bytes for Clusters {
    fn read(&self, offset: u64, len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let mut data = vec![0; len];
            let there = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(len).min(len);
            self.access.read().await.read(&mut data[..there], offset).await?;
            Ok(data)
        })
    }

    fn write(&self, offset: u64, data: Vec<u8>) -> Local<'_, io::Result<()>> {
        Box::pin(async move { self.access.read().await.write(&data, offset).await })
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Local<'_, io::Result<()>> {
        Box::pin(Self::write_zeroes(self, offset, len, unmap))
    }

    fn flush(&self) -> Local<'_, io::Result<()>> {
        Box::pin(Self::flush(self))
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn resize(&self, size: u64) -> Local<'_, io::Result<()>> {
        Box::pin(self.resize_to(size))
    }

    fn kept(&self, offset: u64, len: u64) -> Local<'_, io::Result<(Kept, u64)>> {
        Box::pin(async move {
            let access = self.access.read().await;
            let (mapping, len) = access.get_shallow_mapping(offset, len).await?;
            let kept = match mapping {
                ShallowMapping::Raw { offset, .. } => Kept::Data(offset),
                ShallowMapping::Zero { explicit: true, .. } => Kept::Zero(None),
                ShallowMapping::Special { .. } => Kept::Compressed,
                _ => Kept::Behind,
            };
            Ok((kept, len))
        })
    }
}

/// What an image does with its children. Its tables change also where its user only reads, and nobody
/// else may change them; what is behind it is only read.
pub(super) fn child_access(read_only: bool, role: &str, access: Access) -> Access {
    let own = Permissions::WRITE | Permissions::RESIZE;
    if role == "backing" {
        let changed =
            if access.shares.contains(Permissions::WRITE) { own } else { Permissions::NONE };
        let kept = Permissions::CONSISTENT_READ | Permissions::WRITE_UNCHANGED;
        return Access { uses: access.uses & Permissions::CONSISTENT_READ, shares: kept | changed };
    }
    let written = if read_only { Permissions::NONE } else { own };
    Access {
        uses: access.uses | Permissions::CONSISTENT_READ | written,
        shares: access.shares & own.complement(),
    }
}
