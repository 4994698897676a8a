//! `virtio-scsi-pci`.

use super::virtio_pci::{IOTHREAD_PROPERTIES, VIRTIO_PCI_PROPERTIES, function, queue_contexts};
use super::{DeviceType, PCI_PROPERTIES};
use crate::error::CommandError;
use crate::qdev::property::{Kind, Property};
use crate::qdev::scsi_bus::ScsiBus;
use crate::qdev::setup::Setup;
use crate::qdev::{BoxFuture, Realized};
use crate::virtio::scsi::{ScsiOptions, VirtioScsi};
use serde_json::Value;
use std::sync::Arc;

/// `num_queues`: one for each processor.
const AUTO: u64 = u32::MAX as u64;
const QUEUES_MAX: u64 = 1022;
/// Request queues that an adapter gets at most where nobody says how many.
const QUEUES_AUTO_MAX: u32 = 16;
/// Control and event queue.
const FIXED_QUEUES: u16 = 2;
const QUEUE_SIZE_MAX: u64 = 1024;

const PROPERTIES: &[Property] = &[
    Property::uint("num_queues", Kind::U32, AUTO),
    Property::uint("virtqueue_size", Kind::U32, 256),
    Property::bool("seg_max_adjust", true),
    Property::uint("max_sectors", Kind::U32, 0xffff),
    Property::uint("cmd_per_lun", Kind::U32, 128),
    Property::bool("hotplug", true),
    Property::bool("param_change", true),
];

pub(super) const VIRTIO_SCSI_PCI: DeviceType = DeviceType {
    name: "virtio-scsi-pci",
    alias: Some("virtio-scsi"),
    parent: "virtio-scsi-pci-base",
    category: "Storage",
    bus: "PCI",
    description: None,
    properties: &[PROPERTIES, IOTHREAD_PROPERTIES, VIRTIO_PCI_PROPERTIES, PCI_PROPERTIES],
    realize: |setup| Box::pin(realize(setup)) as BoxFuture<'_, _>,
};

#[expect(clippy::unused_async, reason = "other types wait")]
async fn realize(setup: Setup<'_>) -> Result<Arc<dyn Realized>, CommandError> {
    let options = options(&setup)?;
    let queues = options.num_queues;
    setup.step("queues")?;
    let cores = queue_contexts(setup.resources, setup.properties, queues + FIXED_QUEUES)?;
    setup.step("device")?;
    let scsi =
        VirtioScsi::new(options).map_err(|error| CommandError::generic(error.to_string()))?;
    let scsi = Arc::new(scsi);
    let function = function(&setup, Arc::clone(&scsi) as _, cores, None, move |name| {
        (name == "num_queues").then(|| Value::from(queues))
    })?;
    let anonymous = setup.path.starts_with("/machine/peripheral-anon/");
    let name = if anonymous { "scsi.0".to_owned() } else { format!("{}.0", setup.name) };
    let path = format!("{}/virtio-backend/{name}", setup.path);
    let bus = ScsiBus::bus(scsi, &name, &path);
    Ok(Arc::new(function.with_bus(bus)))
}

fn options(setup: &Setup<'_>) -> Result<ScsiOptions, CommandError> {
    let properties = setup.properties;
    let queues = match properties.uint("num_queues") {
        AUTO => setup.resources.cpus.clamp(1, QUEUES_AUTO_MAX).into(),
        queues => queues,
    };
    if !(1..=QUEUES_MAX).contains(&queues) {
        return Err(CommandError::generic(format!(
            "Invalid number of queues (= {queues}), must be a positive integer less than {}.",
            QUEUES_MAX + 1
        )));
    }
    let size = properties.uint("virtqueue_size");
    if size <= 2 {
        let text = format!("invalid virtqueue_size property (= {size}), must be > 2");
        return Err(CommandError::generic(text));
    }
    if !size.is_power_of_two() || size > QUEUE_SIZE_MAX {
        return Err(CommandError::generic(format!(
            "invalid virtqueue_size property (= {size}), must be a power of 2 (max {QUEUE_SIZE_MAX})"
        )));
    }
    let usual = ScsiOptions::default();
    Ok(ScsiOptions {
        num_queues: queues as u16,
        queue_size: size as u16,
        seg_max: if properties.bool("seg_max_adjust") { None } else { Some(126) },
        max_sectors: properties.uint("max_sectors") as u32,
        cmd_per_lun: match properties.uint("cmd_per_lun") {
            0 => usual.cmd_per_lun,
            n => n as u32,
        },
        hotplug: properties.bool("hotplug"),
        param_change: properties.bool("param_change"),
    })
}
