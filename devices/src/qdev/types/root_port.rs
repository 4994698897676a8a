//! `pcie-root-port`.

use super::{DeviceType, PCI_PROPERTIES};
use crate::error::CommandError;
use crate::pci::{Function, RootPort, RootPortConfig};
use crate::qdev::pci_bus::PciBus;
use crate::qdev::property::{Kind, Property};
use crate::qdev::setup::Setup;
use crate::qdev::{BoxFuture, Bus, Realized};
use std::any::Any;
use std::sync::Arc;

const PROPERTIES: &[Property] = &[
    Property::uint("chassis", Kind::U8, 0),
    Property::bool("hotplug", true),
    Property::uint("port", Kind::U8, 0),
    Property::bool("power_controller_present", true),
    Property::uint("slot", Kind::U16, 0),
];

pub(super) const PCIE_ROOT_PORT: DeviceType = DeviceType {
    name: "pcie-root-port",
    alias: None,
    parent: "pcie-root-port-base",
    category: "Controller/Bridge/Hub",
    bus: "PCI",
    description: Some("PCI Express Root Port"),
    properties: &[PROPERTIES, PCI_PROPERTIES],
    realize: |setup| Box::pin(realize(setup)) as BoxFuture<'_, _>,
};

#[expect(clippy::unused_async, reason = "other types wait")]
async fn realize(setup: Setup<'_>) -> Result<Arc<dyn Realized>, CommandError> {
    // The tables that tell the guest of native hot-plug are made when the machine starts.
    if setup.hotplugged {
        let text = format!("Device '{}' does not support hotplugging", setup.type_name);
        return Err(CommandError::generic(text));
    }
    let properties = setup.properties;
    let hotplug = properties.bool("hotplug");
    let config = RootPortConfig {
        port: properties.uint("port") as u8,
        slot: properties.uint("slot") as u16,
        hotplug,
        power_controller: properties.bool("power_controller_present"),
        multifunction: properties.bool("multifunction"),
    };
    setup.step("port")?;
    let (port, function) = RootPort::new(setup.name, &*setup.resources.platform, config)
        .map_err(|error| CommandError::generic(error.to_string()))?;
    let anonymous = setup.path.starts_with("/machine/peripheral-anon/");
    let name = if anonymous { "pcie.1" } else { setup.name };
    let bus = PciBus::below(&port, name, &format!("{}/{name}", setup.path), hotplug);
    Ok(Arc::new(Port { function, buses: [bus] }))
}

/// The realized port: the function, and the bus below.
struct Port {
    function: Arc<Function>,
    buses: [Arc<Bus>; 1],
}

impl Realized for Port {
    fn function(&self) -> Option<&Arc<Function>> {
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
