//! A node as a string of bytes, for formats that are kept in it.

use crate::block::graph::node::Node;
use crate::error::CommandError;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// A future of the current context.
pub(in crate::block::graph) type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Reading and writing at any byte, in any context. Buffers are owned: an operation that is dropped
/// keeps its own until the kernel has let go.
pub(in crate::block::graph) trait Bytes: Send + Sync {
    /// Reads `len` bytes. What is behind the end reads as zeroes.
    fn read(&self, offset: u64, len: usize) -> Local<'_, io::Result<Vec<u8>>>;
    /// Writes `data`; a file grows where it reaches behind the end.
    fn write(&self, offset: u64, data: Vec<u8>) -> Local<'_, io::Result<()>>;
    /// Makes a range read as zeroes, and frees its space where `unmap` allows it.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Local<'_, io::Result<()>>;
    /// Makes what was written stable.
    fn flush(&self) -> Local<'_, io::Result<()>>;
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Changes its size.
    fn resize(&self, size: u64) -> Local<'_, io::Result<()>>;
    /// How the start of a range is kept, and how many bytes likewise, at most `len`; none at the end.
    fn kept(&self, offset: u64, len: u64) -> Local<'_, io::Result<(Kept, u64)>>;
}

/// How bytes of a node are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As data, at this byte of the file.
    Data(u64),
    /// As data that is compressed.
    Compressed,
    /// They are known to be zero, and have this place in the file if any.
    Zero(Option<u64>),
    /// Not here: they are those of the node behind, or zero.
    Behind,
}

/// A node as imago's storage: whatever the node is opened as when a request comes.
pub(in crate::block::graph) struct NodeStorage {
    node: Arc<Node>,
    helper: CommonStorageHelper,
}

impl NodeStorage {
    /// Whether it is that of the node called so.
    pub(in crate::block::graph) fn is_of(&self, name: &str) -> bool {
        self.node.name() == name
    }

    /// Fails where the node cannot be read by bytes.
    pub(in crate::block::graph) fn new(node: &Arc<Node>) -> Result<Self, CommandError> {
        super::qcow2::content(node)?;
        Ok(Self { node: Arc::clone(node), helper: CommonStorageHelper::default() })
    }

    fn bytes(&self) -> io::Result<Arc<dyn Bytes>> {
        let bytes = self.node.driver().bytes();
        bytes.ok_or_else(|| io::Error::other(format!("{self} cannot hold an image any more")))
    }
}

impl fmt::Debug for NodeStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeStorage").field(&self.node.name()).finish()
    }
}

impl fmt::Display for NodeStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node '{}'", self.node.name())
    }
}

impl imago::Storage for NodeStorage {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes()?.size())
    }

    /// Files are opened by who has made the nodes: names say nothing here.
    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        Ok(relative.as_ref().to_owned())
    }

    async unsafe fn pure_readv(&self, mut to: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let len = usize::try_from(to.len()).map_err(io::Error::other)?;
        let data = self.bytes()?.read(offset, len).await?;
        to.copy_from_slice(&data);
        Ok(())
    }

    async unsafe fn pure_writev(&self, from: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut data = vec![0; usize::try_from(from.len()).map_err(io::Error::other)?];
        from.copy_into_slice(&mut data);
        self.bytes()?.write(offset, data).await
    }

    async unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.bytes()?.write_zeroes(offset, length, true).await
    }

    async unsafe fn pure_write_allocated_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.bytes()?.write_zeroes(offset, len, false).await
    }

    async unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.bytes()?.write_zeroes(offset, length, true).await
    }

    async fn flush(&self) -> io::Result<()> {
        // Nothing is kept back here.
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        self.bytes()?.flush().await
    }

    async unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    async fn resize(&self, new_size: u64, prealloc: PreallocateMode) -> io::Result<()> {
        let bytes = self.bytes()?;
        let before = bytes.size();
        bytes.resize(new_size).await?;
        let new = new_size.saturating_sub(before);
        match prealloc {
            PreallocateMode::Allocate | PreallocateMode::WriteData if new > 0 => {
                bytes.write_zeroes(before, new, false).await
            }
            _ => Ok(()),
        }
    }
}
