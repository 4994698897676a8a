//! `-drive` and `-device virtio-blk-pci`.

use super::keyval::KeyVal;
use crate::config::{DiskConfig, Image};
use devices::block::{Cache, Discard, FileOptions};

/// The size of the embedded guest's disk when no other is given.
const SCRATCH_SIZE: u64 = 64 << 20;

/// As many as MSI-X vectors and the transport allow with room for the configuration vector.
const QUEUES_MAX: u64 = 256;

/// Drives and the devices that refer to them, in any order on the command line.
#[derive(Default)]
pub(super) struct Drives {
    drives: Vec<Drive>,
    devices: Vec<Device>,
}

struct Drive {
    id: Option<String>,
    image: FileOptions,
    serial: Option<String>,
    /// `if=virtio`: the drive makes its own device.
    attached: bool,
}

struct Device {
    drive: String,
    id: Option<String>,
    serial: Option<String>,
    queues: u16,
    queue_size: u16,
    slot: Option<(u8, u8)>,
}

/// The disk that the embedded guest gets.
pub(super) fn scratch() -> DiskConfig {
    DiskConfig {
        id: None,
        image: Image::Scratch(SCRATCH_SIZE),
        serial: Some("scratch".to_owned()),
        queues: 0,
        queue_size: 256,
        slot: None,
    }
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

    pub(super) fn device(&mut self, value: &str) -> Result<(), String> {
        let mut kv = KeyVal::parse("device", value, Some("driver"))?;
        match kv.take("driver").as_deref() {
            Some("virtio-blk-pci" | "virtio-blk") => {}
            Some(other) => {
                return Err(
                    kv.error(&format!("there is no device '{other}'; there is virtio-blk-pci"))
                );
            }
            None => return Err(kv.error("a device needs a type, such as virtio-blk-pci")),
        }
        let drive = kv.take("drive").ok_or_else(|| kv.error("virtio-blk-pci needs drive=ID"))?;
        if kv.take("bus").is_some_and(|bus| bus != "pci.0") {
            return Err(kv.error("there is no such bus; there is pci.0"));
        }
        let slot = match kv.take("addr") {
            None => None,
            Some(text) => Some(slot(&text).ok_or_else(|| {
                kv.error(&format!("'addr={text}' is no PCI address; write 4, 04.0 or 0x4"))
            })?),
        };
        let queues = kv.take_number("num-queues", 1..=QUEUES_MAX)?.unwrap_or(0) as u16;
        let queue_size = kv.take_number("queue-size", 2..=1024)?.unwrap_or(256) as u16;
        if !queue_size.is_power_of_two() {
            return Err(kv.error("'queue-size' takes a power of two"));
        }
        let device = Device {
            drive,
            id: kv.take("id"),
            serial: kv.take("serial"),
            queues,
            queue_size,
            slot,
        };
        kv.finish("drive, id, serial, num-queues, queue-size, bus, addr")?;
        self.devices.push(device);
        Ok(())
    }

    /// Joins devices and drives.
    pub(super) fn finish(self) -> Result<Vec<DiskConfig>, String> {
        let mut disks = Vec::new();
        let mut devices = self.devices;
        for drive in self.drives {
            let user = drive
                .id
                .as_ref()
                .and_then(|id| devices.iter().position(|device| device.drive == *id));
            let image = Image::File(drive.image);
            match (drive.attached, user) {
                (true, Some(_)) => {
                    let id = drive.id.unwrap_or_default();
                    return Err(format!(
                        "-drive id={id} has a device of its own (if=virtio); add if=none"
                    ));
                }
                (true, None) => disks.push(DiskConfig {
                    id: drive.id,
                    image,
                    serial: drive.serial,
                    queues: 0,
                    queue_size: 256,
                    slot: None,
                }),
                (false, Some(at)) => {
                    let device = devices.remove(at);
                    disks.push(DiskConfig {
                        id: device.id,
                        image,
                        serial: device.serial.or(drive.serial),
                        queues: device.queues,
                        queue_size: device.queue_size,
                        slot: device.slot,
                    });
                }
                // As in QEMU: a drive that nothing uses yet is no mistake, but there is no way to
                // use it later here.
                (false, None) => {
                    let id = drive.id.unwrap_or_default();
                    return Err(format!(
                        "-drive id={id} is used by no device; add -device virtio-blk-pci,drive={id}"
                    ));
                }
            }
        }
        match devices.first() {
            None => Ok(disks),
            Some(device) => Err(format!(
                "-device: there is no free drive '{0}'; add -drive id={0},if=none,file=...",
                device.drive
            )),
        }
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

/// `4`, `4.0`, `04.0`, `0x4`, `0x4.1`: slot and function, the slot in hexadecimal as QEMU reads it.
fn slot(text: &str) -> Option<(u8, u8)> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let slot = u8::from_str_radix(slot.strip_prefix("0x").unwrap_or(slot), 16).ok()?;
    let function = u8::from_str_radix(function, 16).ok()?;
    (slot < 32 && function < 8).then_some((slot, function))
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn slots_in_every_form() {
        for (text, expected) in [
            ("4", Some((4, 0))),
            ("04.0", Some((4, 0))),
            ("0x06", Some((6, 0))),
            ("1f.7", Some((31, 7))),
            ("20", None),
            ("4.8", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(slot(text), expected, "{text}");
        }
    }
}
