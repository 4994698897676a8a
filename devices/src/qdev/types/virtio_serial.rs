//! `virtio-serial-pci`.

use super::virtio_pci::{IOTHREAD, VIRTIO_PCI_PROPERTIES, function, queue_contexts};
use super::{DeviceType, PCI_PROPERTIES};
use crate::error::CommandError;
use crate::qdev::property::{Kind, Property};
use crate::qdev::serial_bus::{SERIAL, SerialBus};
use crate::qdev::setup::Setup;
use crate::qdev::{BoxFuture, Realized};
use crate::virtio::console::{PORTS_MAX, VirtioConsole};
use std::sync::Arc;

const PROPERTIES: &[Property] = &[
    Property::uint("max_ports", Kind::U32, PORTS_MAX as u64),
    Property::bool("emergency-write", true),
];

pub(super) const VIRTIO_SERIAL_PCI: DeviceType = DeviceType {
    name: "virtio-serial-pci",
    alias: Some("virtio-serial"),
    parent: "virtio-serial-pci-base",
    category: "Input",
    bus: "PCI",
    description: None,
    properties: &[PROPERTIES, IOTHREAD, VIRTIO_PCI_PROPERTIES, PCI_PROPERTIES],
    realize: |setup| Box::pin(realize(setup)) as BoxFuture<'_, _>,
};

#[expect(clippy::unused_async, reason = "other types wait")]
async fn realize(setup: Setup<'_>) -> Result<Arc<dyn Realized>, CommandError> {
    let ports = match setup.properties.uint("max_ports") {
        0 => return Err(CommandError::generic("Maximum number of serial ports not specified")),
        ports if ports > PORTS_MAX.into() => {
            let text = format!("maximum ports supported: {PORTS_MAX}");
            return Err(CommandError::generic(text));
        }
        ports => ports as u32,
    };
    setup.step("device")?;
    let emergency = setup.properties.bool("emergency-write");
    let console = Arc::new(VirtioConsole::new(ports).with_emergency_write(emergency));
    setup.step("queues")?;
    let cores = queue_contexts(setup.resources, setup.properties, console.queues())?;
    let function = function(&setup, Arc::clone(&console) as _, cores, None, |_| None)?;
    let anonymous = setup.path.starts_with("/machine/peripheral-anon/");
    let name = if anonymous { format!("{SERIAL}.0") } else { format!("{}.0", setup.name) };
    let path = format!("{}/virtio-backend/{name}", setup.path);
    Ok(Arc::new(function.with_bus(SerialBus::bus(console, &name, &path))))
}
