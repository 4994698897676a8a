//! The DSDT: what cannot be enumerated otherwise (ACPI 6.5, chapters 5, 6 and 19).

use super::gpe::{GPE0_LEN, GPE0_PORT};
use super::hotplug::{HOTPLUG_LEN, HOTPLUG_PORT};
use super::hotplug_aml;
use super::osc;
use super::pm::{PM_LEN, PM1_EVENT_PORT, SLEEP_TYPE_S5};
use super::tables::{AcpiConfig, OEM_ID, OEM_REVISION, OEM_TABLE_ID, bytes_of};
use crate::legacy::{
    FW_CFG_LEN, FW_CFG_PORT, RTC_LEN, RTC_PORT, SERIAL_IRQ, SERIAL_LEN, SERIAL_PORT,
};
use crate::pci::{CONFIG_PORTS, CONFIG_PORTS_LEN, DEVICES_PER_BUS, root_bus_gsi};
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, PackageBuilder, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use vcpu::memory::layout;

const HEADER_BYTES: u32 = 36;
// From revision 2 on integers have 64 bits.
const REVISION: u8 = 2;
const PINS: u8 = 4;
/// Machines with more processors have none in the DSDT, for want of room. Guests start processors by
/// the MADT; the objects are for power states and hot-plug.
const PROCESSOR_OBJECTS_MAX: usize = 1024;
/// Ports that hot-plug and general-purpose events have, inside the range that PCI gets otherwise.
const EVENT_PORTS: std::ops::Range<u16> = 0xae00..0xb000;

/// A piece of AML that has been made already.
pub(super) struct Encoded(Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

impl Encoded {
    pub(super) fn new(aml: &dyn Aml) -> Self {
        Self(bytes_of(aml))
    }
}

/// The DSDT for `config`.
pub(super) fn dsdt(config: &AcpiConfig) -> Vec<u8> {
    let mut devices = vec![pci_root(config), motherboard(), serial(), clock(), fw_cfg()];
    let processors = config.apic_ids.len();
    if processors <= PROCESSOR_OBJECTS_MAX {
        devices.extend((0..processors).map(processor));
    }
    let children = devices.iter().map(|device| device as &dyn Aml).collect();
    let scope = Scope::new("\\_SB_".into(), children);
    let mut table = Sdt::new(*b"DSDT", HEADER_BYTES, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut body = bytes_of(&scope);
    body.extend(soft_off().0);
    body.extend(hotplug_aml::event().0);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

pub(super) fn name(path: &str, value: &dyn Aml) -> Encoded {
    Encoded::new(&Name::new(path.into(), value))
}

pub(super) fn device(path: &str, children: &[Encoded]) -> Encoded {
    let children = children.iter().map(|child| child as &dyn Aml).collect();
    Encoded::new(&Device::new(path.into(), children))
}

fn resources(children: &[Encoded]) -> Encoded {
    let children = children.iter().map(|child| child as &dyn Aml).collect();
    name("_CRS", &ResourceTemplate::new(children))
}

// `len` ports from `base`. The descriptor's length is a byte; none of ours has more.
fn ports(base: u16, len: u16) -> Encoded {
    Encoded::new(&IO::new(base, base, 1, len as u8))
}

// A device that PNP software knows by `hid`.
fn pnp(path: &str, hid: &str, crs: &[Encoded]) -> Encoded {
    device(path, &[name("_HID", &EISAName::new(hid)), name("_UID", &0u8), resources(crs)])
}

fn soft_off() -> Encoded {
    let sleep_type = SLEEP_TYPE_S5 as u8;
    name("\\_S5_", &Package::new(vec![&sleep_type, &sleep_type, &0u8, &0u8]))
}

// PCI Firmware 3.0, section 4.
fn pci_root(config: &AcpiConfig) -> Encoded {
    let mut children = vec![
        name("_HID", &EISAName::new("PNP0A08")),
        name("_CID", &EISAName::new("PNP0A03")),
        name("_UID", &0u8),
        name("_SEG", &0u8),
        name("_BBN", &0u8),
        resources(&pci_windows(config)),
        interrupt_routing(),
    ];
    children.extend(hotplug_aml::in_root_bridge(config.bridges));
    // The guest may handle the hot-plug of ports itself.
    if config.bridges != 0 {
        children.push(osc::method());
    }
    device("PCI0", &children)
}

// What the host bridge passes on: ports but for those of configuration accesses and of events, and
// memory that is neither RAM nor a fixed device.
fn pci_windows(config: &AcpiConfig) -> Vec<Encoded> {
    let configuration = CONFIG_PORTS as u16;
    let after = configuration + CONFIG_PORTS_LEN as u16;
    let io = |min: u16, max: u16| Encoded::new(&AddressSpace::new_io(min, max, None));
    let kind = AddressSpaceCacheable::NotCacheable;
    let memory32 = AddressSpace::new_memory(
        kind,
        true,
        layout::PCI32.start as u32,
        (layout::PCI32.end - 1) as u32,
        None,
    );
    let mut windows = vec![
        Encoded::new(&AddressSpace::new_bus_number(0u16, 0xff)),
        ports(configuration, CONFIG_PORTS_LEN as u16),
        io(0, configuration - 1),
        io(after, EVENT_PORTS.start - 1),
        io(EVENT_PORTS.end, u16::MAX),
        Encoded::new(&memory32),
    ];
    if !config.pci64.is_empty() {
        let (first, last) = (config.pci64.start, config.pci64.end - 1);
        let memory64 = AddressSpace::new_memory(kind, true, first, last, None);
        windows.push(Encoded::new(&memory64));
    }
    windows
}

// Each pin of each device on the root bus, straight to an input of the I/O APIC.
fn interrupt_routing() -> Encoded {
    let mut routing = PackageBuilder::new();
    for slot in 0..DEVICES_PER_BUS {
        for pin in 0..PINS {
            let all_functions = u32::from(slot) << 16 | 0xffff;
            let gsi = root_bus_gsi(slot, pin);
            routing.add_element(&Package::new(vec![&all_functions, &pin, &0u8, &gsi]));
        }
    }
    name("_PRT", &routing)
}

// What belongs to the machine itself: ECAM (which MCFG refers to) and the power management ports.
fn motherboard() -> Encoded {
    let size = (layout::ECAM.end - layout::ECAM.start) as u32;
    let ecam = Memory32Fixed::new(true, layout::ECAM.start as u32, size);
    pnp(
        "MBRD",
        "PNP0C02",
        &[
            Encoded::new(&ecam),
            ports(PM1_EVENT_PORT, PM_LEN),
            ports(GPE0_PORT, GPE0_LEN),
            ports(HOTPLUG_PORT, HOTPLUG_LEN),
        ],
    )
}

fn serial() -> Encoded {
    let irq = Interrupt::new(true, true, false, false, SERIAL_IRQ);
    pnp("COM1", "PNP0501", &[ports(SERIAL_PORT, SERIAL_LEN), Encoded::new(&irq)])
}

fn clock() -> Encoded {
    pnp("RTC_", "PNP0B00", &[ports(RTC_PORT, RTC_LEN)])
}

fn fw_cfg() -> Encoded {
    device("FWCF", &[name("_HID", &"QEMU0002"), resources(&[ports(FW_CFG_PORT, FW_CFG_LEN)])])
}

fn processor(index: usize) -> Encoded {
    let uid = index as u32;
    device(&format!("C{index:03X}"), &[name("_HID", &"ACPI0007"), name("_UID", &uid)])
}
