//! Types of devices by name.

pub(super) mod root_port;
pub(super) mod scsi_disk;
pub(super) mod serial_port;
pub(super) mod virtio_balloon;
pub(super) mod virtio_blk;
pub(super) mod virtio_net;
pub(super) mod virtio_pci;
pub(super) mod virtio_rng;
pub(super) mod virtio_scsi;
pub(super) mod virtio_serial;

use super::BoxFuture;
use super::device::Realized;
use super::property::{Kind, Property, Words};
use super::setup::Setup;
use super::value::Properties;
use crate::error::CommandError;
use std::fmt::Write as _;
use std::sync::Arc;

/// Makes what is behind a device. In `main`; what it has taken when it fails, it has given back.
pub type Realize = for<'a> fn(Setup<'a>) -> BoxFuture<'a, Result<Arc<dyn Realized>, CommandError>>;

/// A type of device that users can make.
#[derive(Debug)]
pub struct DeviceType {
    /// Its name.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// The type that it derives from, in [`TypeInfo`]s.
    pub parent: &'static str,
    /// The heading of the help it stands under, without "devices".
    pub category: &'static str,
    /// The kind of bus it goes on.
    pub bus: &'static str,
    /// What it is.
    pub description: Option<&'static str>,
    /// The declarations of its properties, in groups that types share.
    pub properties: &'static [&'static [Property]],
    /// Makes one.
    pub realize: Realize,
}

impl DeviceType {
    /// Its properties.
    pub fn properties(&self) -> impl Iterator<Item = &'static Property> + use<> {
        self.properties.iter().flat_map(|group| group.iter())
    }

    /// The defaults of its properties.
    pub(super) fn defaults(&'static self) -> Properties {
        Properties::defaults(self.name, self.properties())
    }

    /// What `-device TYPE,help` prints.
    pub fn help(&self) -> String {
        let mut lines: Vec<_> = self.properties().map(Property::help_line).collect();
        lines.sort_unstable();
        format!("{} options:\n{}\n", self.name, lines.join("\n"))
    }

    fn help_line(&self) -> String {
        let mut line = format!("name \"{}\", bus {}", self.name, self.bus);
        if let Some(alias) = self.alias {
            let _infallible = write!(line, ", alias \"{alias}\"");
        }
        if let Some(description) = self.description {
            let _infallible = write!(line, ", desc \"{description}\"");
        }
        line
    }
}

/// What every device on a PCI bus has.
pub const PCI_PROPERTIES: &[Property] = &[
    Property::int("addr", Kind::PciAddress, -1)
        .help("Slot and optional function number, example: 06.0 or 06"),
    Property::bool("multifunction", false),
];

const ON_ERROR: Words =
    Words { name: "BlockdevOnError", words: &["report", "ignore", "enospc", "stop", "auto"] };

/// What every device that stores has.
const DRIVE_PROPERTIES: &[Property] = &[
    Property::new("drive", Kind::Drive)
        .help("Node name or ID of a block device to use as a backend"),
    Property::on_off_auto("write-cache"),
    Property::bool("share-rw", false),
    Property::words("rerror", &ON_ERROR, "auto").help(ON_ERROR_HELP),
    Property::words("werror", &ON_ERROR, "auto").help(ON_ERROR_HELP),
];
const ON_ERROR_HELP: &str = "Error handling policy (report/ignore/enospc/stop/auto)";

/// A type in the tree of types that is no device that users can make.
#[derive(Clone, Copy, Debug)]
pub struct TypeInfo {
    /// Its name.
    pub name: &'static str,
    /// The type that it derives from.
    pub parent: Option<&'static str>,
    /// There are instances of derived types only.
    pub is_abstract: bool,
}

const fn base(name: &'static str, parent: &'static str) -> TypeInfo {
    TypeInfo { name, parent: Some(parent), is_abstract: true }
}

const fn part(name: &'static str, parent: &'static str) -> TypeInfo {
    TypeInfo { name, parent: Some(parent), is_abstract: false }
}

/// The types around devices: what they derive from, and what the machine is made of.
pub(crate) const TREE: &[TypeInfo] = &[
    TypeInfo { name: "object", parent: None, is_abstract: true },
    base("bus", "object"),
    part("PCI", "bus"),
    part("PCIE", "PCI"),
    part("System", "bus"),
    part("SCSI", "bus"),
    part("virtio-serial-bus", "bus"),
    part("container", "object"),
    base("event-loop-base", "object"),
    base("memory-backend", "object"),
    base("rng-backend", "object"),
    base("secret_common", "object"),
    TypeInfo { name: "interface", parent: None, is_abstract: true },
    base("user-creatable", "interface"),
    base("machine", "object"),
    part("none-machine", "machine"),
    part("pc-machine", "machine"),
    base("device", "object"),
    base("pci-device", "device"),
    base("base-pci-bridge", "pci-device"),
    base("pcie-port", "base-pci-bridge"),
    base("pcie-slot", "pcie-port"),
    base("pcie-root-port-base", "pcie-slot"),
    base("virtio-pci", "pci-device"),
    base("virtio-balloon-pci-base", "virtio-pci"),
    base("virtio-blk-pci-base", "virtio-pci"),
    base("virtio-net-pci-base", "virtio-pci"),
    base("virtio-rng-pci-base", "virtio-pci"),
    base("virtio-scsi-pci-base", "virtio-pci"),
    base("virtio-serial-pci-base", "virtio-pci"),
    base("virtio-serial-port", "device"),
    base("scsi-device", "device"),
    base("scsi-disk-base", "scsi-device"),
    part("i440FX", "pci-device"),
    base("cpu", "device"),
    base("x86_64-cpu", "cpu"),
    part("max-x86_64-cpu", "x86_64-cpu"),
    part("host-x86_64-cpu", "max-x86_64-cpu"),
    base("system-bus-device", "device"),
    part("i440FX-pcihost", "system-bus-device"),
];

