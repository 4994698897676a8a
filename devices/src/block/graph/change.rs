//! Adding, removing and resizing nodes. All in `main`, one change at a time.

use super::drivers::{self, Driver};
use super::implied;
use super::lock::Writer;
use super::node::{Child, Node};
use super::options::{Options, Reference};
use super::permissions::{Access, Permissions, Use, User};
use super::{BlockGraph, Contents, Nodes};
use crate::block::BoxFuture;
use crate::error::CommandError;
use crate::text::is_identifier;
use std::collections::HashSet;
use std::sync::Arc;

/// The error for a name that is neither a device's nor a node's.
pub(super) fn cannot_find(device: &str, node: &str) -> CommandError {
    CommandError::generic(format!("Cannot find device='{device}' nor node-name='{node}'"))
}

/// Nodes that one command makes at most.
const NODES_MAX: usize = 400;

impl BlockGraph {
    /// Makes a node that the monitor owns, and those that it names as new ones (`blockdev-add`).
    pub async fn add(&self, options: Options) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        if options.node_name.is_none() {
            let text = "'node-name' must be specified for the root node";
            return Err(CommandError::generic(text));
        }
        let node = self.open(options).await?;
        node.set_monitor_owned(true);
        Ok(())
    }

    /// Opens a node and those that it names as new ones, and adds them. It has no user yet.
    pub(super) async fn open(&self, options: Options) -> Result<Arc<Node>, CommandError> {
        let mut made = Vec::new();
        let result = match self.make(options, &mut made).await {
            Ok(root) => self.commit(&made).await.map(|()| root),
            Err(error) => Err(error),
        };
        if result.is_err() {
            for node in made.into_iter().rev() {
                node.unref().await;
            }
        }
        result
    }

    /// Opens a node, with what it uses, into `made`: children first.
    fn make<'a>(
        &'a self,
        options: Options,
        made: &'a mut Vec<Arc<Node>>,
    ) -> BoxFuture<'a, Result<Arc<Node>, CommandError>> {
        Box::pin(async move {
            let name = self.check_name(&options, made)?;
            let mut options = options;
            let mut children = Vec::new();
            self.make_children(&options, &mut children, made).await?;
            if implied::settle(&mut options, &children).await? {
                self.make_children(&options, &mut children, made).await?;
            }
            for (role, child) in implied::children(&options, &children).await? {
                if made.len() >= NODES_MAX {
                    let text = "the files of this image refer to each other in a circle";
                    return Err(CommandError::generic(text));
                }
                let node = self.make(child, made).await?;
                children.push(Child { role, node, id: self.number() });
            }
            let driver = self.open_over(&name, &options, &children).await?;
            let node = Node::new(name, driver, options, children);
            made.push(Arc::clone(&node));
            Ok(node)
        })
    }

    /// Makes the children that options name, and that are not there yet.
    async fn make_children(
        &self,
        options: &Options,
        children: &mut Vec<Child>,
        made: &mut Vec<Arc<Node>>,
    ) -> Result<(), CommandError> {
        for (role, reference) in options.driver.children() {
            if children.iter().any(|child| child.role == role) {
                continue;
            }
            let node = match reference {
                Reference::Name(name) => self.named(name)?,
                Reference::New(child) => self.make(child.for_parent(options), made).await?,
            };
            children.push(Child { role, node, id: self.number() });
        }
        Ok(())
    }

    /// Opens a node over children that are its own from here on.
    async fn open_over(
        &self,
        name: &str,
        options: &Options,
        children: &[Child],
    ) -> Result<Arc<dyn Driver>, CommandError> {
        let claim = |child: &Child| {
            let access = drivers::first_access(options, child.role, &child.node);
            let by = User::Node(name.to_owned());
            child.node.add_use(Use { id: child.id, by, role: child.role, access })
        };
        let opened = match children.iter().try_for_each(claim) {
            Ok(()) => drivers::open(options, children, self).await,
            Err(error) => Err(error),
        };
        if opened.is_err() {
            for child in children {
                child.node.remove_use(child.id);
            }
        }
        opened
    }

    fn check_name(&self, options: &Options, made: &[Arc<Node>]) -> Result<String, CommandError> {
        let Some(name) = &options.node_name else { return Ok(self.generated_name()) };
        let contents = self.contents();
        let text = if !is_identifier(name) {
            format!("Invalid node-name: '{name}'")
        } else if contents.backends.iter().any(|backend| backend.owner().drive == *name) {
            format!("node-name={name} is conflicting with a device id")
        } else if contents.node(name).is_some() || made.iter().any(|node| node.name() == name) {
            format!("Duplicate nodes with node-name='{name}'")
        } else {
            return Ok(name.clone());
        };
        Err(CommandError::generic(text))
    }

    /// The node of this name, or the root of this drive.
    pub(super) fn named(&self, name: &str) -> Result<Arc<Node>, CommandError> {
        let contents = self.contents();
        let of_drive = || contents.backend(name).and_then(|backend| backend.root());
        of_drive().or_else(|| contents.node(name).cloned()).ok_or_else(|| cannot_find(name, name))
    }

    /// Connects opened nodes with their children and adds them.
    async fn commit(&self, made: &[Arc<Node>]) -> Result<(), CommandError> {
        let mut writer = self.lock.write().await;
        let result = made.iter().try_for_each(connect);
        match result {
            Ok(()) => writer.0.extend(made.iter().cloned()),
            // A use that was not made is not missed.
            Err(_) => made.iter().for_each(disconnect),
        }
        self.publish(&writer);
        writer.unlock().await;
        result
    }

    /// Deletes a node that the monitor owns and nobody uses (`blockdev-del`). Its image is closed
    /// when this returns.
    pub async fn delete(&self, name: &str) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        let mut writer = self.lock.write().await;
        let result = writer.node(name).cloned();
        let result = result.ok_or_else(|| format!("Failed to find node with node-name='{name}'"));
        // Nothing is awaited between the check and the change.
        let result = result.and_then(|node| match why_kept(&node) {
            Some(text) => Err(text),
            None => Ok(node),
        });
        if let Ok(node) = &result {
            node.set_monitor_owned(false);
            drop_unused(&mut writer, node);
            self.publish(&writer);
        }
        let result = result.map(drop);
        writer.unlock().await;
        result.map_err(CommandError::generic)
    }

    /// Changes the size of a node, or of a drive's, while requests go on before and after
    /// (`block_resize`). Devices above are told.
    pub async fn resize(
        &self,
        device: Option<&str>,
        node: Option<&str>,
        size: i64,
    ) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        let node = self.contents().look_up(device, node)?;
        let size = u64::try_from(size)
            .map_err(|_| CommandError::generic("Parameter 'size' expects a >0 size"))?;
        if node.info().read_only {
            return Err(CommandError::generic("Image is read-only"));
        }
        let id = self.number();
        let access = Access { uses: Permissions::RESIZE, shares: Permissions::ALL };
        node.add_use(Use { id, by: User::Device(String::new()), role: "root", access })?;
        let drained = self.drain(&node).await;
        let result = node.resize(size).await;
        node.remove_use(id);
        for backend in drained.backends() {
            backend.size_changed();
        }
        result
    }
}

