//! Media that come and go while their device stays: CD drives, and drives without a device.
//!
//! A medium is the root of a back end. It is taken out with nothing in flight; its node goes too
//! where nobody else keeps it. A device with a tray is told through [`Tray`], and tells of each
//! movement by the sink of the graph, whoever moved it.

use super::backend::{Backend, Owner};
use super::change::drop_unused;
use super::drain::Drained;
use super::node::Node;
use super::options::Options;
use super::permissions::{Access, Permissions, Use, User};
use super::probe::choose_drivers;
use super::{BlockGraph, ClaimOptions, Contents};
use crate::block::Disk;
use crate::error::CommandError;
use std::sync::Arc;

/// A device that media are put into. Any thread; nothing waits.
pub trait Tray: Send + Sync {
    /// It is open.
    fn is_open(&self) -> bool;
    /// The guest has locked it.
    fn is_locked(&self) -> bool;
    /// The guest is asked to open it; `force`: it is locked no longer.
    fn request_eject(&self, force: bool);
    /// Opens or closes it, locked or not.
    fn set_open(&self, open: bool);
    /// Whether the guest may write to what is in it.
    fn writes(&self) -> bool;
    /// What is in it from now on.
    fn set_medium(&self, medium: Option<Arc<dyn Disk>>);
}

/// A tray that has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrayMoved {
    /// Whose.
    pub owner: Owner,
    /// It is open now.
    pub open: bool,
}

/// Takes trays that moved; any thread, returns at once.
pub type TraySink = Box<dyn Fn(&TrayMoved) + Send + Sync>;

/// A back end, and what a command calls it.
#[derive(Clone)]
pub struct Device {
    /// The back end.
    pub backend: Arc<Backend>,
    /// Its name in messages.
    pub name: String,
}

impl Contents {
    /// The drive called `device`, or the device with this `id` or path: exactly one of them is
    /// given. The errors are QEMU's.
    pub fn device(&self, device: Option<&str>, id: Option<&str>) -> Result<Device, CommandError> {
        let (name, found) = match (device, id) {
            (Some(name), None) => {
                let of_drive = |backend: &&Arc<Backend>| backend.owner().drive == name;
                (name, self.backends.iter().find(of_drive))
            }
            (None, Some(id)) => {
                let path = format!("/machine/peripheral/{id}/virtio-backend");
                let of_device = |backend: &&Arc<Backend>| {
                    let device = backend.owner().device;
                    !device.is_empty() && (device == id || device == path)
                };
                (id, self.backends.iter().find(of_device))
            }
            _ => return Err(CommandError::generic("Need exactly one of 'device' and 'id'")),
        };
        let backend = found.filter(|_| !name.is_empty());
        let backend = backend.ok_or_else(|| CommandError::device_not_found(name))?;
        Ok(Device { backend: Arc::clone(backend), name: name.to_owned() })
    }
}

impl Device {
    fn error(&self, before: &str, after: &str) -> CommandError {
        CommandError::generic(format!("{before}'{}'{after}", self.name))
    }

    fn check_removable(&self) -> Result<(), CommandError> {
        if self.backend.is_removable() {
            return Ok(());
        }
        Err(self.error("Device ", " is not removable"))
    }

    fn check_open(&self) -> Result<(), CommandError> {
        self.check_removable()?;
        match self.backend.tray() {
            Some(tray) if !tray.is_open() => Err(self.error("Tray of device ", " is not open")),
            _ => Ok(()),
        }
    }

    /// Opens the tray, if there is one: a locked one only by `force`, while the guest is asked to
    /// open it otherwise (`blockdev-open-tray`).
    pub fn open_tray(&self, force: bool) -> Result<(), CommandError> {
        self.check_removable()?;
        let Some(tray) = self.backend.tray().filter(|tray| !tray.is_open()) else { return Ok(()) };
        let locked = tray.is_locked();
        if locked {
            tray.request_eject(force);
        }
        if locked && !force {
            let text =
                " is locked and force was not specified, wait for tray to open and try again";
            return Err(self.error("Device ", text));
        }
        tray.set_open(true);
        Ok(())
    }

    /// Closes the tray, if there is one (`blockdev-close-tray`).
    pub fn close_tray(&self) -> Result<(), CommandError> {
        self.check_removable()?;
        if let Some(tray) = self.backend.tray() {
            tray.set_open(false);
        }
        Ok(())
    }
}

