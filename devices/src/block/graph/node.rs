//! A node: an open image, or something over other nodes.

use super::drivers::Driver;
use super::drivers::format::Details;
use super::options::Options;
use super::permissions::{Access, Permissions, Use, conflict};
use crate::block::{BoxFuture, DiskError, DiskInfo, DiskQueue};
use crate::error::CommandError;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_memory::GuestMemoryMmap;

/// A node of the graph.
///
/// It lives as long as the monitor owns it or somebody uses it; whoever gives up either calls
/// [`unref`](Self::unref), or hands it to [`schedule_unref`](super::lock::Writer::schedule_unref)
/// where the graph is locked.
pub struct Node {
    name: String,
    /// Held for moments only.
    state: Mutex<State>,
}

/// A node that another one uses.
#[derive(Clone)]
pub(super) struct Child {
    pub(super) role: &'static str,
    pub(super) node: Arc<Node>,
    /// The number of the use.
    pub(super) id: u64,
}

struct State {
    driver: Arc<dyn Driver>,
    options: Options,
    children: Vec<Child>,
    uses: Vec<Use>,
    monitor_owned: bool,
    closed: bool,
}

impl Node {
    pub(super) fn new(
        name: String,
        driver: Arc<dyn Driver>,
        options: Options,
        children: Vec<Child>,
    ) -> Arc<Self> {
        let state = State {
            driver,
            options,
            children,
            uses: Vec::new(),
            monitor_owned: false,
            closed: false,
        };
        Arc::new(Self { name, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name, unique in its graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was made, with what it has inherited.
    pub fn options(&self) -> Options {
        self.state().options.clone()
    }

    pub(super) fn driver(&self) -> Arc<dyn Driver> {
        Arc::clone(&self.state().driver)
    }

    /// Has it do something else from now on; returns what it did.
    pub(super) fn replace_driver(
        &self,
        driver: Arc<dyn Driver>,
        options: Options,
    ) -> (Arc<dyn Driver>, Options) {
        let mut state = self.state();
        let driver = std::mem::replace(&mut state.driver, driver);
        (driver, std::mem::replace(&mut state.options, options))
    }

    /// Sets the nodes that it uses; their lists of uses stay.
    pub(super) fn set_children(&self, children: Vec<Child>) {
        self.state().children = children;
    }

    pub(super) fn children(&self) -> Vec<Child> {
        self.state().children.clone()
    }

    /// The nodes that it uses, with their roles.
    pub fn uses_of_others(&self) -> Vec<(&'static str, Arc<Self>)> {
        self.children().into_iter().map(|child| (child.role, child.node)).collect()
    }

    /// The text that names its image to users: a path, or `json:{...}`.
    pub fn filename(&self) -> String {
        self.driver().filename()
    }

    /// What its image tells about itself, where it has a format.
    pub fn details(&self) -> Option<Arc<Details>> {
        self.driver().details()
    }

    /// Bytes that its image takes on the host.
    pub fn allocated(&self) -> Option<u64> {
        self.driver().allocated()
    }

    /// Whether `other` is this node or below it.
    pub(super) fn reaches(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other) || self.children().iter().any(|child| child.node.reaches(other))
    }

    /// Whether the monitor has made it by name, and so may delete it.
    pub fn is_monitor_owned(&self) -> bool {
        self.state().monitor_owned
    }

    pub(super) fn set_monitor_owned(&self, owned: bool) {
        self.state().monitor_owned = owned;
    }

    pub(super) fn uses(&self) -> Vec<Use> {
        self.state().uses.clone()
    }

    /// Whether nobody keeps it.
    pub(super) fn is_unused(&self) -> bool {
        let state = self.state();
        !state.monitor_owned && state.uses.is_empty()
    }

    /// What all users together do with it and let others do.
    pub(super) fn access(&self) -> Access {
        let state = self.state();
        state.uses.iter().fold(Access::IDLE, |all, one| all.and(one.access))
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.driver().size()
    }

    /// What else there is to know about its storage.
    pub fn info(&self) -> DiskInfo {
        self.driver().info()
    }

    /// Makes what was written stable. On a reactor.
    pub(super) fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        let driver = self.driver();
        Box::pin(async move { driver.flush().await })
    }

    /// Changes its size to `size` bytes. On a reactor.
    pub(super) fn resize(&self, size: u64) -> BoxFuture<'static, Result<(), CommandError>> {
        let driver = self.driver();
        Box::pin(async move { driver.resize(size).await })
    }

    /// A data handle for the calling context; see [`Disk::queue`](crate::block::Disk::queue).
    pub(super) fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        self.driver().queue(ram, slots, segments)
    }

    /// Adds a use, or changes that of the same number, and all that follows from it below. On an
    /// error nothing has changed.
    pub(super) fn add_use(&self, new: Use) -> Result<(), CommandError> {
        let id = new.id;
        let before = {
            let mut state = self.state();
            if let Some(known) = state.uses.iter_mut().find(|known| known.id == id) {
                Some(std::mem::replace(known, new))
            } else {
                state.uses.push(new);
                None
            }
        };
        self.update_access().inspect_err(|_| {
            match before {
                Some(before) => {
                    let mut state = self.state();
                    if let Some(known) = state.uses.iter_mut().find(|known| known.id == id) {
                        *known = before;
                    }
                }
                None => self.state().uses.retain(|known| known.id != id),
            }
            self.relax();
        })
    }

    /// Ends a use.
    pub(super) fn remove_use(&self, id: u64) {
        self.state().uses.retain(|known| known.id != id);
        self.relax();
    }

    /// After access was given up: what is left has been granted before.
    fn relax(&self) {
        if let Err(error) = self.update_access() {
            tracing::warn!(node = self.name, %error, "giving permissions up");
        }
    }

    /// Checks the uses against each other and the image, and passes them on to the children.
    pub(super) fn update_access(&self) -> Result<(), CommandError> {
        let (uses, driver, children) = {
            let state = self.state();
            (state.uses.clone(), Arc::clone(&state.driver), state.children.clone())
        };
        if let Some(text) = conflict(&self.name, &uses) {
            return Err(CommandError::generic(text));
        }
        let access = self.access();
        if driver.info().read_only && access.uses.contains(Permissions::WRITE) {
            return Err(CommandError::generic("Block node is read-only"));
        }
        driver.permit(access)?;
        for child in children {
            let Some(mut known) = child.node.uses().into_iter().find(|known| known.id == child.id)
            else {
                continue;
            };
            known.access = driver.child_access(child.role, access);
            child.node.add_use(known)?;
        }
        Ok(())
    }

    /// Closes the node if nobody keeps it any more: what was written is made stable, locks and
    /// descriptors are given up. Then it gives up its children, which the caller has to
    /// [`unref`](Self::unref) next.
    pub fn unref(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let driver = {
                let mut state = self.state();
                if state.closed || state.monitor_owned || !state.uses.is_empty() {
                    return;
                }
                state.closed = true;
                Arc::clone(&state.driver)
            };
            driver.unused().await;
            if let Err(error) = driver.close().await {
                tracing::warn!(node = self.name, %error, "closing a block node");
            }
            for child in self.children() {
                child.node.remove_use(child.id);
            }
        })
    }
}
