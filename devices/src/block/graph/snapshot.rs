//! Snapshots: an image becomes what is behind another one, its overlay, which takes its place
//! (`blockdev-snapshot`, `blockdev-snapshot-sync`). The texts are QEMU's.
//!
//! ```text
//!   device ──▶ raw ──▶ "disk"     becomes     device ──▶ raw ──▶ overlay ──backing──▶ "disk" (read-only)
//! ```
//! The overlay is made, and opened with nothing behind it, while requests go on. Those are held off only
//! while it is opened over its new backing image and users go over to it.

use super::BlockGraph;
use super::change::{cannot_find, not_behind};
use super::create::{NewImage, NewQcow2, Preallocation};
use super::drain::Drained;
use super::node::{Child, Node};
use super::options::{Backing, DriverOptions, Options, Reference};
use super::permissions::Permissions;
use super::probe::choose_drivers;
use super::reopen::{Move, Plan, Plans, retire, tell_sizes};
use crate::block::Disk;
use crate::error::CommandError;
use crate::text::system_error;
use std::path::PathBuf;
use std::sync::Arc;

fn generic(text: impl Into<String>) -> CommandError {
    CommandError::generic(text)
}

/// The overlay that `blockdev-snapshot-sync` makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOverlay {
    /// Where its image is, or shall be.
    pub file: PathBuf,
    /// The name of its node, or a generated one.
    pub node_name: Option<String>,
    /// Its format.
    pub format: String,
    /// The image is there already.
    pub existing: bool,
}

impl BlockGraph {
    /// Puts the node `overlay`, which nobody reads and that has no backing image, in the place of `node`
    /// and `node` behind it (`blockdev-snapshot`). On an error nothing has changed. In `main`.
    pub async fn snapshot(&self, node: &str, overlay: &str) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        let contents = self.contents();
        let node = contents.look_up(Some(node), Some(node))?;
        not_behind(&node)?;
        let overlay = contents.look_up(Some(overlay), Some(overlay))?;
        drop(contents);
        self.append(&node, &overlay).await
    }

    /// The same with an image that is made for it, unless it is there already
    /// (`blockdev-snapshot-sync`).
    pub async fn snapshot_to(
        &self,
        device: Option<&str>,
        node: Option<&str>,
        overlay: NewOverlay,
    ) -> Result<(), CommandError> {
        let _alone = self.changing.lock().await;
        let by_device = device.is_some_and(|name| self.contents().backend(name).is_some());
        if !by_device && node.is_none() {
            return Err(cannot_find(device.unwrap_or(""), ""));
        }
        let node = self.contents().look_up(device, node)?;
        not_behind(&node)?;
        match &overlay.node_name {
            None if !by_device => return Err(generic("New overlay node-name missing")),
            Some(name) if self.contents().look_up(Some(name), Some(name)).is_ok() => {
                return Err(generic("New overlay node-name already in use"));
            }
            _ => {}
        }
        if !overlay.existing {
            let new = overlay.image(&node)?;
            self.create_image(&overlay.file, new).await?;
        }
        let mut options = overlay.options(&node)?;
        choose_drivers(&mut options).await;
        let overlay = self.open(options).await?;
        let result = self.append(&node, &overlay).await;
        // Where no device uses it, nobody does.
        self.drop_node(overlay).await;
        result
    }

    async fn append(&self, node: &Arc<Node>, overlay: &Arc<Node>) -> Result<(), CommandError> {
        check_overlay(node, overlay)?;
        let contents = self.contents();
        let mut above = contents.above(node);
        above.extend(contents.above(overlay));
        above.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let moves = above.iter().filter_map(|backend| {
            let root = backend.root().filter(|root| Arc::ptr_eq(root, node))?;
            let entry = root.uses().into_iter().find(|entry| entry.id == backend.use_id)?;
            Some(Move { backend: Arc::clone(backend), to: Some(Arc::clone(overlay)), entry })
        });
        let moves: Vec<_> = moves.collect();
        let plans = self.appended(node, overlay);
        drop(contents);
        let sizes: Vec<_> = above.iter().map(|backend| backend.size()).collect();
        let drained = Drained::begin(above).await;
        let (result, mut closing) = self.carry_out(plans, moves, drained.backends()).await;
        if result.is_ok() {
            // Nobody writes to it from now on; others may rely on that. What cannot be opened so
            // stays as it is.
            let mut plans = Plans::new(self);
            let options = Options { read_only: Some(true), ..node.options() };
            if !node.info().read_only && plans.add(node, options).is_ok() {
                let (kept, more) =
                    self.carry_out(plans.sorted(), Vec::new(), drained.backends()).await;
                if let Err(error) = kept {
                    tracing::debug!(node = node.name(), %error, "it stays open for writing");
                }
                closing.extend(more);
            }
        }
        tell_sizes(drained.backends(), &sizes);
        drop(drained);
        retire(closing).await;
        result
    }

    /// The overlay with `node` behind it, and those that use `node` with the overlay.
    fn appended(&self, node: &Arc<Node>, overlay: &Arc<Node>) -> Vec<Plan> {
        let behind = Child { role: "backing", node: Arc::clone(node), id: self.number() };
        let mut options = overlay.options();
        if let DriverOptions::Qcow2 { backing, .. } = &mut options.driver {
            *backing = Backing::Node(Reference::Name(node.name().to_owned()));
        }
        let mut children = overlay.children();
        children.push(behind);
        let mut plans = Plans::new(self);
        plans.push(Plan { node: Arc::clone(overlay), options, children });
        for user in self.contents().nodes.iter().filter(|user| !overlay.reaches(user)) {
            let (mut options, mut children) = (user.options(), user.children());
            let mut changed = false;
            for child in children.iter_mut().filter(|child| Arc::ptr_eq(&child.node, node)) {
                let name = overlay.name().to_owned();
                options.driver.set_child(child.role, Reference::Name(name));
                *child = Child { node: Arc::clone(overlay), id: self.number(), role: child.role };
                changed = true;
            }
            if changed {
                plans.push(Plan { node: Arc::clone(user), options, children });
            }
        }
        plans.sorted()
    }
}

