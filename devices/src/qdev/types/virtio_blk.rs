//! `virtio-blk-pci`.

use super::virtio_pci::{
    IOTHREAD_PROPERTIES, VIRTIO_PCI_PROPERTIES, queue_contexts, realize_virtio,
};
use super::{
    BLOCK_HELP, BLOCK_MIN, DRIVE_PROPERTIES, DeviceType, PCI_PROPERTIES, block_size, write_cache,
};
use crate::error::CommandError;
use crate::qdev::property::{Kind, Property};
use crate::qdev::setup::Setup;
use crate::qdev::{BoxFuture, Realized};
use crate::virtio::blk::{BlkOptions, VirtioBlk};
use std::sync::Arc;

/// The type that QEMU's errors name: there the PCI device has this one inside.
const BACKEND: &str = "virtio-blk-device";
/// `num-queues`: one for each processor.
const AUTO: u64 = 0xffff;
/// Queues that a disk gets at most where nobody says how many.
const QUEUES_AUTO_MAX: u32 = 16;
const QUEUES_MAX: u64 = 1024;
const QUEUE_SIZE_MAX: u64 = 1024;

const PROPERTIES: &[Property] = &[
    Property::new("serial", Kind::Str),
    Property::uint("num-queues", Kind::U16, AUTO),
    Property::uint("queue-size", Kind::U16, 256),
    Property::uint("logical_block_size", Kind::Size, 0).help(BLOCK_HELP),
    Property::uint("physical_block_size", Kind::Size, 0).help(BLOCK_HELP),
    Property::new("bootindex", Kind::I32).live(),
];

pub(super) const VIRTIO_BLK_PCI: DeviceType = DeviceType {
    name: "virtio-blk-pci",
    alias: Some("virtio-blk"),
    parent: "virtio-blk-pci-base",
    category: "Storage",
    bus: "PCI",
    description: None,
    properties: &[
        DRIVE_PROPERTIES,
        PROPERTIES,
        IOTHREAD_PROPERTIES,
        VIRTIO_PCI_PROPERTIES,
        PCI_PROPERTIES,
    ],
    realize: |setup| Box::pin(realize(setup)) as BoxFuture<'_, _>,
};

#[expect(clippy::unused_async, reason = "other types wait")]
async fn realize(setup: Setup<'_>) -> Result<Arc<dyn Realized>, CommandError> {
    let queues = queues(&setup)?;
    let queue_size = queue_size(&setup)?;
    let logical = block_size(&setup, "logical_block_size")?.unwrap_or(BLOCK_MIN as u32);
    let physical = block_size(&setup, "physical_block_size")?;
    setup.step("drive")?;
    let claim = setup.claim_drive(BACKEND, format!("{}/virtio-backend", setup.path), false)?;
    let Some(disk) = claim.disk() else {
        return Err(CommandError::generic("drive property not set"));
    };
    let physical = physical.unwrap_or_else(|| disk.info().physical_block.max(logical));
    if logical > physical {
        let text = "logical_block_size > physical_block_size not supported";
        return Err(CommandError::generic(text));
    }
    setup.step("queues")?;
    let cores = queue_contexts(setup.resources, setup.properties, queues)?;
    setup.step("device")?;
    let options = BlkOptions {
        serial: setup.properties.text("serial").map(|serial| truncated(serial).to_owned()),
        num_queues: queues,
        queue_size,
        logical_block: logical,
        physical_block: Some(physical),
        writeback: write_cache(&setup),
    };
    let blk =
        VirtioBlk::new(disk, options).map_err(|error| CommandError::generic(error.to_string()))?;
    let blk = Arc::new(blk);
    let told = Arc::downgrade(&blk);
    claim.on_size_change(Box::new(move || {
        if let Some(blk) = told.upgrade() {
            blk.size_changed();
        }
    }));
    realize_virtio(&setup, blk, cores, Some(claim), move |name| {
        Some(match name {
            "num-queues" => queues.into(),
            "logical_block_size" => logical.into(),
            "physical_block_size" => physical.into(),
            _ => return None,
        })
    })
}

/// What the guest can ask for: longer serials are cut, as in QEMU.
fn truncated(serial: &str) -> &str {
    let mut end = serial.len().min(20);
    while !serial.is_char_boundary(end) {
        end -= 1;
    }
    &serial[..end]
}

fn queues(setup: &Setup<'_>) -> Result<u16, CommandError> {
    let queues = match setup.properties.uint("num-queues") {
        AUTO => setup.resources.cpus.clamp(1, QUEUES_AUTO_MAX).into(),
        n => n,
    };
    match u16::try_from(queues) {
        Ok(0) => Err(CommandError::generic("num-queues property must be larger than 0")),
        Ok(n) if queues <= QUEUES_MAX => Ok(n),
        _ => Err(CommandError::generic(format!(
            "num-queues property must be at most {QUEUES_MAX}, not {queues}"
        ))),
    }
}

fn queue_size(setup: &Setup<'_>) -> Result<u16, CommandError> {
    let size = setup.properties.uint("queue-size");
    let text = match size {
        0..=2 => format!("invalid queue-size property ({size}), must be > 2"),
        _ if !size.is_power_of_two() || size > QUEUE_SIZE_MAX => format!(
            "invalid queue-size property ({size}), must be a power of 2 (max {QUEUE_SIZE_MAX})"
        ),
        _ => return Ok(size as u16),
    };
    Err(CommandError::generic(text))
}
