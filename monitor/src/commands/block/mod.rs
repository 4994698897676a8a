//! The block graph: nodes, and the devices that use them.
//!
//! Queries look at what the graph has published and never wait, for I/O least of all. What changes
//! the graph is a coroutine in *main*.

mod image;
pub(crate) mod media;
pub(crate) mod nodes;
mod options;
pub(crate) mod snapshot;
pub(crate) mod stats;
pub(crate) mod throttle;

use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use devices::block::graph::BlockGraph;
use options::BlockdevOptions;
use std::sync::Arc;

qapi_struct! {
    /// Which node.
    pub struct NodeName {
        /// Its name.
        pub node_name: String = "node-name",
    }
}

qapi_struct! {
    /// Other options for nodes.
    pub struct BlockdevReopen {
        /// Of each node all of them: what is not given is as by default.
        pub options: Vec<BlockdevOptions> = "options",
    }
}

qapi_struct! {
    /// The new size of a node.
    pub struct BlockResize {
        /// The drive or device that uses it.
        pub device: Option<String> = "device",
        /// Its name.
        pub node_name: Option<String> = "node-name",
        /// Bytes.
        pub size: i64 = "size",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::coroutine(
        "blockdev-add",
        "Makes a block node, and those that it names as new ones.",
        blockdev_add,
    ));
    registry.add(Command::coroutine(
        "blockdev-del",
        "Deletes a block node that blockdev-add has made and nobody uses. Its image is closed when this returns.",
        blockdev_del,
    ));
    registry.add(Command::coroutine(
        "blockdev-reopen",
        "Gives block nodes other options while their guest runs: all of them, or none where one fails.",
        blockdev_reopen,
    ));
    registry.add(Command::coroutine(
        "block_resize",
        "Changes the size of a block node while its guest runs.",
        block_resize,
    ));
    media::register(registry);
    nodes::register(registry);
    snapshot::register(registry);
    stats::register(registry);
    throttle::register(registry);
}

fn graph(env: &Env) -> Result<Arc<BlockGraph>, QmpError> {
    Ok(Arc::clone(env.machine()?.block()))
}

async fn blockdev_add(env: Env, options: BlockdevOptions) -> Result<(), QmpError> {
    Ok(graph(&env)?.add(options.parse()?).await?)
}

async fn blockdev_del(env: Env, NodeName { node_name }: NodeName) -> Result<(), QmpError> {
    Ok(graph(&env)?.delete(&node_name).await?)
}

async fn blockdev_reopen(
    env: Env,
    BlockdevReopen { options }: BlockdevReopen,
) -> Result<(), QmpError> {
    let options = options.into_iter().enumerate();
    let options: Result<_, _> =
        options.map(|(n, options)| options.parse_at(&format!("options[{n}]"))).collect();
    Ok(graph(&env)?.reopen(options?).await?)
}

async fn block_resize(env: Env, asked: BlockResize) -> Result<(), QmpError> {
    let BlockResize { device, node_name, size } = asked;
    Ok(graph(&env)?.resize(device.as_deref(), node_name.as_deref(), size).await?)
}