/// Whether a node can be put in the place of another.
fn check_overlay(node: &Arc<Node>, overlay: &Arc<Node>) -> Result<(), CommandError> {
    if overlay.access().uses.contains(Permissions::CONSISTENT_READ) {
        return Err(generic("The overlay is already in use"));
    }
    match overlay.options().driver {
        DriverOptions::Throttle { .. } | DriverOptions::Blkdebug { .. } => {
            return Err(generic("Filters cannot be used as overlays"));
        }
        DriverOptions::Qcow2 { .. } => {}
        _ => return Err(generic("The overlay does not support backing images")),
    }
    if overlay.children().iter().any(|child| child.role == "backing") {
        return Err(generic("The overlay already has a backing image"));
    }
    if node.reaches(overlay) {
        let (node, overlay) = (node.name(), overlay.name());
        let text = format!("Making '{node}' a backing child of '{overlay}' would create a cycle");
        return Err(generic(text));
    }
    Ok(())
}

impl NewOverlay {
    /// The image to be made, over `node`.
    fn image(&self, node: &Node) -> Result<NewImage, CommandError> {
        match self.format.as_str() {
            "qcow2" => {}
            "raw" => return Err(generic("Backing file not supported for file format 'raw'")),
            "vmdk" => return Err(generic("vmdk images can only be read here")),
            other => return Err(generic(format!("Unknown file format '{other}'"))),
        }
        let name = node.filename();
        if self.file.to_str() == Some(name.as_str()) {
            let text =
                "Error: Trying to create an image with the same filename as the backing file";
            return Err(generic(text));
        }
        // The overlay may be elsewhere.
        let name = if name.starts_with("json:") {
            name
        } else {
            let path = std::path::absolute(&name);
            let path =
                path.map_err(|error| generic(format!("'{name}': {}", system_error(&error))))?;
            path.display().to_string()
        };
        let format = node.options().driver.driver().to_owned();
        Ok(NewImage::Qcow2(NewQcow2 {
            size: node.size(),
            cluster_size: NewQcow2::CLUSTER_SIZE,
            refcount_bits: NewQcow2::REFCOUNT_BITS,
            backing: Some((name, format)),
            preallocation: Preallocation::Off,
        }))
    }

    /// How it is opened: as `node` is, with nothing behind it yet.
    fn options(&self, node: &Node) -> Result<Options, CommandError> {
        let filename = self.file.clone();
        let driver = DriverOptions::file(filename);
        let file = Reference::New(Box::new(Options::new(driver)));
        let driver = match self.format.as_str() {
            "qcow2" => DriverOptions::Qcow2 { file, backing: Backing::None },
            "raw" => DriverOptions::raw(file),
            "vmdk" => DriverOptions::Vmdk { file },
            other => return Err(generic(format!("Unknown driver '{other}'"))),
        };
        let like = node.options();
        Ok(Options {
            node_name: self.node_name.clone(),
            read_only: like.read_only,
            direct: like.direct,
            no_flush: like.no_flush,
            discard: like.discard,
            ..Options::new(driver)
        })
    }
}
