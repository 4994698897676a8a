//! `_OSC` of the root bridge: which features of PCI Express are the guest's (PCI Firmware 3.0, section 4.5.1).

use super::dsdt::Encoded;
use acpi_tables::aml::{
    And, Arg, CreateDWordField, Else, Equal, If, Local, Method, NotEqual, Or, Path, Return, Store,
    Uuid,
};

const PCI_HOST_BRIDGE: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
const REVISION: u8 = 1;
/// Native hot-plug, power management events, the PCI Express capability.
const GRANTED: u8 = 1 << 0 | 1 << 2 | 1 << 4;
const STATUS_UNKNOWN_UUID: u8 = 1 << 2;
const STATUS_UNKNOWN_REVISION: u8 = 1 << 3;
const STATUS_MASKED: u8 = 1 << 4;
/// Offset of the third word of the capabilities: what the guest wants to control.
const CONTROL: u8 = 8;

/// The method.
pub(super) fn method() -> Encoded {
    let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
    let (buffer, wanted) = (Arg(3), Local(0));
    let status_field = CreateDWordField::new(&status, &buffer, &0u8);
    let control_field = CreateDWordField::new(&control, &buffer, &CONTROL);
    let grant = And::new(&wanted, &control, &GRANTED);
    let note_revision = Or::new(&status, &status, &STATUS_UNKNOWN_REVISION);
    let (revision, masked) = (NotEqual::new(&Arg(1), &REVISION), NotEqual::new(&control, &wanted));
    let check_revision = If::new(&revision, vec![&note_revision]);
    let note_masked = Or::new(&status, &status, &STATUS_MASKED);
    let check_masked = If::new(&masked, vec![&note_masked]);
    let answer = Store::new(&control, &wanted);
    let refuse = Or::new(&status, &status, &STATUS_UNKNOWN_UUID);
    let uuid = Uuid::new(PCI_HOST_BRIDGE);
    let ours = Equal::new(&Arg(0), &uuid);
    let known =
        If::new(&ours, vec![&control_field, &grant, &check_revision, &check_masked, &answer]);
    let unknown = Else::new(vec![&refuse]);
    let done = Return::new(&buffer);
    // Serialized: the fields are named objects.
    Encoded::new(&Method::new("_OSC".into(), 4, true, vec![&status_field, &known, &unknown, &done]))
}