impl BlockGraph {
    /// Has `sink` told of each tray that moves. The first one stays.
    pub fn on_tray_moved(&self, sink: TraySink) {
        let _first = self.tray_moved.set(sink);
    }

    /// The tray of a device has moved. Any thread.
    pub fn tray_moved(&self, backend: &Backend, open: bool) {
        if let Some(sink) = self.tray_moved.get() {
            sink(&TrayMoved { owner: backend.owner(), open });
        }
    }

    /// A back end without a medium for a device that names no drive. In `main`; does not wait.
    pub fn claim_empty(&self, options: &ClaimOptions) -> Arc<Backend> {
        let owner = Owner { drive: String::new(), device: options.device.clone() };
        let backend = self.backend(owner, None, self.number(), (true, true));
        backend.set_removable(true);
        backend.set_on_error(options.on_error);
        self.backends().push(Arc::clone(&backend));
        backend
    }

    /// Opens the tray and takes the medium out (`eject`).
    pub async fn eject(&self, device: &Device, force: bool) -> Result<(), CommandError> {
        device.open_tray(force)?;
        self.remove_medium(device).await
    }

    /// Takes the medium out of an open tray (`blockdev-remove-medium`). Its image is closed when
    /// this returns, unless somebody else keeps it.
    pub async fn remove_medium(&self, device: &Device) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        self.take_medium(device).await
    }

    async fn take_medium(&self, device: &Device) -> Result<(), CommandError> {
        device.check_open()?;
        if let Some(tray) = device.backend.tray() {
            tray.set_medium(None);
        }
        self.take_root(&device.backend, |_| false).await;
        Ok(())
    }

    /// Puts a node that no device uses into an open, empty tray (`blockdev-insert-medium`).
    pub async fn insert_medium(&self, device: &Device, node: &str) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        let found = self.contents().node(node).cloned();
        let found =
            found.ok_or_else(|| CommandError::generic(format!("Node '{node}' not found")))?;
        if found.uses().iter().any(|one| matches!(one.by, User::Device(_))) {
            return Err(CommandError::generic(format!("Node '{node}' is already in use")));
        }
        self.put_medium(device, &found).await
    }

    async fn put_medium(&self, device: &Device, node: &Arc<Node>) -> Result<(), CommandError> {
        let backend = &device.backend;
        // It may have gone while the image was opened.
        if !self.backends().iter().any(|known| Arc::ptr_eq(known, backend)) {
            return Err(CommandError::device_not_found(&device.name));
        }
        device.check_open()?;
        if backend.root().is_some() {
            return Err(device.error("There already is a medium in device ", ""));
        }
        let tray = backend.tray();
        let owner = backend.owner();
        let access = if owner.device.is_empty() {
            Access { shares: Permissions::ALL, ..Access::device(node.info().read_only, true) }
        } else {
            let writes = tray.as_ref().is_some_and(|tray| tray.writes());
            Access::device(!writes || node.info().read_only, false)
        };
        let by = User::Device(if owner.device.is_empty() { owner.drive } else { owner.device });
        node.add_use(Use { id: backend.use_id, by, role: "root", access })?;
        let drained = Drained::begin(vec![Arc::clone(backend)]).await;
        backend.set_root(Some(Arc::clone(node)));
        drop(drained);
        if let Some(tray) = tray {
            tray.set_medium(Some(Arc::clone(backend) as _));
        }
        Ok(())
    }

    /// Opens the image that `options` describe, and puts it in the place of the medium that is
    /// there (`blockdev-change-medium`): the tray opens and closes again.
    pub async fn change_medium(
        &self,
        device: &Device,
        mut options: Options,
        force: bool,
    ) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        choose_drivers(&mut options).await;
        let node = self.open(options).await?;
        let changed = match device.open_tray(force) {
            Ok(()) => self.take_medium(device).await,
            Err(error) => Err(error),
        };
        let changed = match changed {
            Ok(()) => self.put_medium(device, &node).await.and_then(|()| device.close_tray()),
            Err(error) => Err(error),
        };
        if changed.is_err() {
            let mut writer = self.lock.write().await;
            drop_unused(&mut writer, &node);
            self.publish(&writer);
            drop(node);
            writer.unlock().await;
        }
        changed
    }
}
