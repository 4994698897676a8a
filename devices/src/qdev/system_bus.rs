//! The bus of a machine that has no other: nothing can be plugged in.

use super::bus::{Bus, BusKind, Unplug};
use super::device::Device;
use crate::error::CommandError;
use std::sync::Arc;

/// QEMU's names.
const NAME: &str = "main-system-bus";
const TYPE: &str = "System";
const PATH: &str = "/machine/unattached/sysbus";

/// No type of device is for it, so that none is ever plugged in.
struct SystemBus;

impl SystemBus {
    fn refuse<T>() -> Result<T, CommandError> {
        Err(CommandError::generic(format!("Bus '{NAME}' does not support hotplugging")))
    }
}

impl BusKind for SystemBus {
    fn hotpluggable(&self) -> bool {
        false
    }

    fn plug(&self, _: &Bus, _: &Device) -> Result<u32, CommandError> {
        Self::refuse()
    }

    fn request_unplug(&self, _: &Device) -> Result<Unplug, CommandError> {
        Self::refuse()
    }

    fn unplug(&self, _: &Device) {}
}

/// The root bus of a machine without devices.
pub fn system_bus() -> Arc<Bus> {
    Bus::new(NAME, TYPE, PATH, Box::new(SystemBus))
}

/// Whether `root` is such a bus.
pub(crate) fn is_system_bus(root: &Bus) -> bool {
    root.type_name() == TYPE
}
