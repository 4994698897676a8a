//! `-drive`.

use super::keyval::KeyVal;
use crate::config::{DeviceConfig, DriveConfig, Image};
use devices::block::{Cache, Discard, FileOptions};
use devices::qdev::DeviceRequest;

/// The size of the embedded guest's disk when no other is given.
const SCRATCH_SIZE: u64 = 64 << 20;

/// Drives, in the order of the command line.
#[derive(Default)]
pub(super) struct Drives {
    drives: Vec<Drive>,
}

struct Drive {
    id: Option<String>,
    image: FileOptions,
    serial: Option<String>,
    /// `if=virtio`: the drive makes its own device.
    attached: bool,
}

/// The disk that the embedded guest gets.
pub(super) fn scratch() -> (DriveConfig, DeviceConfig) {
    let id = "scratch".to_owned();
    let drive = DriveConfig { id: id.clone(), image: Image::Scratch(SCRATCH_SIZE) };
    (drive, virtio("the scratch disk", &id, Some("scratch")))
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

impl Drives {
    pub(super) fn drive(&mut self, value: &str) -> Result<(), String> {
        let mut kv = KeyVal::parse("drive", value, Some("file"))?;
        let file = kv.take("file").filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| kv.error("a drive needs file=PATH"))?;
        match kv.take("format").as_deref() {
            None | Some("raw") => {}
            Some(other) => {
                return Err(kv.error(&format!("there is no format '{other}'; there is raw")));
            }
        }
        let attached = match kv.take("if").as_deref() {
            None | Some("virtio") => true,
            Some("none") => false,
            Some(other) => {
                return Err(kv.error(&format!("there is no if={other}; there are virtio and none")));
            }
        };
        match kv.take("aio").as_deref() {
            None | Some("io_uring") => {}
            Some(other) => {
                return Err(kv.error(&format!("there is no aio={other}; there is io_uring")));
            }
        }
        let image = FileOptions {
            path: file.into(),
            read_only: kv.take_bool("readonly")?.or(kv.take_bool("read-only")?).unwrap_or(false),
            cache: keyword(&mut kv, "cache", "none, writeback, writethrough, directsync, unsafe")?
                .unwrap_or(Cache::WRITEBACK),
            discard: discard(&mut kv)?,
            locking: locking(&mut kv)?,
        };
        let (id, serial) = (kv.take("id"), kv.take("serial"));
        kv.take("media");
        kv.take("index");
        kv.finish("file, format, if, id, cache, readonly, discard, aio, file.locking, serial")?;
        if id.is_some() && self.drives.iter().any(|drive| drive.id == id) {
            return Err(format!("-drive: id '{}' is given twice", id.unwrap_or_default()));
        }
        self.drives.push(Drive { id, image, serial, attached });
        Ok(())
    }

    /// The drives, and the devices of those that make their own.
    pub(super) fn finish(self) -> (Vec<DriveConfig>, Vec<DeviceConfig>) {
        let (mut drives, mut devices) = (Vec::new(), Vec::new());
        let (mut of_virtio, mut others) = (0u32.., 0u32..);
        for drive in self.drives {
            // The names that QEMU gives to drives without one.
            let (prefix, numbers) =
                if drive.attached { ("virtio", &mut of_virtio) } else { ("none", &mut others) };
            let id = drive
                .id
                .unwrap_or_else(|| format!("{prefix}{}", numbers.next().unwrap_or_default()));
            if drive.attached {
                let option = format!("-drive id={id}");
                devices.push(virtio(&option, &id, drive.serial.as_deref()));
            }
            drives.push(DriveConfig { id, image: Image::File(drive.image) });
        }
        (drives, devices)
    }
}

fn keyword<T: std::str::FromStr>(
    kv: &mut KeyVal,
    key: &str,
    known: &str,
) -> Result<Option<T>, String> {
    kv.take(key)
        .map(|value| {
            value
                .parse()
                .map_err(|_| kv.error(&format!("there is no {key}={value}; there are {known}")))
        })
        .transpose()
}

fn discard(kv: &mut KeyVal) -> Result<Discard, String> {
    match kv.take("discard").as_deref() {
        None | Some("ignore" | "off") => Ok(Discard::Ignore),
        Some("unmap" | "on") => Ok(Discard::Unmap),
        Some(other) => {
            Err(kv.error(&format!("there is no discard={other}; there are ignore and unmap")))
        }
    }
}

fn locking(kv: &mut KeyVal) -> Result<bool, String> {
    match kv.take("file.locking").as_deref() {
        None | Some("auto" | "on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(kv.error(&format!("file.locking takes on, off or auto, not '{other}'"))),
    }
}
