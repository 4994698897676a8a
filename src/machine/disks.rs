//! The block nodes and drives of the command line: made before devices are, found by them by name.

use crate::config::{DriveConfig, NodeConfig};
use devices::block::graph::BlockGraph;

/// Makes the nodes, then the drives, in order. The error is one line for the user.
pub(super) async fn open_all(
    nodes: &[NodeConfig],
    drives: &[DriveConfig],
    block: &BlockGraph,
) -> Result<(), String> {
    for NodeConfig { option, options } in nodes {
        block.add(options.clone()).await.map_err(|error| format!("{option}: {error}"))?;
    }
    for DriveConfig { option, id, drive } in drives {
        drive.open(block, id).await.map_err(|error| format!("{option}: {error}"))?;
    }
    Ok(())
}
