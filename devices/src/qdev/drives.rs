//! Disks by id: where storage devices find what they store on.

use super::BoxFuture;
use crate::block::graph::{Backend, BlockGraph, ClaimOptions};
use crate::block::{Disk, DiskError};
use crate::error::CommandError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a disk cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// There is none of this name.
    Unknown,
    /// A device has it.
    InUse,
    /// Something else; the text is QEMU's where it has one.
    Refused(CommandError),
}

/// Disks by the id of their drive or the name of their node. In `main`.
pub trait Drives: Send + Sync {
    /// Takes a disk for the device at the object path `user`.
    fn claim(&self, id: &str, user: &str) -> Result<Arc<dyn Disk>, ClaimError>;

    /// Takes a claim back: the device was not made after all.
    fn give_back(&self, id: &str);

    /// The device is gone, and nothing of it is in flight. A disk that was made for a device (`-drive`)
    /// goes with it.
    fn released<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()>;
}

struct Entry {
    disk: Arc<dyn Disk>,
    claimed: bool,
}

/// Disks that were opened for `-drive`, and behind them the nodes of a block graph.
#[derive(Default)]
pub struct DriveTable {
    entries: Mutex<BTreeMap<String, Entry>>,
    graph: Option<Arc<BlockGraph>>,
    /// Claims on nodes, by the name that was asked for.
    claims: Mutex<Vec<(String, Arc<Backend>)>>,
}

impl DriveTable {
    /// No disks.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// No disks but the nodes of `graph`.
    pub fn over(graph: &Arc<BlockGraph>) -> Arc<Self> {
        Arc::new(Self { graph: Some(Arc::clone(graph)), ..Self::default() })
    }

    /// Adds a disk. The error is one of the same id.
    pub fn add(&self, id: &str, disk: Arc<dyn Disk>) -> Result<(), CommandError> {
        let mut entries = self.lock();
        if entries.contains_key(id) {
            return Err(CommandError::generic(format!("Duplicate ID '{id}' for drive")));
        }
        entries.insert(id.to_owned(), Entry { disk, claimed: false });
        Ok(())
    }

    /// Whether a disk of this id is there and free.
    pub fn is_free(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|entry| !entry.claimed)
    }

    /// Flushes and closes all disks that are left. The error is the first one's. On a reactor.
    pub async fn close_all(&self) -> Result<(), DiskError> {
        let entries = std::mem::take(&mut *self.lock());
        let mut result = Ok(());
        for entry in entries.into_values() {
            result = result.and(entry.disk.close().await);
        }
        result
    }

    fn claim_node(&self, name: &str, user: &str) -> Result<Arc<dyn Disk>, ClaimError> {
        let graph = self.graph.as_ref().ok_or(ClaimError::Unknown)?;
        let options = ClaimOptions {
            device: format!("{user}/virtio-backend"),
            read_only: false,
            share_writes: false,
        };
        let claimed = graph.claim(name, &options).ok_or(ClaimError::Unknown)?;
        let backend = claimed.map_err(ClaimError::Refused)?;
        self.claims().push((name.to_owned(), Arc::clone(&backend)));
        Ok(backend)
    }

    fn take_claim(&self, name: &str) -> Option<(Arc<BlockGraph>, Arc<Backend>)> {
        let graph = self.graph.as_ref()?;
        let mut claims = self.claims();
        let at = claims.iter().position(|(known, _)| known == name)?;
        Some((Arc::clone(graph), claims.swap_remove(at).1))
    }

    fn claims(&self) -> MutexGuard<'_, Vec<(String, Arc<Backend>)>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drives for DriveTable {
    fn claim(&self, id: &str, user: &str) -> Result<Arc<dyn Disk>, ClaimError> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(id) else {
            drop(entries);
            return self.claim_node(id, user);
        };
        if entry.claimed {
            return Err(ClaimError::InUse);
        }
        entry.claimed = true;
        Ok(Arc::clone(&entry.disk))
    }

    fn give_back(&self, id: &str) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.claimed = false;
        } else if let Some((graph, backend)) = self.take_claim(id) {
            graph.give_back(&backend);
        }
    }

    fn released<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some((graph, backend)) = self.take_claim(id) {
                return graph.release(&backend).await;
            }
            let entry = self.lock().remove(id);
            if let Some(entry) = entry
                && let Err(error) = entry.disk.close().await
            {
                tracing::warn!(drive = id, %error, "an image could not be flushed");
            }
        })
    }
}
