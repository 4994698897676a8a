//! The machine's device tree, and the devices of the command line.

use crate::config::{DeviceConfig, ObjectConfig};
use devices::board::Board;
use devices::objects::Objects;
use devices::qdev::{DeviceTree, DriveTable, PciBus, Resources, TreeConfig, Types};
use monitor::EventSink;
use reactor::{Context, Reactors};
use std::sync::Arc;
use vcpu::irq::Platform;
use vcpu::memory::Ram;

/// Where the root bus is in the object tree.
const ROOT_BUS: &str = "/machine/i440fx/pci.0";

/// What a tree is made for.
pub(super) struct Parts<'a> {
    pub(super) reactors: &'a Reactors,
    pub(super) board: &'a Board,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) ram: Arc<Ram>,
    pub(super) cpus: u32,
    pub(super) drives: Arc<DriveTable>,
    pub(super) objects: Arc<Objects>,
    pub(super) events: EventSink,
}

/// The empty tree; what the guest ejects is taken out of it in `main`.
pub(super) fn tree(parts: Parts<'_>) -> DeviceTree {
    let Parts { reactors, board, platform, ram, cpus, drives, objects, events } = parts;
    let main = reactors.main().clone();
    let root = PciBus::root(&board.pci, board.hotplug.clone(), ROOT_BUS);
    let cores = reactors.cores().to_vec();
    let tree = DeviceTree::new(TreeConfig {
        main: main.clone(),
        resources: Resources { platform, ram, cores, cpus, drives, objects },
        root,
        types: Types::new(),
        events: Arc::new(events),
    });
    // Weak: the tree's bus has the registers.
    let ejecting = tree.downgrade();
    board.hotplug.connect(Box::new(move |slots| {
        let ejecting = ejecting.clone();
        main.schedule_named_bh("pci eject", move || {
            if let Some(tree) = ejecting.upgrade() {
                tree.ejected(slots);
            }
        });
    }));
    tree
}

/// Makes the objects of the command line, in order. The error is one line for the user.
pub(super) async fn make_objects(
    cores: &[Context],
    configs: &[ObjectConfig],
) -> Result<Arc<Objects>, String> {
    let objects = Objects::new(cores);
    for ObjectConfig { option, arguments, syntax } in configs {
        let made = objects.add(arguments, *syntax).await;
        made.map_err(|error| format!("{option}: {error}"))?;
    }
    Ok(objects)
}

/// Makes the devices of the command line, in order. The error is one line for the user.
pub(super) async fn plug_all(tree: &DeviceTree, devices: &[DeviceConfig]) -> Result<(), String> {
    for DeviceConfig { option, request } in devices {
        tree.add(request, false).await.map_err(|error| format!("{option}: {error}"))?;
    }
    Ok(())
}
