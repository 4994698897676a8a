//! The machine's device tree, and the devices of the command line.

use crate::config::{Config, DeviceConfig, MachineType, NetdevConfig, ObjectConfig};
use devices::block::graph::BlockGraph;
use devices::board::Board;
use devices::chardev::Chardevs;
use devices::clock::Clock;
use devices::fdset::FdSets;
use devices::net::Network;
use devices::objects::Objects;
use devices::qdev::{DeviceTree, PciBus, Resources, TreeConfig, Types, system_bus};
use devices::virtio::balloon::BalloonSlot;
use monitor::EventSink;
use reactor::{Context, Reactors};
use std::sync::Arc;
use vcpu::irq::Platform;
use vcpu::memory::Ram;

/// Where the root bus is in the object tree.
const ROOT_BUS: &str = "/machine/i440fx/pci.0";

/// What a tree is made for.
pub(super) struct Parts<'a> {
    pub(super) machine: MachineType,
    pub(super) reactors: &'a Reactors,
    pub(super) board: &'a Board,
    pub(super) platform: Arc<dyn Platform>,
    pub(super) ram: Arc<Ram>,
    pub(super) cpus: u32,
    pub(super) block: Arc<BlockGraph>,
    pub(super) objects: Arc<Objects>,
    pub(super) network: Arc<Network>,
    pub(super) chardevs: Chardevs,
    pub(super) ram_size: u64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: EventSink,
}

/// The empty tree; what the guest ejects is taken out of it in `main`.
pub(super) fn tree(parts: Parts<'_>) -> DeviceTree {
    let Parts { reactors, board, platform, ram, cpus, block, objects, network, .. } = parts;
    let Parts { machine, chardevs, ram_size, clock, events, .. } = parts;
    let main = reactors.main().clone();
    let root = match machine {
        MachineType::Pc => PciBus::root(&board.pci, board.hotplug.clone(), ROOT_BUS),
        MachineType::None => system_bus(),
    };
    let cores = reactors.cores().to_vec();
    let resources = Resources {
        platform,
        ram,
        cores,
        cpus,
        block,
        objects,
        network,
        chardevs,
        balloon: Arc::new(BalloonSlot::new(ram_size, events.balloon(), Arc::clone(&clock))),
        clock,
        port_opened: events.ports(),
    };
    let tree = DeviceTree::new(TreeConfig {
        main: main.clone(),
        resources,
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
    fdsets: &FdSets,
    block: &BlockGraph,
    config: &Config,
) -> Result<Arc<Objects>, String> {
    let objects = Objects::in_machine(
        cores,
        fdsets.clone(),
        config.memory_backend.clone(),
        Arc::clone(block.throttle_groups()),
    );
    for ObjectConfig { option, arguments, syntax } in &config.objects {
        let made = objects.add(arguments, *syntax).await;
        made.map_err(|error| format!("{option}: {error}"))?;
    }
    Ok(objects)
}

/// Makes the network back ends of the command line, in order. The error is one line for the user.
pub(super) fn make_netdevs(
    reactors: &Reactors,
    events: &EventSink,
    configs: Vec<NetdevConfig>,
) -> Result<Arc<Network>, String> {
    let network = Network::new(reactors.iohandler(), events.network());
    for NetdevConfig { option, id, options, descriptors } in configs {
        let descriptor = |name: &str| {
            let found = descriptors.iter().find(|(known, _)| known == name);
            found
                .map(|(_, fd)| fd.clone())
                .ok_or_else(|| format!("File descriptor named '{name}' has not been found"))
        };
        let made = network.add(&id, options, &descriptor);
        made.map_err(|error| format!("{option}: {error}"))?;
    }
    Ok(network)
}

/// Makes the devices of the command line, in order. The error is one line for the user.
pub(super) async fn plug_all(tree: &DeviceTree, devices: &[DeviceConfig]) -> Result<(), String> {
    for DeviceConfig { option, request } in devices {
        tree.add(request, false).await.map_err(|error| format!("{option}: {error}"))?;
    }
    Ok(())
}
