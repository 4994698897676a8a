//! Devices come and go: a node, or a drive, is claimed at realize and released at unrealize.

use super::BlockGraph;
use super::backend::{Backend, Owner};
use super::change::drop_unused;
use super::drain::Drained;
use super::errors::ErrorPolicy;
use super::node::Node;
use super::options::Options;
use super::permissions::{Access, Permissions, Use, User};
use super::probe::choose_drivers;
use crate::block::SECTOR;
use crate::error::CommandError;
use std::sync::Arc;

/// What a device is going to do with its storage.
#[derive(Clone, Debug)]
pub struct ClaimOptions {
    /// The device's path, as QEMU writes it: `/machine/peripheral/ID/virtio-backend`.
    pub device: String,
    /// It does not write.
    pub read_only: bool,
    /// `share-rw=on`: others may write meanwhile.
    pub share_writes: bool,
    /// Its media can be taken out, and need not be there.
    pub may_be_empty: bool,
    /// What is done about requests that fail.
    pub on_error: ErrorPolicy,
}

impl BlockGraph {
    /// Makes the drive `id` on the image that `options` describe, or an empty one, and keeps it for
    /// the device that will claim it.
    pub async fn add_drive(
        &self,
        id: &str,
        options: Option<Options>,
        writeback: bool,
    ) -> Result<Arc<Backend>, CommandError> {
        let _alone = self.changing.lock().await;
        let contents = self.contents();
        if contents.backends.iter().any(|backend| backend.owner().drive == id) {
            return Err(CommandError::generic(format!("Duplicate ID '{id}' for drive")));
        }
        if contents.node(id).is_some() {
            let text = format!("Device with id '{id}' already exists");
            return Err(CommandError::generic(text));
        }
        let owner = Owner { drive: id.to_owned(), device: String::new() };
        let Some(mut options) = options else {
            let backend = self.backend(owner, None, self.number(), (false, writeback));
            self.backends().push(Arc::clone(&backend));
            return Ok(backend);
        };
        let read_only = options.read_only.unwrap_or(false);
        choose_drivers(&mut options).await;
        let root = self.open(options).await?;
        let access = Access { shares: Permissions::ALL, ..Access::device(read_only, true) };
        let attached = self.attach(owner, &root, access, (read_only, writeback));
        if attached.is_err() {
            let mut writer = self.lock.write().await;
            drop_unused(&mut writer, &root);
            self.publish(&writer);
            drop(root);
            writer.unlock().await;
        }
        attached
    }

    /// Takes the medium out of a drive, whoever uses it: its device gets errors from then on. The
    /// id is free, and the image closed, when this returns (`drive_del`).
    pub async fn delete_drive(&self, id: &str) -> Result<(), CommandError> {
        let contents = self.contents();
        if contents.node(id).is_some() {
            return self.delete(id).await;
        }
        let of_drive = |backend: &&Arc<Backend>| !id.is_empty() && backend.owner().drive == id;
        let backend = contents.backends.iter().find(of_drive);
        let backend =
            backend.ok_or_else(|| CommandError::generic(format!("Device '{id}' not found")))?;
        // Its device is told of what fails from now on, as in QEMU.
        backend.set_on_error(ErrorPolicy::REPORT);
        self.empty(backend, |backend| {
            backend.forget_drive();
            backend.owner().device.is_empty()
        })
        .await;
        Ok(())
    }

    /// Claims the drive, or else the node, called `name` for a device. `None` when there is neither.
    /// In `main`; does not wait.
    pub fn claim(
        &self,
        name: &str,
        options: &ClaimOptions,
    ) -> Option<Result<Arc<Backend>, CommandError>> {
        let contents = self.contents();
        let of_drive = |backend: &&Arc<Backend>| backend.owner().drive == name;
        if let Some(backend) = contents.backends.iter().find(of_drive) {
            return Some(claim_drive(backend, options));
        }
        let node = contents.node(name)?;
        let read_only = options.read_only || node.info().read_only;
        let access = Access::device(read_only, options.share_writes);
        let owner = Owner { drive: String::new(), device: options.device.clone() };
        let claimed =
            whole_sectors(node).and_then(|()| self.attach(owner, node, access, (read_only, true)));
        if let Ok(backend) = &claimed {
            backend.set_removable(options.may_be_empty);
            backend.set_on_error(options.on_error);
        }
        Some(claimed)
    }

    /// Takes a claim back at once: the device was not made, and has no queue. In `main`.
    pub fn give_back(&self, backend: &Arc<Backend>) {
        let drive = backend.owner().drive;
        backend.set_device(String::new());
        if drive.is_empty() {
            self.backends().retain(|known| !Arc::ptr_eq(known, backend));
        }
        let Some(root) = backend.root() else { return };
        if drive.is_empty() {
            backend.set_root(None);
            root.remove_use(backend.use_id);
            return;
        }
        let access =
            Access { shares: Permissions::ALL, ..Access::device(backend.is_read_only(), true) };
        let by = User::Device(drive);
        if let Err(error) = root.add_use(Use { id: backend.use_id, by, role: "root", access }) {
            tracing::warn!(%error, "giving a claim back");
        }
    }

