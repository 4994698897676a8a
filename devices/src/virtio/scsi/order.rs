//! What a task management function has the request queues do.

use super::request::Response;
use crate::scsi::Address;
use reactor::sync::oneshot;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Which tasks are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The one with this id.
    Task(Address, u64),
    /// All of a unit.
    Unit(Address),
    /// All of a target.
    Target(u8),
}

impl Scope {
    pub(super) fn has_unit(self, address: Address) -> bool {
        match self {
            Self::Task(wanted, _) | Self::Unit(wanted) => wanted == address,
            Self::Target(target) => target == address.target,
        }
    }

    pub(super) fn has_task(self, address: Address, id: u64) -> bool {
        self.has_unit(address)
            && match self {
                Self::Task(_, wanted) => wanted == id,
                _ => true,
            }
    }
}

/// What happens to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Nothing: are there any?
    Query,
    /// They end as soon as they can, and are answered with this.
    End(Response),
    /// The disk of the unit is let go of.
    Release,
}

/// An order to every request queue. It is carried out when its last clone is gone: a queue keeps
/// one for each task, or disk, that has to end first.
pub(super) struct Order {
    pub(super) scope: Scope,
    pub(super) deed: Deed,
    found: AtomicBool,
    done: Mutex<Option<oneshot::Sender<bool>>>,
}

impl Order {
    /// An order, and what tells that it has been carried out, and whether there was a task.
    pub(super) fn new(scope: Scope, deed: Deed) -> (Arc<Self>, oneshot::Receiver<bool>) {
        let (done, wait) = oneshot::channel();
        let done = Mutex::new(Some(done));
        (Arc::new(Self { scope, deed, found: AtomicBool::new(false), done }), wait)
    }

    /// There is such a task.
    pub(super) fn found(&self) {
        self.found.store(true, Ordering::Relaxed);
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let found = *self.found.get_mut();
        if let Some(done) = self.done.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody waits after a reset of the device.
            let _ = done.send(found);
        }
    }
}
