//! The block nodes and drives of the command line: made before devices are, found by them by name.
//! What is done when their requests fail.

use super::requests::Requests;
use crate::config::{DriveConfig, NodeConfig};
use devices::block::graph::{BlockGraph, ErrorAction};
use monitor::EventSink;
use monitor::event::{BlockIoError, DeviceTrayMoved};
use std::sync::Arc;

/// Has clients told of requests that fail, and the guest stopped where it is to be.
pub(super) fn tell_errors(block: &BlockGraph, events: EventSink, requests: Arc<Requests>) {
    block.on_io_error(Box::new(move |error| {
        events.emit(&BlockIoError::new(error));
        if error.action == ErrorAction::Stop {
            requests.io_error();
        }
    }));
}

/// Has clients told of trays that move.
pub(super) fn tell_trays(block: &BlockGraph, events: EventSink) {
    block.on_tray_moved(Box::new(move |moved| {
        events.emit(&DeviceTrayMoved::new(moved));
    }));
}

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
