//! The content of a node as bytes, for tools: what a device does with slots and queues, in one piece.

use super::create::Preallocation;
use super::drivers::bytes::{Bytes, Kept};
use super::drivers::qcow2;
use super::node::Node;
use crate::error::CommandError;
use std::io;
use std::sync::Arc;

/// Bytes of zeroes that are written at once.
const ZEROES: u64 = 1 << 20;

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

    /// Has the host give space to what it has got, from `before` to `size`; raw images only.
    pub async fn preallocate(&self, before: u64, size: u64, mode: Preallocation) -> io::Result<()> {
        let mut at = before;
        match mode {
            Preallocation::Falloc if size > before => {
                self.write_zeroes(before, size - before, false).await?;
            }
            Preallocation::Off | Preallocation::Metadata | Preallocation::Falloc => {}
            Preallocation::Full => {
                while at < size {
                    let n = (size - at).min(ZEROES);
                    self.write(at, vec![0; n as usize]).await?;
                    at += n;
                }
            }
        }
        Ok(())
    }

    /// How the start of a range is kept, and how many bytes likewise, at most `len`; 0 at the end. Asks
    /// the host's file system where it is a file, which may block.
    pub async fn kept(&self, offset: u64, len: u64) -> io::Result<(Kept, u64)> {
        self.0.kept(offset, len).await
    }
}
