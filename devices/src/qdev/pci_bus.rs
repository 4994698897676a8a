//! PCI buses as buses of the device tree: the root bus, and the one below a root port.

use super::bus::{Bus, BusKind, SlotHear, Unplug};
use super::device::Device;
use crate::error::CommandError;
use crate::pci::{PciRoot, PciSegment, PlugError, RootPort, Slot, SlotRequest};
use std::sync::Arc;

/// How a guest hears of slots: ACPI registers on the root bus, a port's own ones below it. Slots are
/// device numbers.
pub trait SlotEvents: Send + Sync {
    /// A device is there from the start.
    fn present(&self, _slot: u8) {}

    /// A device has come while the machine runs.
    fn added(&self, slot: u8);

    /// The device shall go.
    fn remove_requested(&self, slot: u8) -> Result<Unplug, CommandError>;

    /// The slot is empty: nothing about it is pending any more.
    fn removed(&self, slot: u8);

    /// Who hears what the guest does with the card, where these events are the bus's own.
    fn connect(&self, _hear: SlotHear) {}
}

/// A PCI bus.
pub struct PciBus {
    segment: Arc<PciSegment>,
    events: Arc<dyn SlotEvents>,
    hotplug: bool,
    /// What has device 0 without being in the device tree.
    fixed: &'static str,
}

impl PciBus {
    /// The bus `pci.0` of `root`, at `path` in the object tree.
    pub fn root(root: &PciRoot, events: Arc<dyn SlotEvents>, path: &str) -> Arc<Bus> {
        let segment = Arc::clone(root.segment());
        let kind = Self { segment, events, hotplug: true, fixed: "i440FX" };
        Bus::new("pci.0", "PCI", path, Box::new(kind))
    }

    /// The bus below `port`.
    pub(super) fn below(port: &Arc<RootPort>, name: &str, path: &str, hotplug: bool) -> Arc<Bus> {
        let segment = Arc::clone(port.bridge().segment());
        let events = Arc::new(PortSlots(Arc::clone(port)));
        let kind = Self { segment, events, hotplug, fixed: "(null)" };
        Bus::new(name, "PCIE", path, Box::new(kind))
    }

    /// Who is at `slot`, as QEMU writes it.
    fn occupant(&self, bus: &Bus, slot: Slot) -> String {
        match at(bus, slot) {
            Some(other) => {
                format!("{},id={}", other.ty().name, other.id().unwrap_or("(null)"))
            }
            None => format!("{},id=(null)", self.fixed),
        }
    }

    fn refused(&self, bus: &Bus, device: &Device, error: &PlugError) -> CommandError {
        let name = device.ty().name;
        CommandError::generic(match error {
            PlugError::InUse { at, .. } => format!(
                "PCI: slot {} function {} not available for {name}, in use by {}",
                at.device(),
                at.function(),
                self.occupant(bus, *at)
            ),
            PlugError::Full(_) => {
                format!("PCI: no slot/function available for {name}, all in use or reserved")
            }
            PlugError::OneDevice { device, .. } => format!(
                "PCI: slot {device} is not valid for {name}, parent device only allows plugging into slot 0."
            ),
            PlugError::SingleFunction { .. }
            | PlugError::IndicatesSingle { .. }
            | PlugError::NoSuchSlot { .. } => error.to_string(),
        })
    }

    /// Function 0 of the slot of a device that comes to `wanted`, where that is free, and the guest knows the
    /// slot already. A link has one slot.
    fn shown(&self, wanted: Option<Slot>, of_link: bool) -> Option<Slot> {
        let functions = self.segment.functions();
        let taken = |place: Slot| functions.iter().any(|(other, _)| *other == place);
        if wanted.is_some_and(taken) {
            return None;
        }
        let device = if of_link { 0 } else { wanted?.device() };
        Some(Slot::from_devfn(device << 3)).filter(|zero| taken(*zero))
    }

    /// Function 0 is at `zero` already: the guest would not look at another.
    fn hidden(&self, bus: &Bus, device: &Device, zero: Slot) -> String {
        let other = at(bus, zero).map_or(self.fixed, |other| other.ty().name);
        format!(
            "PCI: slot {} function 0 already occupied by {other}, new func {} cannot be exposed to guest.",
            zero.device(),
            device.ty().name
        )
    }
}

fn at(bus: &Bus, slot: Slot) -> Option<Arc<Device>> {
    let guard = rcu::read();
    let address = Some(u32::from(slot.devfn()));
    bus.children(&guard).find(|child| child.address() == address).cloned()
}

