//! What a node does: a driver for each format and protocol.
//!
//! - `blkdebug`: another node, with errors where it is told to
//! - `file`: an image on the host, by the raw engine
//! - `raw`: another node as it is, or a part of it
//! - `null`: no storage at all
//! - `qcow2`, `vmdk`: formats kept in another node, by imago; `format`, `async_queue`, `bytes`: what they
//!   stand on
//! - `probed`: keeps a guest from choosing the format of its image
//! - `throttle`: another node, with the limits of a group

mod async_queue;
pub(super) mod blkdebug;
pub(super) mod bytes;
pub(super) mod file;
pub(super) mod format;
pub(super) mod null;
mod probed;
pub(super) mod qcow2;
pub(super) mod raw;
pub(super) mod throttle;
pub(super) mod vmdk;

use self::bytes::Bytes;
use self::format::Details;
use super::BlockGraph;
use super::node::{Child, Node};
use super::options::{DriverOptions, Options};
use super::permissions::Access;
use crate::block::{BoxFuture, Disk, DiskError};
use crate::error::CommandError;
use crate::fdset::FdSets;
use std::sync::Arc;

/// A node's control handle.
pub(super) trait Driver: Disk {
    /// The text that names its image to users: a path, or `json:{...}`.
    fn filename(&self) -> String;

    /// Bytes that its image takes on the host. A look at what is known, without I/O.
    fn allocated(&self) -> Option<u64>;

    /// Takes or gives up what the host must know of the access by all users.
    fn permit(&self, _: Access) -> Result<(), CommandError> {
        Ok(())
    }

    /// What it does with a child, given what is done with itself.
    fn child_access(&self, _role: &str, access: Access) -> Access {
        access
    }

    /// Its content as bytes, where a format can be kept in it.
    fn bytes(&self) -> Option<Arc<dyn Bytes>> {
        None
    }

    /// What its image tells about itself. A look at what is known, without I/O.
    fn details(&self) -> Option<Arc<Details>> {
        None
    }

    /// Changes its size to `size` bytes. On a reactor.
    fn resize(&self, size: u64) -> BoxFuture<'_, Result<(), CommandError>>;

    /// Opens its image again as `options` want it, to take this one's place; `None` where there is
    /// nothing to it but [`open`]. No requests are under way. On a reactor.
    fn reopen<'a>(
        &'a self,
        _: &'a Options,
        _: &'a FdSets,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Driver>>, CommandError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Takes from the one whose place it takes what only one of them can have.
    fn take_over(&self) -> Result<(), CommandError> {
        Ok(())
    }

    /// Undoes [`take_over`](Self::take_over).
    fn give_back(&self) {}

    /// Closes it, where another one has its place and its image now. On a reactor.
    fn retire(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.close()
    }

    /// A drained section above it begins or ends. Any thread; returns at once.
    fn drained(&self, _begins: bool) {}

    /// Makes what was written stable before the image is closed, unless flushes are ignored.
    fn flush_at_end(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        self.flush()
    }

    /// Waits until no data handle is left that was made here. On a reactor.
    fn unused(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Nothing has to be done, or waited for.
fn at_once() -> BoxFuture<'static, Result<(), DiskError>> {
    Box::pin(std::future::ready(Ok(())))
}

/// Opens what `options` describe, over `children`. Nothing stays open after an error.
pub(super) async fn open(
    options: &Options,
    children: &[Child],
    graph: &BlockGraph,
) -> Result<Arc<dyn Driver>, CommandError> {
    match &options.driver {
        DriverOptions::Blkdebug { rules, .. } => {
            Ok(blkdebug::open(child(children, "image")?, rules, &graph.clock))
        }
        DriverOptions::File { filename, locking, device, .. } => {
            file::open(options, filename, *locking, *device, &graph.fdsets).await
        }
        DriverOptions::Scratch { size } => file::scratch(*size).await,
        DriverOptions::Raw { offset, size, probed, .. } => {
            raw::open(options, child(children, "file")?, *offset, *size, *probed)
        }
        DriverOptions::Probed { .. } => Err(CommandError::generic("its format is not known")),
        DriverOptions::Vmdk { .. } => {
            let extents = children.iter().filter(|child| child.role == "extents");
            let extents = extents.map(|child| Arc::clone(&child.node)).collect();
            vmdk::open(options, child(children, "file")?, extents).await
        }
        DriverOptions::Qcow2 { .. } => {
            let backing = children.iter().find(|child| child.role == "backing");
            let backing = backing.map(|child| Arc::clone(&child.node));
            qcow2::open(options, child(children, "file")?, backing).await
        }
        DriverOptions::NullCo { size, latency_ns, read_zeroes } => {
            Ok(null::open(options, *size, *latency_ns, *read_zeroes, &graph.clock))
        }
        DriverOptions::Throttle { group, .. } => {
            let found = graph.groups.find(group).ok_or_else(|| {
                CommandError::generic(format!("Throttle group '{group}' does not exist"))
            })?;
            Ok(throttle::open(child(children, "file")?, found))
        }
    }
}

/// What a node that is about to be opened does with a child that it has as `role`: it is locked
/// before a format writes to it.
pub(super) fn first_access(options: &Options, role: &str, child: &Node) -> Access {
    match options.driver {
        DriverOptions::Qcow2 { .. } => {
            let read_only = options.read_only.unwrap_or(false) || child.info().read_only;
            format::child_access(read_only, role, Access::IDLE)
        }
        _ => Access::IDLE,
    }
}

fn child(children: &[Child], role: &str) -> Result<Arc<Node>, CommandError> {
    let child = children.iter().find(|child| child.role == role);
    child
        .map(|child| Arc::clone(&child.node))
        .ok_or_else(|| CommandError::generic(format!("Parameter '{role}' is missing")))
}
