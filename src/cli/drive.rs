//! `-drive` and `-blockdev`.

use super::device::json;
use crate::config::{DeviceConfig, DriveConfig, NodeConfig};
use devices::block::graph::{DriveOptions, Interface, Options};
use devices::qdev::DeviceRequest;

/// The size of the embedded guest's disk when no other is given.
const SCRATCH_SIZE: u64 = 64 << 20;

/// Drives, in the order of the command line.
#[derive(Default)]
pub(super) struct Drives {
    drives: Vec<(String, DriveOptions)>,
}

/// The disk that the embedded guest gets.
pub(super) fn scratch() -> (DriveConfig, DeviceConfig) {
    let (id, option) = ("scratch".to_owned(), "the scratch disk".to_owned());
    let device = virtio(&option, &id, Some("scratch"));
    let drive = DriveOptions::scratch(&id, SCRATCH_SIZE);
    (DriveConfig { option, id, drive }, device)
}

/// The device that a drive makes for itself.
fn virtio(option: &str, drive: &str, serial: Option<&str>) -> DeviceConfig {
    let mut arguments = serde_json::Map::new();
    let mut set = |key: &str, value: &str| arguments.insert(key.to_owned(), value.into());
    set("driver", "virtio-blk-pci");
    set("drive", drive);
    if let Some(serial) = serial {
        set("serial", serial);
    }
    DeviceConfig { option: option.to_owned(), request: DeviceRequest::json(arguments) }
}

/// Parses the value of `-blockdev`.
pub(super) fn node(value: &str) -> Result<NodeConfig, String> {
    let option = format!("-blockdev {value}");
    let options = if value.starts_with('{') {
        json(value).and_then(|map| Options::parse(map).map_err(|error| error.to_string()))
    } else {
        Options::keyval(value).map_err(|error| error.to_string())
    };
    let options = options.map_err(|error| format!("{option}: {error}"))?;
    Ok(NodeConfig { option, options })
}

impl Drives {
    pub(super) fn drive(&mut self, value: &str) -> Result<(), String> {
        let option = format!("-drive {value}");
        let drive = DriveOptions::parse(value).map_err(|error| format!("{option}: {error}"))?;
        if let Some(Interface::Other(_)) = drive.interface {
            return Err(format!("{option}: there is no such interface; there are virtio and none"));
        }
        if let Some(id) = &drive.id
            && self.drives.iter().any(|(_, known)| known.id == drive.id)
        {
            return Err(format!("{option}: Duplicate ID '{id}' for drive"));
        }
        self.drives.push((option, drive));
        Ok(())
    }

    /// The drives, and the devices of those that make their own.
    pub(super) fn finish(self) -> (Vec<DriveConfig>, Vec<DeviceConfig>) {
        let (mut drives, mut devices) = (Vec::new(), Vec::new());
        let (mut of_virtio, mut others) = (0u32.., 0u32..);
        for (option, drive) in self.drives {
            let attached = drive.interface != Some(Interface::None);
            // The names that QEMU gives to drives without one.
            let (prefix, numbers) =
                if attached { ("virtio", &mut of_virtio) } else { ("none", &mut others) };
            let id = drive.id.clone();
            let id =
                id.unwrap_or_else(|| format!("{prefix}{}", numbers.next().unwrap_or_default()));
            if attached {
                devices.push(virtio(&option, &id, drive.serial.as_deref()));
            }
            drives.push(DriveConfig { option, id, drive });
        }
        (drives, devices)
    }
}
