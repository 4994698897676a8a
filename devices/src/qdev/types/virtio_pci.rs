//! What all virtio devices on PCI share.

use crate::error::CommandError;
use crate::pci::Function;
use crate::qdev::property::{Kind, Property};
use crate::qdev::setup::{Claim, Resources, Setup};
use crate::qdev::value::{PropValue, Properties};
use crate::qdev::{BoxFuture, Bus, Realized};
use crate::virtio::VirtioDevice;
use crate::virtio::features;
use crate::virtio::pci::{VirtioPci, VirtioPciOptions};
use reactor::Context;
use serde_json::Value;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// Accepted for all of them. Every device here is a modern one.
pub const VIRTIO_PCI_PROPERTIES: &[Property] = &[
    Property::on_off_auto("disable-legacy"),
    Property::bool("disable-modern", false),
    Property::bool("ioeventfd", true),
    Property::uint("vectors", Kind::U32, AUTO_VECTORS),
    Property::bool("indirect_desc", true),
    Property::bool("event_idx", true),
    Property::bool("queue_reset", true),
];

/// Properties that switch features of every device off.
const SWITCHES: [(&str, u64); 3] = [
    ("indirect_desc", features::INDIRECT_DESC),
    ("event_idx", features::EVENT_IDX),
    ("queue_reset", features::RING_RESET),
];

/// `vectors`: one for each queue, and one for changes of the configuration.
const AUTO_VECTORS: u64 = u32::MAX as u64;
/// What an MSI-X table holds (PCI 3.0, section 6.8.2).
const VECTORS_MAX: u64 = 2048;

/// The property that says where all queues run.
pub(super) const IOTHREAD: &[Property] = &[Property::new("iothread", Kind::Link("iothread"))];

/// Properties that say where each queue runs.
pub(super) const IOTHREAD_PROPERTIES: &[Property] = &[
    IOTHREAD[0],
    Property::new("iothread-vq-mapping", Kind::Json("IOThreadVirtQueueMappingList"))
        .help("IOThread virtqueue mapping list [{\"iothread\":\"<id>\", \"vqs\":[1,2,3,...]},...]"),
];

type Read = Box<dyn Fn(&str) -> Option<Value> + Send + Sync>;
type Set = Box<dyn Fn(&str, &PropValue) -> Result<(), CommandError> + Send + Sync>;
type AtEnd = Box<dyn FnOnce() + Send>;

/// A realized virtio device on PCI.
pub struct VirtioFunction {
    virtio: VirtioPci,
    claim: Mutex<Option<Claim>>,
    buses: Vec<Arc<Bus>>,
    read: Read,
    set: Option<Set>,
    at_end: Mutex<Option<AtEnd>>,
}

impl VirtioFunction {
    /// It has this bus for other devices.
    #[must_use]
    pub(super) fn with_bus(mut self, bus: Arc<Bus>) -> Self {
        self.buses.push(bus);
        self
    }

    /// `set` is told of properties that change while the device lives, and may refuse.
    #[must_use]
    pub(super) fn on_set(
        mut self,
        set: impl Fn(&str, &PropValue) -> Result<(), CommandError> + Send + Sync + 'static,
    ) -> Self {
        self.set = Some(Box::new(set));
        self
    }

    /// `end` gives back what the device has beside its claim, when nothing is in flight any more.
    #[must_use]
    pub(super) fn at_end(self, end: impl FnOnce() + Send + 'static) -> Self {
        Self { at_end: Mutex::new(Some(Box::new(end))), ..self }
    }

    /// The transport.
    pub fn virtio(&self) -> &VirtioPci {
        &self.virtio
    }
}

impl Realized for VirtioFunction {
    fn function(&self) -> Option<&Arc<Function>> {
        Some(self.virtio.function())
    }

    fn buses(&self) -> &[Arc<Bus>] {
        &self.buses
    }

    fn property(&self, name: &str) -> Option<Value> {
        (self.read)(name).or_else(|| match name {
            "disable-legacy" => Some(Value::from("on")),
            "vectors" => Some(self.virtio.vectors().into()),
            _ => None,
        })
    }

    fn set_property(&self, name: &str, value: &PropValue) -> Result<(), CommandError> {
        self.set.as_ref().map_or(Ok(()), |set| set(name, value))
    }