/// Whether a port on `bus` has the chassis and slot number of the port `device`.
fn has_slot_of(bus: &Bus, device: &Device) -> bool {
    let place = |port: &Device| {
        let properties = port.properties();
        (properties.uint("chassis"), properties.uint("slot"))
    };
    let guard = rcu::read();
    let mut ports = bus.children(&guard).filter(|child| child.ty().name == device.ty().name);
    ports.any(|port| place(port) == place(device))
}

/// Whether the device is a port, which stays as long as the machine.
pub(super) fn is_port(device: &Device) -> bool {
    let function = device.body().and_then(|body| body.function());
    function.is_some_and(|function| function.bridge().is_some())
}

fn slot_of(device: &Device) -> Option<Slot> {
    device.address().and_then(|devfn| u8::try_from(devfn).ok()).map(Slot::from_devfn)
}

impl BusKind for PciBus {
    fn hotpluggable(&self) -> bool {
        self.hotplug
    }

    fn plug(&self, bus: &Bus, device: &Device) -> Result<u32, CommandError> {
        let properties = device.properties();
        let wanted = u8::try_from(properties.int("addr")).ok().map(Slot::from_devfn);
        let function = device.body().and_then(|body| body.function());
        let Some(function) = function else {
            let text = format!("Device '{}' can't go on PCI bus", device.ty().name);
            return Err(CommandError::generic(text));
        };
        if function.bridge().is_some() && has_slot_of(bus, device) {
            return Err(CommandError::generic("Can't add chassis slot, error -16"));
        }
        let of_link = bus.type_name() == "PCIE";
        if of_link && function.bridge().is_some() {
            let text = format!("Device '{}' can't go on PCIE bus", device.ty().name);
            return Err(CommandError::generic(text));
        }
        if device.hotplugged()
            && let Some(zero) = self.shown(wanted, of_link)
        {
            return Err(CommandError::generic(self.hidden(bus, device, zero)));
        }
        let plugged = self.segment.plug(wanted, function);
        let slot = plugged.map_err(|error| self.refused(bus, device, &error))?;
        if !device.hotplugged() {
            self.events.present(slot.device());
        }
        Ok(slot.devfn().into())
    }

    /// Only function 0 makes the guest look at the slot: the others come before it.
    fn announce(&self, device: &Device) {
        if let Some(slot) = slot_of(device).filter(|slot| slot.function() == 0) {
            self.events.added(slot.device());
        }
    }

    fn request_unplug(&self, device: &Device) -> Result<Unplug, CommandError> {
        if is_port(device) {
            let text = format!("Device '{}' does not support hotplugging", device.ty().name);
            return Err(CommandError::generic(text));
        }
        slot_of(device).map_or(Ok(Unplug::Now), |slot| self.events.remove_requested(slot.device()))
    }

    fn connect(&self, hear: SlotHear) {
        self.events.connect(hear);
    }

    fn unplug(&self, device: &Device) {
        if let Some(slot) = slot_of(device) {
            self.segment.unplug(slot);
            self.events.removed(slot.device());
        }
    }
}

/// The slot of a port, whose guest knows it by the port's own registers.
struct PortSlots(Arc<RootPort>);

impl PortSlots {
    fn shows_a_card(&self) -> bool {
        self.0.bridge().segment().functions().iter().any(|(slot, _)| slot.function() == 0)
    }
}

impl SlotEvents for PortSlots {
    fn present(&self, _slot: u8) {
        self.0.present();
    }

    fn added(&self, _slot: u8) {
        self.0.came();
    }

    fn remove_requested(&self, _slot: u8) -> Result<Unplug, CommandError> {
        // The guest does not look at other functions until function 0 comes.
        if !self.shows_a_card() {
            return Ok(Unplug::Now);
        }
        match self.0.request() {
            SlotRequest::Asked => Ok(Unplug::Asked),
            SlotRequest::Now => Ok(Unplug::Now),
            SlotRequest::Busy => {
                let text = "Hot-unplug failed: guest is busy (power indicator blinking)";
                Err(CommandError::generic(text))
            }
        }
    }

    fn removed(&self, _slot: u8) {
        if self.0.bridge().segment().functions().is_empty() {
            self.0.went();
        }
    }

    fn connect(&self, hear: SlotHear) {
        self.0.connect(hear);
    }
}
