//! A machine with a device tree, no guest, and a hand for it.

mod add;
mod properties;
mod qom;
mod readers;
mod remove;
mod root_port;
mod scsi;
mod virtio;

use super::*;
use crate::CommandError;
use crate::acpi::{AcpiPm, PciHotplug};
use crate::block::graph::{BlockGraph, DriveOptions};
use crate::chardev::Chardevs;
use crate::clock::HostClock;
use crate::net::Network;
use crate::objects::Objects;
use crate::test_platform::{TestClock, TestLine};
use crate::virtio::balloon::BalloonSlot;
use crate::virtio::testing::TestMachine;
use reactor::Reactors;
use reactor::sync::Notify;
use serde_json::{Map, Value, json};
use std::any::Any;
use std::sync::{Arc, Mutex};
use vcpu::bus::BusDevice;

/// What was said about devices: `deleted ID PATH`.
#[derive(Default)]
pub(super) struct Log {
    lines: Mutex<Vec<String>>,
    changed: Notify,
}

impl Log {
    fn push(&self, what: &str, id: Option<&str>, path: &str) {
        self.lines.lock().unwrap().push(format!("{what} {} {path}", id.unwrap_or("-")));
        self.changed.notify_all();
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    /// Waits until something was said, and takes it.
    pub(super) async fn next(&self) -> Vec<String> {
        loop {
            let changed = self.changed.notified();
            let lines = self.take();
            if !lines.is_empty() {
                return lines;
            }
            changed.await;
        }
    }
}

impl TreeEvents for Log {
    fn deleted(&self, id: Option<&str>, path: &str) {
        self.push("deleted", id, path);
    }