    pub(super) fn backend(
        &self,
        owner: Owner,
        root: Option<&Arc<Node>>,
        use_id: u64,
        mode: (bool, bool),
    ) -> Arc<Backend> {
        Backend::new(&self.main, owner, root, use_id, mode, &self.io_errors)
    }

    fn attach(
        &self,
        owner: Owner,
        root: &Arc<Node>,
        access: Access,
        mode: (bool, bool),
    ) -> Result<Arc<Backend>, CommandError> {
        let id = self.number();
        let name = if owner.device.is_empty() { &owner.drive } else { &owner.device };
        root.add_use(Use { id, by: User::Device(name.clone()), role: "root", access })?;
        let backend = self.backend(owner, Some(root), id, mode);
        self.backends().push(Arc::clone(&backend));
        Ok(backend)
    }

    /// Ends a claim: nothing is in flight afterwards, and nodes that nobody else keeps are closed,
    /// as those of a `-drive`; a node made by `blockdev-add` stays. A second call does nothing.
    pub async fn release(&self, backend: &Arc<Backend>) {
        self.empty(backend, |_| true).await;
    }

    /// Takes a back end's root away, with nothing in flight, and the back end out of the table where
    /// `goes` says so.
    async fn empty(&self, backend: &Arc<Backend>, goes: impl FnOnce(&Backend) -> bool) {
        let _alone = self.changing.lock().await;
        self.take_root(backend, goes).await;
    }

    /// The same, for who changes the graph.
    pub(super) async fn take_root(
        &self,
        backend: &Arc<Backend>,
        goes: impl FnOnce(&Backend) -> bool,
    ) {
        let drained = Drained::begin(vec![Arc::clone(backend)]).await;
        let mut writer = self.lock.write().await;
        if goes(backend) {
            self.backends().retain(|known| !Arc::ptr_eq(known, backend));
        }
        if let Some(root) = backend.root() {
            backend.set_root(None);
            root.remove_use(backend.use_id);
            drop_unused(&mut writer, &root);
            self.publish(&writer);
        }
        drop(drained);
        writer.unlock().await;
    }

    /// Releases every claim, deletes every node and closes the images: the end of the machine. What
    /// cannot be made stable is told.
    pub async fn close_all(&self) -> Result<(), String> {
        let contents = self.contents();
        let mut result = Ok(());
        for backend in &contents.backends {
            let flushed = match backend.root().filter(|root| !root.info().read_only) {
                Some(root) => root.driver().flush_at_end().await,
                None => Ok(()),
            };
            result = result.and(flushed.map_err(|error| error.to_string()));
            self.release(backend).await;
        }
        let _alone = self.changing.lock().await;
        let mut writer = self.lock.write().await;
        // Whatever uses a node was made after it, and goes before it.
        for node in std::mem::take(&mut writer.0).into_iter().rev() {
            node.set_monitor_owned(false);
            writer.schedule_unref(node);
        }
        self.publish(&writer);
        drop(contents);
        writer.unlock().await;
        result
    }
}

/// Claims what a `-drive` has made.
fn claim_drive(
    backend: &Arc<Backend>,
    options: &ClaimOptions,
) -> Result<Arc<Backend>, CommandError> {
    let owner = backend.owner();
    if !owner.device.is_empty() {
        let text = format!("Drive '{}' is already in use by another device", owner.drive);
        return Err(CommandError::generic(text));
    }
    match backend.root() {
        Some(root) => {
            whole_sectors(&root)?;
            let read_only = options.read_only || root.info().read_only || backend.is_read_only();
            let access = Access::device(read_only, options.share_writes);
            let by = User::Device(options.device.clone());
            root.add_use(Use { id: backend.use_id, by, role: "root", access })?;
        }
        None if options.may_be_empty => {}
        None => return Err(CommandError::generic("Device needs media, but drive is empty")),
    }
    backend.set_device(options.device.clone());
    backend.set_removable(options.may_be_empty);
    backend.set_on_error(options.on_error);
    Ok(Arc::clone(backend))
}

/// A device's storage is made of sectors.
fn whole_sectors(node: &Node) -> Result<(), CommandError> {
    let size = node.size();
    if size.is_multiple_of(SECTOR) {
        return Ok(());
    }
    Err(CommandError::generic(format!(
        "Node '{}' is {size} bytes long, not a multiple of 512; resize it with block_resize",
        node.name()
    )))
}