/// Whether a type of the tree derives from `device`.
fn is_device(name: &str) -> bool {
    let mut at = Some(name);
    while let Some(name) = at {
        if name == "device" {
            return true;
        }
        at = TREE.iter().find(|ty| ty.name == name).and_then(|ty| ty.parent);
    }
    false
}

fn is_help(text: &str) -> bool {
    matches!(text, "help" | "?")
}

const DEVICES: &[&DeviceType] = &[
    &root_port::PCIE_ROOT_PORT,
    &virtio_blk::VIRTIO_BLK_PCI,
    &virtio_balloon::VIRTIO_BALLOON_PCI,
    &virtio_net::VIRTIO_NET_PCI,
    &virtio_rng::VIRTIO_RNG_PCI,
    &virtio_scsi::VIRTIO_SCSI_PCI,
    &virtio_serial::VIRTIO_SERIAL_PCI,
    &serial_port::VIRTSERIALPORT,
    &serial_port::VIRTCONSOLE,
    &scsi_disk::SCSI_HD,
    &scsi_disk::SCSI_CD,
];

/// The types of a machine's devices.
#[derive(Clone, Debug)]
pub struct Types {
    devices: Vec<&'static DeviceType>,
}

impl Default for Types {
    fn default() -> Self {
        Self { devices: DEVICES.to_vec() }
    }
}

impl Types {
    /// All that this program has.
    pub fn new() -> Self {
        Self::default()
    }

    /// These as well.
    #[must_use]
    pub fn with(mut self, more: &[&'static DeviceType]) -> Self {
        self.devices.extend(more);
        self
    }

    /// The types of devices.
    pub fn devices(&self) -> &[&'static DeviceType] {
        &self.devices
    }

    /// The type of this name or alias that users can make. The errors are those of `device_add`.
    pub fn device(&self, name: &str) -> Result<&'static DeviceType, CommandError> {
        let found = self.devices.iter().find(|ty| ty.name == name || ty.alias == Some(name));
        if let Some(found) = found {
            return Ok(found);
        }
        Err(CommandError::generic(if is_device(name) {
            "Parameter 'driver' expects a non-abstract device type".to_owned()
        } else {
            format!("'{name}' is not a valid device model name")
        }))
    }

    /// The help that an option string asks for: `help`, or `TYPE,help`.
    pub fn help_for(&self, text: &str) -> Result<Option<String>, CommandError> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        if is_help(first) {
            return Ok(Some(self.help()));
        }
        if !parts.any(is_help) {
            return Ok(None);
        }
        let name = first.strip_prefix("driver=").unwrap_or(first);
        self.device(name).map(|ty| Some(ty.help()))
    }

    /// What `-device help` prints.
    pub fn help(&self) -> String {
        let mut categories: Vec<_> = self.devices.iter().map(|ty| ty.category).collect();
        categories.sort_unstable();
        categories.dedup();
        let mut text = String::new();
        for category in categories {
            let _infallible = writeln!(text, "{category} devices:");
            let members = self.devices.iter().filter(|ty| ty.category == category);
            let mut lines: Vec<_> = members.map(|ty| ty.help_line()).collect();
            lines.sort_unstable();
            let _infallible = writeln!(text, "{}\n", lines.join("\n"));
        }
        text
    }
}

/// Bytes of the smallest block.
const BLOCK_MIN: u64 = 512;
/// What QEMU's properties allow; the devices themselves take less.
const BLOCK_MAX: u64 = 2 << 20;
const BLOCK_HELP: &str = "A power of two between 512 B and 2 MiB";

/// A block size; `None`: it is not set.
fn block_size(setup: &Setup<'_>, name: &str) -> Result<Option<u32>, CommandError> {
    let size = setup.properties.uint(name);
    if size == 0 {
        return Ok(None);
    }
    if !size.is_power_of_two() || !(BLOCK_MIN..=BLOCK_MAX).contains(&size) {
        return Err(CommandError::generic(format!(
            "parameter {name} must be a power of 2 between {BLOCK_MIN} and {BLOCK_MAX}"
        )));
    }
    Ok(Some(size as u32))
}

/// The property `write-cache` of a disk; `None`: as the drive says.
fn write_cache(setup: &Setup<'_>) -> Option<bool> {
    match setup.properties.text("write-cache") {
        Some("on") => Some(true),
        Some("off") => Some(false),
        _ => None,
    }
}
