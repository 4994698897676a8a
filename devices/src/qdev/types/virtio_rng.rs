//! `virtio-rng-pci`.

use super::virtio_pci::{IOTHREAD, VIRTIO_PCI_PROPERTIES, queue_contexts, realize_virtio};
use super::{DeviceType, PCI_PROPERTIES};
use crate::error::CommandError;
use crate::fdset::Opened;
use crate::objects::Body;
use crate::qdev::property::{Kind, Property};
use crate::qdev::setup::Setup;
use crate::qdev::{BoxFuture, Realized};
use crate::virtio::rng::{Entropy, RateLimit, VirtioRng};
use std::sync::Arc;
use std::time::Duration;

const PROPERTIES: &[Property] = &[
    Property::new("rng", Kind::Link("rng-backend"))
        .help("The source of the random bytes; the kernel's generator where none is named"),
    Property::uint("max-bytes", Kind::U64, i64::MAX as u64)
        .help("Bytes given to the guest in a period at most"),
    Property::uint("period", Kind::U32, 1 << 16).help("The period, in milliseconds"),
];

pub(super) const VIRTIO_RNG_PCI: DeviceType = DeviceType {
    name: "virtio-rng-pci",
    alias: Some("virtio-rng"),
    parent: "virtio-rng-pci-base",
    category: "Misc",
    bus: "PCI",
    description: None,
    properties: &[PROPERTIES, IOTHREAD, VIRTIO_PCI_PROPERTIES, PCI_PROPERTIES],
    realize: |setup| Box::pin(realize(setup)) as BoxFuture<'_, _>,
};

async fn realize(setup: Setup<'_>) -> Result<Arc<dyn Realized>, CommandError> {
    let bytes = setup.properties.uint("max-bytes");
    if bytes > i64::MAX as u64 {
        let text = "'max-bytes' parameter must be non-negative, and less than 2^63";
        return Err(CommandError::generic(text));
    }
    let period = setup.properties.uint("period");
    if period == 0 {
        let text = "'period' parameter expects a positive integer";
        return Err(CommandError::generic(text));
    }
    setup.step("entropy")?;
    let entropy = entropy(&setup).await?;
    setup.step("device")?;
    // The default is far beyond what can be read: no limit.
    let limited = bytes != i64::MAX as u64;
    let limit = RateLimit { bytes, period: Duration::from_millis(period) };
    let clock = Arc::clone(&setup.resources.clock);
    let rng = VirtioRng::new(Arc::new(entropy), limited.then_some(limit), clock)
        .map_err(|error| CommandError::generic(error.to_string()))?;
    let cores = queue_contexts(setup.resources, setup.properties, 1)?;
    realize_virtio(&setup, Arc::new(rng), cores, None, |_| None)
}

/// What `rng=` names.
async fn entropy(setup: &Setup<'_>) -> Result<Entropy, CommandError> {
    if let Some(name) = setup.properties.text("rng").filter(|name| !name.is_empty()) {
        let object = setup.resources.objects.find(name.strip_prefix("/objects/").unwrap_or(name));
        let object = object.ok_or_else(|| CommandError::device_not_found(name))?;
        if let Body::Random(Opened { fd, .. }) = object.body() {
            return Ok(Entropy::from_fd(fd.clone()));
        }
        if object.ty().parent != "rng-backend" {
            let text = "Invalid parameter type for 'rng', expected: rng-backend";
            return Err(CommandError::generic(text));
        }
    }
    Entropy::system().await.map_err(|error| {
        CommandError::generic(format!("the host's source of entropy cannot be opened: {error}"))
    })
}
