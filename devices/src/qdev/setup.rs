//! What a device is made from.

use super::BoxFuture;
use super::value::Properties;
use crate::block::Disk;
use crate::block::graph::{Backend, BlockGraph, ClaimOptions, ErrorPolicy, OnError, SizeListener};
use crate::chardev::Chardevs;
use crate::clock::Clock;
use crate::error::CommandError;
use crate::net::Network;
use crate::objects::Objects;
use crate::scsi::LogicalUnit;
use crate::virtio::Ram;
use crate::virtio::balloon::BalloonSlot;
use reactor::Context;
use std::sync::{Arc, Weak};
use vcpu::irq::Platform;

/// What devices share.
#[derive(Clone)]
pub struct Resources {
    /// Interrupts and doorbells.
    pub platform: Arc<dyn Platform>,
    /// Guest memory.
    pub ram: Arc<Ram>,
    /// The contexts of the data path.
    pub cores: Vec<Context>,
    /// Processors of the guest.
    pub cpus: u32,
    /// The guest's time.
    pub clock: Arc<dyn Clock>,
    /// Drives and nodes by their names.
    pub block: Arc<BlockGraph>,
    /// Objects by id.
    pub objects: Arc<Objects>,
    /// Network back ends by id.
    pub network: Arc<Network>,
    /// Character devices by id.
    pub chardevs: Chardevs,
    /// The place of the machine's balloon.
    pub balloon: Arc<BalloonSlot>,
    /// Told when a program of the guest opens or closes the port with an id.
    pub port_opened: PortSink,
}

/// Takes the id of a port, and whether a program of the guest has it open. Any thread, returns at once.
pub type PortSink = Arc<dyn Fn(&str, bool) + Send + Sync>;

/// Where a test lets a step fail.
#[derive(Debug, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    pub(super) passed: std::sync::Mutex<Vec<String>>,
    #[cfg(test)]
    pub(super) fails: std::sync::Mutex<Option<String>>,
}

impl Steps {
    /// Names the step that comes next.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests let it fail")]
    pub(super) fn next(&self, _name: &str) -> Result<(), CommandError> {
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn next(&self, name: &str) -> Result<(), CommandError> {
        self.passed.lock().unwrap().push(name.to_owned());
        if self.fails.lock().unwrap().as_deref() == Some(name) {
            return Err(CommandError::generic(format!("the test lets '{name}' fail")));
        }
        Ok(())
    }
}

/// Everything that the realization of one device may use.
pub struct Setup<'a> {
    /// What devices share.
    pub resources: &'a Resources,
    /// The properties, checked.
    pub properties: &'a Properties,
    /// The name of the type.
    pub type_name: &'static str,
    /// The id, or the type's name where there is none: for messages.
    pub name: &'a str,
    /// Its place in the object tree.
    pub path: &'a str,
    /// Whether the machine has been made already.
    pub hotplugged: bool,
    pub(super) steps: &'a Steps,
}

impl Setup<'_> {
    /// Names the step that comes next, ahead of everything that has to be undone when a later one fails.
    /// What a step has taken is given back when it is dropped; what cannot be undone without waiting
    /// belongs into [`Realized::unrealize`](super::Realized::unrealize).
    pub fn step(&self, name: &str) -> Result<(), CommandError> {
        self.steps.next(name)
    }

    /// Claims the drive or node that the property `drive` names, for `device`: its name or path, as
    /// queries have it. `owner` is the type that QEMU names in the error; `may_be_empty`: no drive
    /// needs to be named, and a drive needs no medium.
    pub fn claim_drive(
        &self,
        owner: &str,
        device: String,
        may_be_empty: bool,
    ) -> Result<Claim, CommandError> {
        let id = self.properties.text("drive").filter(|id| !id.is_empty());
        if id.is_none() && !may_be_empty {
            return Err(CommandError::generic("drive property not set"));
        }
        let on_error = |name| self.properties.text(name).and_then(OnError::named);
        let options = ClaimOptions {
            device,
            read_only: false,
            share_writes: self.properties.bool("share-rw"),
            may_be_empty,
            on_error: ErrorPolicy { read: on_error("rerror"), write: on_error("werror") },
        };
        let graph = Arc::clone(&self.resources.block);
        // A drive without a medium is one that nobody has put anything into yet.
        let Some(id) = id else {
            return Ok(Claim { backend: Some(graph.claim_empty(&options)), graph });
        };
        let claimed = graph.claim(id, &options).unwrap_or_else(|| {
            let text = format!("Property '{owner}.drive' can't find value '{id}'");
            Err(CommandError::generic(text))
        });
        Ok(Claim { backend: Some(claimed?), graph })
    }
}

/// A claim on a drive or a node. Dropped, it is taken back as if it had never been.
pub struct Claim {
    graph: Arc<BlockGraph>,
    backend: Option<Arc<Backend>>,
}

impl Claim {
    /// The disk, unless the drive is empty.
    pub fn disk(&self) -> Option<Arc<dyn Disk>> {
        let backend = self.backend.as_ref().filter(|backend| backend.root().is_some())?;
        Some(Arc::clone(backend) as _)
    }

    /// Media are put into `unit` from now on, while this claim lasts.
    pub(super) fn connect_tray(&self, unit: &Arc<LogicalUnit>) {
        let Some(backend) = &self.backend else { return };
        let tray: Weak<LogicalUnit> = Arc::downgrade(unit);
        backend.set_tray(tray);
        let (graph, backend) = (Arc::downgrade(&self.graph), Arc::downgrade(backend));
        unit.on_tray_moved(Box::new(move |open| {
            if let (Some(graph), Some(backend)) = (graph.upgrade(), backend.upgrade()) {
                graph.tray_moved(&backend, open);
            }
        }));
    }

    /// Has `listener` called in `main` after each change of the size, while this claim lasts.
    pub fn on_size_change(&self, listener: SizeListener) {
        if let Some(backend) = &self.backend {
            backend.on_size_change(listener);
        }
    }

    /// Ends it because the device is gone for good, and nothing is in flight.
    pub fn release(mut self) -> BoxFuture<'static, ()> {
        let (backend, graph) = (self.backend.take(), Arc::clone(&self.graph));
        Box::pin(async move {
            if let Some(backend) = backend {
                graph.release(&backend).await;
            }
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.take() {
            self.graph.give_back(&backend);
        }
    }
}