impl Contents {
    /// The node that a command means by `device` and `node-name`.
    pub fn look_up(
        &self,
        device: Option<&str>,
        node: Option<&str>,
    ) -> Result<Arc<Node>, CommandError> {
        if let Some((name, backend)) = device.and_then(|name| Some((name, self.backend(name)?))) {
            let empty = || CommandError::generic(format!("Device '{name}' has no medium"));
            return backend.root().ok_or_else(empty);
        }
        let found = node.and_then(|name| self.node(name).cloned());
        found.ok_or_else(|| cannot_find(device.unwrap_or(""), node.unwrap_or("")))
    }
}

/// Why the monitor may not delete a node.
fn why_kept(node: &Node) -> Option<String> {
    let (name, uses) = (node.name(), node.uses());
    if uses.iter().any(|one| matches!(one.by, User::Device(_))) {
        Some(format!("Node {name} is in use"))
    } else if let Err(error) = not_behind(node) {
        Some(error.text)
    } else if !node.is_monitor_owned() {
        Some(format!("Node {name} is not owned by the monitor"))
    } else if !uses.is_empty() {
        Some(format!("Block device {name} is in use"))
    } else {
        None
    }
}

/// Fails where a node is behind another image: that is not changed from below.
pub(super) fn not_behind(node: &Node) -> Result<(), CommandError> {
    let above = node.uses().into_iter().find(|one| one.role == "backing");
    match above.map(|one| one.by) {
        Some(User::Node(above)) => Err(CommandError::generic(format!(
            "Node '{}' is busy: node is used as backing hd of '{above}'",
            node.name()
        ))),
        _ => Ok(()),
    }
}

/// Enters a node among the users of its children.
pub(super) fn connect(node: &Arc<Node>) -> Result<(), CommandError> {
    let children = node.children();
    children.iter().try_for_each(|child| connect_child(node, child))
}

/// Enters a node among the users of one child.
pub(super) fn connect_child(node: &Node, child: &Child) -> Result<(), CommandError> {
    let access = node.driver().child_access(child.role, node.access());
    let by = User::Node(node.name().to_owned());
    child.node.add_use(Use { id: child.id, by, role: child.role, access })
}

fn disconnect(node: &Arc<Node>) {
    for child in node.children() {
        child.node.remove_use(child.id);
    }
}

/// Takes `node` out if nobody keeps it, and all below it that nobody else keeps; they are closed
/// after the unlock, each before what it uses.
pub(super) fn drop_unused(writer: &mut Writer<'_, Nodes>, node: &Arc<Node>) {
    if !node.is_unused() {
        return;
    }
    let mut going = vec![Arc::clone(node)];
    let mut edges = HashSet::new();
    let mut n = 0;
    while let Some(node) = going.get(n).cloned() {
        let children = node.children();
        edges.extend(children.iter().map(|child| child.id));
        for child in children {
            let kept = child.node.is_monitor_owned()
                || child.node.uses().iter().any(|one| !edges.contains(&one.id));
            if !kept && !going.iter().any(|known| Arc::ptr_eq(known, &child.node)) {
                going.push(child.node);
            }
        }
        n += 1;
    }
    writer.0.retain(|node| !going.iter().any(|known| Arc::ptr_eq(known, node)));
    for node in going {
        writer.schedule_unref(node);
    }
}
