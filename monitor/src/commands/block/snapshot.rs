//! Snapshots outside an image: `blockdev-snapshot`, `blockdev-snapshot-sync`.

use super::graph;
use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{Command, Registry};
use crate::{qapi_enum, qapi_struct};
use devices::block::graph::NewOverlay;

qapi_enum! {
    /// How a new image comes to be.
    pub enum NewImageMode {
        /// It is there already.
        Existing = "existing",
        /// It is made, and names the image behind it by an absolute path.
        AbsolutePaths = "absolute-paths",
    }
}

qapi_struct! {
    /// A node, and what goes over it.
    pub struct BlockdevSnapshot {
        /// The node.
        pub node: String = "node",
        /// The node that takes its place.
        pub overlay: String = "overlay",
    }
}

qapi_struct! {
    /// A node, and an image that goes over it.
    pub struct BlockdevSnapshotSync {
        /// The drive or device that uses it.
        pub device: Option<String> = "device",
        /// Its name.
        pub node_name: Option<String> = "node-name",
        /// Where the image is, or shall be.
        pub snapshot_file: String = "snapshot-file",
        /// The name of its node; needed where the node is given by its own.
        pub snapshot_node_name: Option<String> = "snapshot-node-name",
        /// Its format; qcow2 when absent.
        pub format: Option<String> = "format",
        /// Whether it is made; so when absent.
        pub mode: Option<NewImageMode> = "mode",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let snapshot = Command::coroutine(
        "blockdev-snapshot",
        "Puts a block node that has nothing behind it in the place of another, which goes behind it.",
        snapshot,
    );
    registry.add(snapshot.features(&["allow-write-only-overlay"]));
    registry.add(Command::coroutine(
        "blockdev-snapshot-sync",
        "Makes an image over a block node, and puts it in the place of that while its guest runs.",
        snapshot_sync,
    ));
}

async fn snapshot(env: Env, asked: BlockdevSnapshot) -> Result<(), QmpError> {
    Ok(graph(&env)?.snapshot(&asked.node, &asked.overlay).await?)
}

pub(crate) async fn snapshot_sync(env: Env, asked: BlockdevSnapshotSync) -> Result<(), QmpError> {
    let overlay = NewOverlay {
        file: asked.snapshot_file.into(),
        node_name: asked.snapshot_node_name,
        format: asked.format.unwrap_or_else(|| "qcow2".to_owned()),
        existing: asked.mode == Some(NewImageMode::Existing),
    };
    let (device, node) = (asked.device.as_deref(), asked.node_name.as_deref());
    Ok(graph(&env)?.snapshot_to(device, node, overlay).await?)
}
