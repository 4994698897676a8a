//! The PCI bus as a bus of the device tree.

use super::bus::{Bus, BusKind, Unplug};
use super::device::Device;
use crate::error::CommandError;
use crate::pci::{DEVICES_PER_BUS, PciRoot, PlugError, Slot};
use std::sync::Arc;

/// How a guest hears of slots: ACPI registers on the root bus, a port's own ones below it. Slots are
/// device numbers.
pub trait SlotEvents: Send + Sync {
    /// A device has come while the machine runs.
    fn added(&self, slot: u8);

    /// The device shall go. False: the guest cannot be told, so that it goes at once.
    fn remove_requested(&self, slot: u8) -> bool;

    /// The slot is empty: nothing about it is pending any more.
    fn removed(&self, slot: u8);
}

/// The root bus.
pub struct PciBus {
    root: Arc<PciRoot>,
    events: Arc<dyn SlotEvents>,
}

impl PciBus {
    /// The bus `pci.0` of `root`, at `path` in the object tree.
    pub fn root(root: Arc<PciRoot>, events: Arc<dyn SlotEvents>, path: &str) -> Arc<Bus> {
        Bus::new("pci.0", "PCI", path, Box::new(Self { root, events }))
    }

    /// Who is at `slot`, as QEMU writes it.
    fn occupant(bus: &Bus, slot: Slot) -> String {
        match at(bus, slot) {
            Some(other) => {
                format!("{},id={}", other.ty().name, other.id().unwrap_or("(null)"))
            }
            None => "i440FX,id=(null)".to_owned(),
        }
    }

    fn refused(bus: &Bus, device: &Device, error: &PlugError) -> CommandError {
        let name = device.ty().name;
        CommandError::generic(match error {
            PlugError::InUse { at, .. } => format!(
                "PCI: slot {} function {} not available for {name}, in use by {}",
                at.device(),
                at.function(),
                Self::occupant(bus, *at)
            ),
            PlugError::Full(_) => {
                format!("PCI: no slot/function available for {name}, all in use or reserved")
            }
            PlugError::SingleFunction { at: slot, .. } => {
                let zero = Slot::from_devfn(slot.device() << 3);
                let other = at(bus, zero).map_or("i440FX", |other| other.ty().name);
                format!(
                    "PCI: slot {} function 0 already occupied by {other}, \
                     new func {name} cannot be exposed to guest.",
                    slot.device()
                )
            }
            PlugError::NoSuchSlot { .. } => error.to_string(),
        })
    }
}

fn at(bus: &Bus, slot: Slot) -> Option<Arc<Device>> {
    let guard = rcu::read();
    let address = Some(u32::from(slot.devfn()));
    bus.children(&guard).find(|child| child.address() == address).cloned()
}

fn slot_of(device: &Device) -> Option<Slot> {
    device.address().and_then(|devfn| u8::try_from(devfn).ok()).map(Slot::from_devfn)
}

impl BusKind for PciBus {
    fn is_full(&self, _bus: &Bus) -> bool {
        let functions = self.root.functions();
        let taken = |device| functions.iter().any(|(slot, _)| slot.device() == device);
        (0..DEVICES_PER_BUS).all(taken)
    }

    fn plug(&self, bus: &Bus, device: &Device) -> Result<u32, CommandError> {
        let properties = device.properties();
        let wanted = u8::try_from(properties.int("addr")).ok().map(Slot::from_devfn);
        let function = device.body().and_then(|body| body.function());
        let Some(function) = function else {
            let text = format!("Device '{}' can't go on PCI bus", device.ty().name);
            return Err(CommandError::generic(text));
        };
        let plugged = self.root.plug(wanted, function);
        let slot = plugged.map_err(|error| Self::refused(bus, device, &error))?;
        Ok(slot.devfn().into())
    }

    /// Only function 0 makes the guest look at the slot: the others come before it.
    fn announce(&self, device: &Device) {
        if let Some(slot) = slot_of(device).filter(|slot| slot.function() == 0) {
            self.events.added(slot.device());
        }
    }

    fn request_unplug(&self, device: &Device) -> Result<Unplug, CommandError> {
        match slot_of(device) {
            Some(slot) if self.events.remove_requested(slot.device()) => Ok(Unplug::Asked),
            _ => Ok(Unplug::Now),
        }
    }

    fn unplug(&self, device: &Device) {
        if let Some(slot) = slot_of(device) {
            self.root.unplug(slot);
            self.events.removed(slot.device());
        }
    }
}
