//! `virtio-balloon-pci`.

use super::virtio_pci::{IOTHREAD, VIRTIO_PCI_PROPERTIES, function, queue_contexts};
use super::{DeviceType, PCI_PROPERTIES};
use crate::error::CommandError;
use crate::qdev::property::{Kind, Property};
use crate::qdev::setup::Setup;
use crate::qdev::value::PropValue;
use crate::qdev::{BoxFuture, Realized};
use crate::virtio::balloon::{BalloonStats, VirtioBalloon};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

const INTERVAL: &str = "guest-stats-polling-interval";
const STATS: &str = "guest-stats";

const PROPERTIES: &[Property] = &[
    Property::bool("deflate-on-oom", false),
    Property::bool("free-page-reporting", false),
    Property::new(INTERVAL, Kind::Int).live(),
    Property::new(STATS, Kind::Json("guest statistics")).read_only(),
];

pub(super) const VIRTIO_BALLOON_PCI: DeviceType = DeviceType {
    name: "virtio-balloon-pci",
    alias: Some("virtio-balloon"),
    parent: "virtio-balloon-pci-base",
    category: "Misc",
    bus: "PCI",
    description: None,
    properties: &[PROPERTIES, IOTHREAD, VIRTIO_PCI_PROPERTIES, PCI_PROPERTIES],
    realize: |setup| Box::pin(realize(setup)) as BoxFuture<'_, _>,
};

#[expect(clippy::unused_async, reason = "other types wait")]
async fn realize(setup: Setup<'_>) -> Result<Arc<dyn Realized>, CommandError> {
    let properties = setup.properties;
    let polled = properties.get(INTERVAL).map(interval).transpose()?;
    setup.step("balloon")?;
    let slot = Arc::clone(&setup.resources.balloon);
    let balloon =
        slot.make(properties.bool("deflate-on-oom"), properties.bool("free-page-reporting"));
    let balloon =
        balloon.ok_or_else(|| CommandError::generic("Only one balloon device is supported"))?;
    balloon.set_stats_interval(polled.unwrap_or_default());
    setup.step("queues")?;
    let cores = queue_contexts(setup.resources, setup.properties, VirtioBalloon::QUEUES)?;
    let (shown, changed) = (Arc::clone(&balloon), Arc::clone(&balloon));
    let function = function(&setup, balloon, cores, None, move |name| match name {
        INTERVAL => Some(shown.stats_interval().as_secs().into()),
        STATS => Some(stats(&shown.stats())),
        _ => None,
    })?;
    let function = function.on_set(move |name, value| {
        if name == INTERVAL {
            changed.set_stats_interval(interval(value)?);
        }
        Ok(())
    });
    Ok(Arc::new(function.at_end(move || slot.clear())))
}

/// Seconds from one question for statistics to the next.
fn interval(value: &PropValue) -> Result<Duration, CommandError> {
    let seconds = match value {
        PropValue::Int(seconds) => *seconds,
        _ => 0,
    };
    let seconds = u64::try_from(seconds)
        .map_err(|_| CommandError::generic("timer value must be greater than zero"))?;
    if seconds > u32::MAX.into() {
        return Err(CommandError::generic("timer value is too big"));
    }
    Ok(Duration::from_secs(seconds))
}

fn stats(stats: &BalloonStats) -> Value {
    let values: Map<String, Value> =
        stats.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({"stats": values, "last-update": stats.last_update})
}
