//! The SCSI bus of a host adapter as a bus of the device tree.

use super::bus::{Bus, BusKind, Unplug};
use super::device::Device;
use super::types::scsi_disk::ScsiDisk;
use crate::error::CommandError;
use crate::scsi::{Address, Found, LUNS};
use crate::virtio::scsi::VirtioScsi;
use std::sync::Arc;

/// What types of SCSI devices call the bus.
pub(super) const SCSI: &str = "SCSI";

/// The bus of a virtio host adapter. Its units go at once: the guest is told, not asked.
pub(super) struct ScsiBus {
    scsi: Arc<VirtioScsi>,
}

impl ScsiBus {
    /// The bus called `name` of `scsi`, at `path` in the object tree.
    pub(super) fn bus(scsi: Arc<VirtioScsi>, name: &str, path: &str) -> Arc<Bus> {
        Bus::new(name, SCSI, path, Box::new(Self { scsi }))
    }

    /// Where `device` wants to be, or may be (QEMU's `scsi_bus_check_address`).
    fn address(&self, bus: &Bus, device: &Device) -> Result<Address, CommandError> {
        let properties = device.properties();
        let (channel, id) = (properties.uint("channel"), properties.int("scsi-id"));
        let lun = properties.int("lun");
        if channel != 0 {
            return Err(CommandError::generic(format!("bad scsi channel id: {channel}")));
        }
        if id > u8::MAX.into() {
            return Err(CommandError::generic(format!("bad scsi device id: {id}")));
        }
        if lun >= LUNS.into() {
            return Err(CommandError::generic(format!("bad scsi device lun: {lun}")));
        }
        // Below 0: any.
        let (target, lun) = (u8::try_from(id).ok(), u16::try_from(lun).ok());
        let free = |address| !matches!(self.scsi.bus().find(address), Found::Unit(_));
        match (target, lun) {
            (Some(target), Some(lun)) => {
                let address = Address { target, lun };
                if free(address) { Ok(address) } else { Err(taken(bus, address)) }
            }
            (Some(target), None) => (0..LUNS)
                .map(|lun| Address { target, lun })
                .find(|address| free(*address))
                .ok_or_else(|| CommandError::generic("no free lun")),
            (None, lun) => (0..=u8::MAX)
                .map(|target| Address { target, lun: lun.unwrap_or(0) })
                .find(|address| free(*address))
                .ok_or_else(|| CommandError::generic("no free target")),
        }
    }
}

/// An address as a number on the bus.
fn number(address: Address) -> u32 {
    u32::from(address.target) << 16 | u32::from(address.lun)
}

/// The address that has a number.
pub(super) fn address_of(number: u32) -> Address {
    Address { target: (number >> 16) as u8, lun: number as u16 }
}

fn taken(bus: &Bus, address: Address) -> CommandError {
    let guard = rcu::read();
    let other = bus.children(&guard).find(|child| child.address() == Some(number(address)));
    let id = other.and_then(|other| other.id()).unwrap_or("(null)");
    CommandError::generic(format!("lun already used by '{id}'"))
}

fn body(device: &Device) -> Option<&ScsiDisk> {
    device.body().and_then(|body| body.as_any().downcast_ref())
}

impl BusKind for ScsiBus {
    fn plug(&self, bus: &Bus, device: &Device) -> Result<u32, CommandError> {
        let address = self.address(bus, device)?;
        let Some(disk) = body(device) else {
            let text = format!("Device '{}' can't go on SCSI bus", device.ty().name);
            return Err(CommandError::generic(text));
        };
        let plugged = self.scsi.plug(address, Arc::clone(disk.unit()));
        plugged.map_err(|error| CommandError::generic(error.to_string()))?;
        disk.set_address(address);
        let told = Arc::downgrade(&self.scsi);
        disk.on_size_change(Box::new(move || {
            if let Some(scsi) = told.upgrade() {
                scsi.size_changed(address);
            }
        }));
        Ok(number(address))
    }

    fn request_unplug(&self, _: &Device) -> Result<Unplug, CommandError> {
        Ok(Unplug::Now)
    }

    fn unplug(&self, device: &Device) {
        let (Some(disk), Some(number)) = (body(device), device.address()) else { return };
        if let Some(gone) = self.scsi.unplug(address_of(number)) {
            disk.set_leaving(Box::pin(gone));
        }
    }
}