    fn move_queues<'a>(
        &'a self,
        resources: &'a Resources,
        properties: &'a Properties,
    ) -> BoxFuture<'a, Result<(), CommandError>> {
        Box::pin(async {
            let cores = queue_contexts(resources, properties, self.virtio.queues())?;
            self.virtio.move_queues(cores).await.map_err(|queue| {
                CommandError::generic(format!(
                    "Requests of queue {queue} do not end: the queues stay where they are"
                ))
            })
        })
    }

    fn quiesced(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.virtio.quiesced())
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.virtio.shutdown())
    }

    fn unrealize(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.virtio.shutdown().await;
            let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(claim) = claim {
                claim.release().await;
            }
            let at_end = self.at_end.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(at_end) = at_end {
                at_end();
            }
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Makes the function of `device`, whose queue `i` runs on `cores[i % cores.len()]`. `read` gives
/// values of properties as they have come out; `claim` is released at the end.
pub fn realize_virtio(
    setup: &Setup<'_>,
    device: Arc<dyn VirtioDevice>,
    cores: Vec<Context>,
    claim: Option<Claim>,
    read: impl Fn(&str) -> Option<Value> + Send + Sync + 'static,
) -> Result<Arc<dyn Realized>, CommandError> {
    Ok(Arc::new(function(setup, device, cores, claim, read)?))
}

/// As [`realize_virtio`], for those that add something.
pub(super) fn function(
    setup: &Setup<'_>,
    device: Arc<dyn VirtioDevice>,
    cores: Vec<Context>,
    claim: Option<Claim>,
    read: impl Fn(&str) -> Option<Value> + Send + Sync + 'static,
) -> Result<VirtioFunction, CommandError> {
    setup.step("transport")?;
    if setup.properties.bool("disable-modern") {
        let text = "device is modern-only: disable-modern cannot be on";
        return Err(CommandError::generic(text));
    }
    let vectors = match setup.properties.uint("vectors") {
        AUTO_VECTORS => None,
        vectors @ 0..=VECTORS_MAX => Some(vectors as u16),
        vectors => {
            let text = format!("vectors={vectors} is out of range; use 0 to {VECTORS_MAX}");
            return Err(CommandError::generic(text));
        }
    };
    let multifunction = setup.properties.bool("multifunction");
    let off = SWITCHES.iter().filter(|(name, _)| !setup.properties.bool(name));
    let without = off.fold(0, |without, (_, feature)| without | feature);
    let options = VirtioPciOptions { multifunction, vectors, without };
    let (ram, platform) = (&setup.resources.ram, &setup.resources.platform);
    let (ram, platform) = (Arc::clone(ram), Arc::clone(platform));
    let virtio = VirtioPci::with_options(setup.name, device, ram, platform, cores, options)
        .map_err(|error| CommandError::generic(error.to_string()))?;
    Ok(VirtioFunction {
        virtio,
        claim: Mutex::new(claim),
        buses: Vec::new(),
        read: Box::new(read),
        set: None,
        at_end: Mutex::new(None),
    })
}

/// The contexts of `queues` queues, as `iothread=` and `iothread-vq-mapping=` say; all cores where they
/// say nothing.
pub(super) fn queue_contexts(
    resources: &Resources,
    properties: &Properties,
    queues: u16,
) -> Result<Vec<Context>, CommandError> {
    let one = properties.text("iothread").filter(|name| !name.is_empty());
    let many = properties.json("iothread-vq-mapping");
    match (one, many) {
        (Some(_), Some(_)) => {
            let text = "iothread and iothread-vq-mapping properties cannot be set at the same time";
            Err(CommandError::generic(text))
        }
        (Some(name), None) => {
            let context = resources.objects.iothread(name);
            Ok(vec![context.ok_or_else(|| CommandError::device_not_found(name))?])
        }
        (None, Some(mapping)) => mapped(resources, mapping, queues),
        (None, None) => Ok(resources.cores.clone()),
    }
}

/// One element of the mapping: its thread, and its queues where it names them.
type Part = (Context, Option<Vec<u16>>);

fn part(resources: &Resources, element: &Value, queues: u16) -> Result<Part, CommandError> {
    let generic = |text: String| CommandError::generic(text);
    let name = element.get("iothread").and_then(Value::as_str).ok_or_else(|| {
        generic("Parameter 'iothread-vq-mapping[0].iothread' is missing".to_owned())
    })?;
    let context = resources
        .objects
        .iothread(name)
        .ok_or_else(|| generic(format!("IOThread \"{name}\" object does not exist")))?;
    let Some(vqs) = element.get("vqs") else { return Ok((context, None)) };
    let vqs = vqs.as_array().ok_or_else(|| {
        generic("Invalid parameter type for 'iothread-vq-mapping.vqs', expected: array".to_owned())
    })?;
    let number = |vq: &Value| {
        let number = vq.as_u64().and_then(|n| u16::try_from(n).ok());
        let number =
            number.ok_or_else(|| generic("Parameter 'vqs' expects uint16_t".to_owned()))?;
        if number >= queues {
            let last = queues.saturating_sub(1);
            return Err(generic(format!(
                "vq index {number} for IOThread \"{name}\" must be less than or equal to {last}"
            )));
        }
        Ok(number)
    };
    Ok((context, Some(vqs.iter().map(number).collect::<Result<_, _>>()?)))
}

fn mapped(
    resources: &Resources,
    mapping: &Value,
    queues: u16,
) -> Result<Vec<Context>, CommandError> {
    let elements = mapping.as_array().map_or(&[][..], Vec::as_slice);
    let parts: Vec<Part> = elements
        .iter()
        .map(|element| part(resources, element, queues))
        .collect::<Result<_, _>>()?;
    let named = parts.iter().filter(|(_, vqs)| vqs.is_some()).count();
    if parts.is_empty() || (named != 0 && named != parts.len()) {
        let text =
            "either all items in iothread-vq-mapping must have vqs or none of them must have it";
        return Err(CommandError::generic(text));
    }
    if named == 0 {
        return Ok(parts.into_iter().map(|(context, _)| context).collect());
    }
    let mut contexts: Vec<Option<Context>> = vec![None; usize::from(queues)];
    for (context, vqs) in &parts {
        for vq in vqs.iter().flatten() {
            if contexts[usize::from(*vq)].replace(context.clone()).is_some() {
                let text = format!("cannot assign vq {vq} to two IOThreads");
                return Err(CommandError::generic(text));
            }
        }
    }
    let missing = contexts.iter().position(Option::is_none);
    if let Some(vq) = missing {
        let text = format!("missing vq {vq} IOThread assignment in iothread-vq-mapping");
        return Err(CommandError::generic(text));
    }
    Ok(contexts.into_iter().flatten().collect())
}
