//! The interrupt controllers (ACPI 6.5, section 5.2.12).

use super::pm::SCI_GSI;
use super::tables::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use acpi_tables::sdt::Sdt;
use vcpu::memory::layout;

const HEADER_BYTES: u32 = 36;
const REVISION: u8 = 5;
// There are two 8259s as well.
const PCAT_COMPATIBLE: u32 = 1;
const ENABLED: u32 = 1;

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const SOURCE_OVERRIDE: u8 = 2;
const LOCAL_APIC_NMI: u8 = 4;
const LOCAL_X2APIC: u8 = 9;
const LOCAL_X2APIC_NMI: u8 = 10;

// xAPIC IDs are a byte, and 0xff addresses all.
const X2APIC_FIRST: u32 = 0xff;
const ALL_PROCESSORS: u8 = 0xff;
const LINT1: u8 = 1;

// Flags of an interrupt: polarity in bits 0 and 1, trigger mode in bits 2 and 3.
const CONFORMS_TO_BUS: u16 = 0;
const ACTIVE_HIGH_LEVEL: u16 = 0b01 | 0b11 << 2;

const TIMER_IRQ: u8 = 0;
const TIMER_GSI: u32 = 2;

/// The MADT for processors with `apic_ids`; a processor's UID is its place in the list.
pub(super) fn madt(apic_ids: &[u32]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((layout::LAPIC as u32).to_le_bytes());
    body.extend(PCAT_COMPATIBLE.to_le_bytes());
    for (uid, apic_id) in (0u32..).zip(apic_ids) {
        processor(&mut body, uid, *apic_id);
    }
    io_apic(&mut body);
    source_override(&mut body, TIMER_IRQ, TIMER_GSI, CONFORMS_TO_BUS);
    source_override(&mut body, SCI_GSI as u8, SCI_GSI, ACTIVE_HIGH_LEVEL);
    nmi(&mut body, apic_ids.iter().any(|id| *id >= X2APIC_FIRST));
    let mut table = Sdt::new(*b"APIC", HEADER_BYTES, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

fn processor(body: &mut Vec<u8>, uid: u32, apic_id: u32) {
    match (u8::try_from(uid), u8::try_from(apic_id)) {
        (Ok(uid), Ok(id)) if apic_id < X2APIC_FIRST => {
            body.extend([LOCAL_APIC, 8, uid, id]);
            body.extend(ENABLED.to_le_bytes());
        }
        _ => {
            body.extend([LOCAL_X2APIC, 16, 0, 0]);
            body.extend(apic_id.to_le_bytes());
            body.extend(ENABLED.to_le_bytes());
            body.extend(uid.to_le_bytes());
        }
    }
}

fn io_apic(body: &mut Vec<u8>) {
    // ID 0, as the in-kernel one has at power-on; its inputs are the global interrupts from 0.
    body.extend([IO_APIC, 12, 0, 0]);
    body.extend((layout::IOAPIC as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
}

fn source_override(body: &mut Vec<u8>, irq: u8, gsi: u32, flags: u16) {
    // Bus 0 is ISA.
    body.extend([SOURCE_OVERRIDE, 10, 0, irq]);
    body.extend(gsi.to_le_bytes());
    body.extend(flags.to_le_bytes());
}

fn nmi(body: &mut Vec<u8>, x2apic: bool) {
    let [low, high] = CONFORMS_TO_BUS.to_le_bytes();
    body.extend([LOCAL_APIC_NMI, 6, ALL_PROCESSORS, low, high, LINT1]);
    if x2apic {
        body.extend([LOCAL_X2APIC_NMI, 12, low, high]);
        body.extend(u32::MAX.to_le_bytes());
        body.extend([LINT1, 0, 0, 0]);
    }
}
