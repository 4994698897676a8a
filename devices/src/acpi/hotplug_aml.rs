//! AML that finds out which slots of the root bus have changed, and tells the guest
//! (docs/specs/acpi_pci_hotplug; ACPI 6.5, sections 5.6.4, 6.3.3 and 6.1.11).

use super::dsdt::{Encoded, device, name};
use super::gpe::GPE_PCI_HOTPLUG;
use super::hotplug::HOTPLUG_PORT;
use crate::pci::DEVICES_PER_BUS;
use acpi_tables::Aml;
use acpi_tables::aml::{
    Acquire, And, Arg, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If,
    Local, Method, MethodCall, Mutex, Notify, OpRegion, OpRegionSpace, Path, Release, Return,
    Scope, ShiftLeft, Store,
};

/// The root bus, in the register that chooses a bus.
const ROOT_BUS: u8 = 0;
/// Device Check: look whether a device has come.
const NOTIFY_DEVICE_CHECK: u8 = 1;
/// Eject Request: the device shall go.
const NOTIFY_EJECT_REQUEST: u8 = 3;
const FOREVER: u16 = 0xffff;
const REGISTER_BITS: usize = 32;

/// What the root bridge has inside: registers, slots but for those of `bridges`, and methods about them.
pub(super) fn in_root_bridge(bridges: u32) -> Vec<Encoded> {
    let mut children = registers("PCST", HOTPLUG_PORT, &["PCIU", "PCID"]);
    children.extend(registers("SEJ_", HOTPLUG_PORT + 0x08, &["B0EJ"]));
    children.extend(registers("BNMR", HOTPLUG_PORT + 0x10, &["BNUM"]));
    children.push(Encoded::new(&Mutex::new("BLCK".into(), 0)));
    children.push(eject());
    children.extend(slots(bridges).map(slot));
    children.push(notify_slots(bridges));
    children.push(notify_bus());
    children
}

/// The event of the registers.
pub(super) fn event() -> Encoded {
    let method = format!("_E{GPE_PCI_HOTPLUG:02X}");
    let lock = || Path::new("\\_SB_.PCI0.BLCK");
    let (acquire, release) = (Acquire::new(lock(), FOREVER), Release::new(lock()));
    let look = MethodCall::new("\\_SB_.PCI0.PCNT".into(), Vec::new());
    let method = Method::new(method.as_str().into(), 0, false, vec![&acquire, &look, &release]);
    Encoded::new(&Scope::new("\\_GPE".into(), vec![&name("_HID", &"ACPI0006"), &method]))
}

/// The slots that devices can come to: all but that of the host bridge and those of other bridges.
fn slots(bridges: u32) -> impl Iterator<Item = u8> {
    (1..DEVICES_PER_BUS).filter(move |slot| bridges & 1 << slot == 0)
}

fn slot_name(slot: u8) -> String {
    format!("S{:02X}_", slot << 3)
}

/// Registers of 4 bytes from `port` on.
fn registers(region: &str, port: u16, fields: &[&'static str]) -> Vec<Encoded> {
    let length = 4 * fields.len() as u8;
    let space = OpRegion::new(region.into(), OpRegionSpace::SystemIO, &port, &length);
    let entry = |field: &&'static str| {
        let mut name = [0; 4];
        name.copy_from_slice(field.as_bytes());
        FieldEntry::Named(name, REGISTER_BITS)
    };
    let field = Field::new(
        region.into(),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        fields.iter().map(entry).collect(),
    );
    vec![Encoded::new(&space), Encoded::new(&field)]
}

/// `PCEJ(bus, slot)`: ejects what is in a slot.
fn eject() -> Encoded {
    let (lock, one) = ("BLCK", 1u8);
    Encoded::new(&Method::new(
        "PCEJ".into(),
        2,
        false,
        vec![
            &Acquire::new(lock.into(), FOREVER),
            &Store::new(&Path::new("BNUM"), &Arg(0)),
            &ShiftLeft::new(&Local(0), &one, &Arg(1)),
            &Store::new(&Path::new("B0EJ"), &Local(0)),
            &Release::new(lock.into()),
            &Return::new(&0u8),
        ],
    ))
}

/// A slot: its address, its number, and the method that ejects.
fn slot(slot: u8) -> Encoded {
    let number = Path::new("_SUN");
    let call = MethodCall::new("PCEJ".into(), vec![&ROOT_BUS, &number]);
    let eject = Encoded::new(&Method::new("_EJ0".into(), 1, false, vec![&call]));
    let address = u32::from(slot) << 16;
    device(&slot_name(slot), &[name("_SUN", &slot), name("_ADR", &address), eject])
}

/// `DVNT(slots, what)`: notifies each of the slots, a bit each.
fn notify_slots(bridges: u32) -> Encoded {
    let notify = |slot: u8| {
        let bit = 1u32 << slot;
        let path = slot_name(slot);
        let (path, what) = (Path::new(&path), Arg(1));
        let (notify, chosen) = (Notify::new(&path, &what), Arg(0));
        let masked = And::new(&Local(0), &chosen, &bit);
        let wanted = If::new(&masked, vec![&notify]);
        Encoded::new(&wanted)
    };
    let notifies: Vec<_> = slots(bridges).map(notify).collect();
    let children = notifies.iter().map(|notify| notify as &dyn Aml).collect();
    Encoded::new(&Method::new("DVNT".into(), 2, false, children))
}

/// `PCNT()`: notifies the slots that have changed. With the lock held.
fn notify_bus() -> Encoded {
    let (up, down) = (Path::new("PCIU"), Path::new("PCID"));
    Encoded::new(&Method::new(
        "PCNT".into(),
        0,
        false,
        vec![
            &Store::new(&Path::new("BNUM"), &ROOT_BUS),
            &MethodCall::new("DVNT".into(), vec![&up, &NOTIFY_DEVICE_CHECK]),
            &MethodCall::new("DVNT".into(), vec![&down, &NOTIFY_EJECT_REQUEST]),
        ],
    ))
}