    fn unplug_refused(&self, id: Option<&str>, path: &str) {
        self.push("refused", id, path);
    }
}

/// A controller with a bus of its own, whose devices go at once; and a device for it.
pub(super) static CONTROLLER: DeviceType = DeviceType {
    name: "test-controller",
    alias: None,
    parent: "pci-device",
    category: "Misc",
    bus: "PCI",
    description: Some("a bus for tests"),
    properties: &[PCI_PROPERTIES],
    realize: |setup| Box::pin(std::future::ready(Ok(controller(&setup)))),
};

pub(super) static LEAF: DeviceType = DeviceType {
    name: "test-leaf",
    alias: None,
    parent: "device",
    category: "Misc",
    bus: "TEST",
    description: None,
    properties: &[],
    realize: |_| Box::pin(async { Ok(Arc::new(Leaf) as Arc<dyn Realized>) }),
};

struct Leaf;

impl Realized for Leaf {
    fn unrealize(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct AtOnce;

impl BusKind for AtOnce {
    fn plug(&self, bus: &Bus, _: &Device) -> Result<u32, CommandError> {
        Ok(bus.len() as u32)
    }

    fn request_unplug(&self, _: &Device) -> Result<Unplug, CommandError> {
        Ok(Unplug::Now)
    }

    fn unplug(&self, _: &Device) {}
}

struct Controller {
    function: Arc<crate::pci::Function>,
    buses: Vec<Arc<Bus>>,
}

struct Nothing;

impl crate::pci::PciDevice for Nothing {}

fn controller(setup: &Setup<'_>) -> Arc<dyn Realized> {
    use crate::pci::{Function, FunctionSpec, Identity};
    let identity =
        Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
    let function = Function::new(setup.name, FunctionSpec::new(identity), Arc::new(Nothing));
    let path = format!("{}/{}.0", setup.path, setup.name);
    let bus = Bus::new(format!("{}.0", setup.name), "TEST", path, Box::new(AtOnce));
    Arc::new(Controller { function, buses: vec![bus] })
}

impl Realized for Controller {
    fn function(&self) -> Option<&Arc<crate::pci::Function>> {
        Some(&self.function)
    }

    fn buses(&self) -> &[Arc<Bus>] {
        &self.buses
    }

    fn unrealize(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(super) struct Rig {
    pub(super) machine: Arc<TestMachine>,
    pub(super) tree: DeviceTree,
    pub(super) block: Arc<BlockGraph>,
    pub(super) hotplug: Arc<PciHotplug>,
    pub(super) log: Arc<Log>,
}

impl Rig {
    /// Drives d0 to d3, and nothing plugged in.
    pub(super) async fn new(reactors: &Reactors) -> Self {
        let machine = TestMachine::new();
        let block = BlockGraph::new(reactors);
        for n in 0..4 {
            add_drive(&block, &format!("d{n}")).await;
        }
        let (sci, clock) = (Arc::<TestLine>::default(), Arc::<TestClock>::default());
        let hotplug = PciHotplug::new(AcpiPm::new(sci, clock, Arc::new(|_| ())));
        let root = PciBus::root(&machine.root, hotplug.clone(), "/machine/pci.0");
        let log = Arc::<Log>::default();
        let (chardevs, opened) = (Chardevs::new(reactors.iohandler(), || {}), Arc::clone(&log));
        let tree = DeviceTree::new(TreeConfig {
            main: reactors.main().clone(),
            resources: Resources {
                platform: machine.platform.clone(),
                ram: Arc::clone(&machine.ram),
                cores: reactors.cores().to_vec(),
                cpus: 2,
                clock: Arc::new(HostClock::new()),
                block: Arc::clone(&block),
                objects: Objects::new(reactors.cores()),
                network: Network::new(reactors.iohandler(), Arc::new(|_| ())),
                chardevs: chardevs.clone(),
                balloon: Arc::new(BalloonSlot::new(
                    1 << 27,
                    Arc::new(|_| ()),
                    Arc::new(HostClock::new()),
                )),
                port_opened: Arc::new(move |id, open| {
                    opened.push("open", Some(id), &open.to_string());
                }),
            },
            root,
            types: Types::new().with(&[&CONTROLLER, &LEAF]),
            events: log.clone(),
        });
        let (main, ejecting) = (reactors.main().clone(), tree.downgrade());
        hotplug.connect(Box::new(move |slots| {
            let ejecting = ejecting.clone();
            main.schedule_bh(move || ejecting.upgrade().unwrap().ejected(slots));
        }));
        Self { machine, tree, block, hotplug, log }
    }

    /// Whether this drive is there, and no device has it.
    pub(super) fn is_free(&self, drive: &str) -> bool {
        let backend = self.block.contents().backend(drive).cloned();
        backend.is_some_and(|backend| backend.owner().device.is_empty())
    }

    pub(super) async fn add(&self, arguments: Value) -> Result<Arc<Device>, CommandError> {
        self.tree.add(&DeviceRequest::json(object(arguments)), true).await
    }

    /// The text of the error.
    pub(super) async fn refusal(&self, arguments: Value) -> String {
        match self.add(arguments).await {
            Ok(device) => panic!("{} was added", device.path()),
            Err(error) => error.text,
        }
    }

    /// The guest's answer to a request: it ejects `slot`.
    pub(super) fn eject(&self, slot: u8) {
        self.hotplug.write(8, &(1u32 << slot).to_le_bytes());
    }

    /// What a device or a failed attempt may have left behind: nothing.
    pub(super) fn assert_empty(&self, why: &str) {
        assert!(self.tree.root().is_empty(), "{why}: the bus");
        assert_eq!(self.machine.root.functions().len(), 1, "{why}: the host bridge alone");
        assert_eq!(self.machine.platform.vectors_in_use(), 0, "{why}: vectors");
        assert!(self.machine.platform.doorbells().is_empty(), "{why}: doorbells");
    }
}

/// An empty drive of 1 MiB.
pub(super) async fn add_drive(block: &BlockGraph, id: &str) {
    let drive = DriveOptions::scratch(id, 1 << 20);
    block.add_drive(id, drive.image, drive.writeback).await.unwrap();
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("{value} is no object") };
    object
}

pub(super) fn blk(drive: &str, id: &str) -> Value {
    json!({"driver": "virtio-blk-pci", "drive": drive, "id": id})
}
