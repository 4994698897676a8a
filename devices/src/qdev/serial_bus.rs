//! The ports of a virtio console as a bus of the device tree.

use super::bus::{Bus, BusKind, Unplug};
use super::device::Device;
use super::types::serial_port::SerialPort;
use crate::error::CommandError;
use crate::virtio::console::VirtioConsole;
use std::sync::Arc;

/// What types of ports call the bus.
pub(super) const SERIAL: &str = "virtio-serial-bus";

/// The bus of a virtio console. Its ports go at once: the guest is told, not asked.
pub(super) struct SerialBus {
    console: Arc<VirtioConsole>,
}

impl SerialBus {
    /// The bus called `name` of `console`, at `path` in the object tree.
    pub(super) fn bus(console: Arc<VirtioConsole>, name: &str, path: &str) -> Arc<Bus> {
        Bus::new(name, SERIAL, path, Box::new(Self { console }))
    }
}

impl BusKind for SerialBus {
    fn plug(&self, _: &Bus, device: &Device) -> Result<u32, CommandError> {
        let body = device.body();
        let port: Option<&SerialPort> = body.and_then(|body| body.as_any().downcast_ref());
        let Some(port) = port else {
            let text = format!("Device '{}' can't go on {SERIAL} bus", device.ty().name);
            return Err(CommandError::generic(text));
        };
        let plugged = port.plug(&self.console);
        plugged.map_err(|error| CommandError::generic(error.to_string()))
    }

    fn request_unplug(&self, _: &Device) -> Result<Unplug, CommandError> {
        Ok(Unplug::Now)
    }

    fn unplug(&self, device: &Device) {
        if let Some(number) = device.address() {
            self.console.unplug(number);
        }
    }
}
