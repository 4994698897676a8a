//! The content of a node as bytes, for tools: what a device does with slots and queues, in one piece.

use super::drivers::bytes::{Bytes, Kept, NodeStorage};
use super::drivers::qcow2;
use super::node::Node;
use crate::error::CommandError;
use crate::text::system_error;
use imago::FormatCreateBuilder;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2CreateBuilder;
use std::io;
use std::sync::Arc;

/// The content of a node. Its futures belong to the context that makes them.
#[derive(Clone)]
pub struct Content(Arc<dyn Bytes>);

impl Content {
    /// That of a node whose content is all of an image's, or of a file's. The caller has claimed it.
    pub fn of(node: &Node) -> Result<Self, CommandError> {
        qcow2::content(node).map(Self)
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Reads `len` bytes from `offset`; behind the end there are zeroes.
    pub async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.read(offset, len).await
    }

    /// Writes `data` to `offset`.
    pub async fn write(&self, offset: u64, data: Vec<u8>) -> io::Result<()> {
        self.0.write(offset, data).await
    }

    /// Makes `len` bytes from `offset` read as zeroes; frees their space where `unmap` allows it.
    pub async fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.0.write_zeroes(offset, len, unmap).await
    }

    /// Makes what was written stable.
    pub async fn flush(&self) -> io::Result<()> {
        self.0.flush().await
    }

    /// Makes it `size` bytes long.
    pub async fn resize(&self, size: u64) -> io::Result<()> {
        self.0.resize(size).await
    }

    /// How the start of a range is kept, and how many bytes likewise, at most `len`; 0 at the end. Asks
    /// the host's file system where it is a file, which may block.
    pub async fn kept(&self, offset: u64, len: u64) -> io::Result<(Kept, u64)> {
        self.0.kept(offset, len).await
    }
}

/// How much of a new image is there from the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// What is written.
    #[default]
    Off,
    /// The tables.
    Metadata,
    /// The tables, and space in the file system.
    Falloc,
    /// All of it, written with zeroes.
    Full,
}

/// A qcow2 image to be made, of version 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewQcow2 {
    /// What its user sees, in bytes.
    pub size: u64,
    /// Bytes of a cluster: a power of two, 512 to 2 MiB.
    pub cluster_size: u32,
    /// Bits of a refcount: a power of two, 1 to 64.
    pub refcount_bits: u32,
    /// What is behind it, and the format of that; nothing is looked at.
    pub backing: Option<(String, String)>,
    /// How much is there from the beginning.
    pub preallocation: Preallocation,
}

impl NewQcow2 {
    /// Makes the image in a node that is empty, in the calling context.
    pub async fn create(self, file: &Node) -> Result<(), CommandError> {
        let preallocation = match self.preallocation {
            Preallocation::Off => PreallocateMode::None,
            Preallocation::Metadata => PreallocateMode::FormatAllocate,
            Preallocation::Falloc => PreallocateMode::FullAllocate,
            Preallocation::Full => PreallocateMode::WriteData,
        };
        let mut builder = Qcow2CreateBuilder::<NodeStorage>::new(NodeStorage::new(file)?)
            .size(self.size)
            .preallocate(preallocation)
            .cluster_size(self.cluster_size as usize)
            .refcount_width(self.refcount_bits as usize);
        if let Some((name, format)) = self.backing {
            builder = builder.backing(name, format);
        }
        builder.create().await.map_err(|error| CommandError::generic(system_error(&error)))
    }
}
