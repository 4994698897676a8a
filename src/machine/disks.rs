//! The drives of the command line: opened before devices are made, found by them by id.

use crate::config::{DriveConfig, Image};
use devices::block;
use devices::block::graph::BlockGraph;
use devices::qdev::DriveTable;
use std::sync::Arc;

/// Opens and locks every image; all or none. Nodes of `block` are found by their names as well.
pub(super) async fn open_all(
    configs: &[DriveConfig],
    block: &Arc<BlockGraph>,
) -> Result<Arc<DriveTable>, String> {
    let drives = DriveTable::over(block);
    for DriveConfig { id, image } in configs {
        let disk = match image {
            Image::File(options) => block::open_file(options.clone())
                .await
                .map_err(|error| format!("-drive: {error}"))?,
            Image::Scratch(size) => {
                block::scratch(*size).await.map_err(|error| format!("the scratch disk: {error}"))?
            }
        };
        drives.add(id, disk).map_err(|error| format!("-drive: {error}"))?;
    }
    Ok(drives)
}
