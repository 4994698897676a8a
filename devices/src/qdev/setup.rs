//! What a device is made from.

use super::BoxFuture;
use super::drives::{ClaimError, Drives};
use super::value::Properties;
use crate::error::CommandError;
use crate::objects::Objects;
use crate::virtio::Ram;
use reactor::Context;
use std::sync::Arc;
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
    /// Disks by id.
    pub drives: Arc<dyn Drives>,
    /// Objects by id.
    pub objects: Arc<Objects>,
}

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

    /// Claims the disk that the property `drive` names. `owner` is the type that QEMU names in the error.
    pub fn claim_drive(&self, owner: &str) -> Result<Claim, CommandError> {
        let id = self.properties.text("drive").filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| CommandError::generic("drive property not set"))?;
        let drives = &self.resources.drives;
        let disk = drives.claim(id, self.path).map_err(|error| match error {
            ClaimError::Unknown => {
                CommandError::generic(format!("Property '{owner}.drive' can't find value '{id}'"))
            }
            ClaimError::InUse => {
                CommandError::generic(format!("Drive '{id}' is already in use by another device"))
            }
            ClaimError::Refused(error) => error,
        })?;
        Ok(Claim { id: id.to_owned(), drives: Arc::clone(drives), disk: Some(disk) })
    }
}

/// A claim on a disk. Dropped, it is taken back as if it had never been.
pub struct Claim {
    id: String,
    drives: Arc<dyn Drives>,
    disk: Option<Arc<dyn crate::block::Disk>>,
}

impl Claim {
    /// The disk.
    pub fn disk(&self) -> Option<&Arc<dyn crate::block::Disk>> {
        self.disk.as_ref()
    }

    /// The id it was claimed by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Ends it because the device is gone for good, and nothing is in flight.
    pub fn release(mut self) -> BoxFuture<'static, ()> {
        self.disk = None;
        let (id, drives) = (std::mem::take(&mut self.id), Arc::clone(&self.drives));
        Box::pin(async move { drives.released(&id).await })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.disk.take().is_some() {
            self.drives.give_back(&self.id);
        }
    }
}
