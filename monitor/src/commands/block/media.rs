//! Media and trays: `eject`, `blockdev-change-medium` and the steps that they are made of.

use super::graph;
use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{Command, Registry};
use crate::{qapi_enum, qapi_struct};
use devices::block::graph::{BlockGraph, Device, DriveOptions};
use std::sync::Arc;

qapi_enum! {
    /// Whether a new medium may be written to.
    pub enum BlockdevChangeReadOnlyMode {
        /// As the one before.
        Retain = "retain",
        /// It may not.
        ReadOnly = "read-only",
        /// It may.
        ReadWrite = "read-write",
    }
}

qapi_struct! {
    /// A device whose tray is to open.
    pub struct BlockdevOpenTray {
        /// The drive.
        pub device: Option<String> = "device",
        /// The id or path of the device.
        pub id: Option<String> = "id",
        /// Even where the guest has locked it.
        pub force: Option<bool> = "force",
    }
}

qapi_struct! {
    /// A device whose tray is to close.
    pub struct BlockdevCloseTray {
        /// The drive.
        pub device: Option<String> = "device",
        /// The id or path of the device.
        pub id: Option<String> = "id",
    }
}

qapi_struct! {
    /// A device whose medium is taken out.
    pub struct BlockdevRemoveMedium {
        /// The id or path of the device.
        pub id: String = "id",
    }
}

qapi_struct! {
    /// A medium for a device.
    pub struct BlockdevInsertMedium {
        /// The id or path of the device.
        pub id: String = "id",
        /// The node.
        pub node_name: String = "node-name",
    }
}

qapi_struct! {
    /// Another medium for a device.
    pub struct BlockdevChangeMedium {
        /// The drive.
        pub device: Option<String> = "device",
        /// The id or path of the device.
        pub id: Option<String> = "id",
        /// Its path.
        pub filename: String = "filename",
        /// Its format; raw when absent.
        pub format: Option<String> = "format",
        /// Even where the guest has locked the tray.
        pub force: Option<bool> = "force",
        /// Whether it may be written to.
        pub read_only_mode: Option<BlockdevChangeReadOnlyMode> = "read-only-mode",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::coroutine(
        "eject",
        "Opens the tray of a device and takes the medium out.",
        eject,
    ));
    registry.add(Command::coroutine(
        "blockdev-open-tray",
        "Opens the tray of a device. Where the guest has locked it, and force is not given, the guest is asked to.",
        open_tray,
    ));
    registry.add(Command::coroutine(
        "blockdev-close-tray",
        "Closes the tray of a device.",
        close_tray,
    ));
    registry.add(Command::coroutine(
        "blockdev-remove-medium",
        "Takes the medium out of a device whose tray is open.",
        remove_medium,
    ));
    registry.add(Command::coroutine(
        "blockdev-insert-medium",
        "Puts a block node into a device whose tray is open and empty.",
        insert_medium,
    ));
    registry.add(Command::coroutine(
        "blockdev-change-medium",
        "Puts an image into a device in the place of its medium.",
        change_medium,
    ));
}

fn find(
    env: &Env,
    device: Option<&str>,
    id: Option<&str>,
) -> Result<(Arc<BlockGraph>, Device), QmpError> {
    let graph = graph(env)?;
    let device = graph.contents().device(device, id)?;
    Ok((graph, device))
}

pub(crate) async fn eject(env: Env, asked: BlockdevOpenTray) -> Result<(), QmpError> {
    let (graph, device) = find(&env, asked.device.as_deref(), asked.id.as_deref())?;
    Ok(graph.eject(&device, asked.force == Some(true)).await?)
}

async fn open_tray(env: Env, asked: BlockdevOpenTray) -> Result<(), QmpError> {
    let (_, device) = find(&env, asked.device.as_deref(), asked.id.as_deref())?;
    Ok(device.open_tray(asked.force == Some(true))?)
}

async fn close_tray(env: Env, asked: BlockdevCloseTray) -> Result<(), QmpError> {
    let (_, device) = find(&env, asked.device.as_deref(), asked.id.as_deref())?;
    Ok(device.close_tray()?)
}

async fn remove_medium(env: Env, asked: BlockdevRemoveMedium) -> Result<(), QmpError> {
    let (graph, device) = find(&env, None, Some(&asked.id))?;
    Ok(graph.remove_medium(&device).await?)
}

async fn insert_medium(env: Env, asked: BlockdevInsertMedium) -> Result<(), QmpError> {
    let (graph, device) = find(&env, None, Some(&asked.id))?;
    Ok(graph.insert_medium(&device, &asked.node_name).await?)
}

pub(crate) async fn change_medium(env: Env, asked: BlockdevChangeMedium) -> Result<(), QmpError> {
    let (graph, device) = find(&env, asked.device.as_deref(), asked.id.as_deref())?;
    let read_only = match asked.read_only_mode {
        None | Some(BlockdevChangeReadOnlyMode::Retain) => device.backend.medium_read_only(),
        Some(BlockdevChangeReadOnlyMode::ReadOnly) => true,
        Some(BlockdevChangeReadOnlyMode::ReadWrite) => false,
    };
    let options = DriveOptions::medium(&asked.filename, asked.format.as_deref(), read_only)?;
    Ok(graph.change_medium(&device, options, asked.force == Some(true)).await?)
}
