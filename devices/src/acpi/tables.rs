//! The tables outside AML, and where they lie in guest memory (ACPI 6.5, section 5.2).

use super::gpe::{GPE0_LEN, GPE0_PORT};
use super::pm::{PM_TIMER_PORT, PM1_CONTROL_PORT, PM1_EVENT_PORT, SCI_GSI};
use super::{dsdt, madt};
use crate::pci::{RESET_PORT, RESET_VALUE};
use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use std::ops::Range;
use vcpu::memory::{Ram, layout};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

pub(super) const OEM_ID: [u8; 6] = *b"RINGV ";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"RINGVISR";
pub(super) const OEM_REVISION: u32 = 1;

// Alignment of FACS (ACPI 6.5, section 5.2.10); all others are content with it.
const TABLE_ALIGNMENT: u64 = 64;
// IA-PC boot architecture flags: there is no VGA. No other legacy device is claimed.
const BOOT_NO_VGA: u16 = 1 << 2;
const CMOS_CENTURY: u8 = 0x32;

/// Why a guest cannot be given its tables.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They have outgrown their place.
    #[error(
        "ACPI tables for {cpus} CPUs need {size:#x} bytes of {room:#x} reserved; use fewer (-smp)"
    )]
    NoRoom {
        /// Processors described.
        cpus: usize,
        /// Bytes needed.
        size: u64,
        /// Bytes there are.
        room: u64,
    },
    /// Guest memory has no RAM at their place.
    #[error(
        "the ACPI tables cannot be written to guest memory; give the guest at least 2 MiB (-m)"
    )]
    Memory(#[source] GuestMemoryError),
}

/// What the tables tell of the machine beyond what is fixed.
#[derive(Clone, Debug)]
pub struct AcpiConfig {
    /// Local APIC ID of each processor; the first is the boot processor.
    pub apic_ids: Vec<u32>,
    /// The 64-bit PCI window; may be empty.
    pub pci64: Range<u64>,
    /// Slots of the root bus that have bridges, a bit each. They are no slots of ACPI hot-plug: a guest
    /// that looks through all of these, because a device has come to one, would go on to the buses below,
    /// and find what native hot-plug is about to switch off.
    pub bridges: u32,
}

/// One table as it lies in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its signature.
    pub signature: &'static str,
    /// Guest-physical address.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All tables, the RSDP first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    /// In ascending order of addresses, without overlap.
    pub tables: Vec<Table>,
}

impl AcpiTables {
    /// Address of the RSDP.
    pub fn rsdp(&self) -> u64 {
        layout::ACPI.start
    }

    /// The first table with `signature`.
    pub fn find(&self, signature: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.signature == signature)
    }
}

// Lays tables out one after the other.
struct Layout {
    next: u64,
    tables: Vec<Table>,
}

impl Layout {
    fn place(&mut self, signature: &'static str, bytes: Vec<u8>) -> u64 {
        let address = self.next;
        self.next = (address + bytes.len() as u64).next_multiple_of(TABLE_ALIGNMENT);
        self.tables.push(Table { signature, address, bytes });
        address
    }
}

/// Makes the tables for `config`, to lie in the ACPI range of the machine map.
pub fn build(config: &AcpiConfig) -> Result<AcpiTables, AcpiError> {
    let start = layout::ACPI.start;
    // The RSDP comes first in memory and is made last.
    let mut layout = Layout { next: start + TABLE_ALIGNMENT, tables: Vec::new() };
    let dsdt = layout.place("DSDT", dsdt::dsdt(config));
    let facs = layout.place("FACS", bytes_of(&FACS::new()));
    let fadt = layout.place("FACP", fadt(dsdt, facs));
    let madt = layout.place("APIC", madt::madt(&config.apic_ids));
    let mcfg = layout.place("MCFG", mcfg());
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = layout.place("XSDT", bytes_of(&xsdt));
    let rsdp = bytes_of(&Rsdp::new(OEM_ID, xsdt));
    layout.tables.insert(0, Table { signature: "RSD PTR ", address: start, bytes: rsdp });

    let (size, room) = (layout.next - start, layout::ACPI.end - start);
    if size > room {
        return Err(AcpiError::NoRoom { cpus: config.apic_ids.len(), size, room });
    }
    Ok(AcpiTables { tables: layout.tables })
}

/// Makes the tables and writes them to `ram`. Returns the address of the RSDP. Called before a
/// guest starts, and again at each reset since the guest may have overwritten them.
pub fn install(ram: &Ram, config: &AcpiConfig) -> Result<u64, AcpiError> {
    let tables = build(config)?;
    for table in &tables.tables {
        ram.write_slice(&table.bytes, GuestAddress(table.address)).map_err(AcpiError::Memory)?;
    }
    Ok(tables.rsdp())
}

pub(super) fn bytes_of(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

fn port(address: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, address.into())
}

// No SMI command port: the machine is in ACPI mode from the start. The power button is the fixed
// one (its flag is clear), there is no sleep button (its flag is set), the clock cannot wake.
fn fadt(dsdt: u64, facs: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    // Both widths of each address: old guests read the narrow one.
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.firmware_ctrl = (facs as u32).into();
    fadt.sci_int = (SCI_GSI as u16).into();
    fadt.pm1a_evt_blk = u32::from(PM1_EVENT_PORT).into();
    fadt.x_pm1a_evt_blk = port(PM1_EVENT_PORT, 32, AccessSize::WordAccess);
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(PM1_CONTROL_PORT).into();
    fadt.x_pm1a_cnt_blk = port(PM1_CONTROL_PORT, 16, AccessSize::WordAccess);
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(PM_TIMER_PORT).into();
    fadt.x_pm_tmr_blk = port(PM_TIMER_PORT, 32, AccessSize::DwordAccess);
    fadt.pm_tmr_len = 4;
    fadt.gpe0_blk = u32::from(GPE0_PORT).into();
    fadt.x_gpe0_blk = port(GPE0_PORT, 32, AccessSize::ByteAccess);
    fadt.gpe0_blk_len = GPE0_LEN as u8;
    // Above these latencies C2 and C3 are not supported.
    fadt.p_lvl2_lat = 0xfff.into();
    fadt.p_lvl3_lat = 0xfff.into();
    fadt.century = CMOS_CENTURY;
    fadt.iapc_boot_arch = BOOT_NO_VGA.into();
    fadt.reset_reg = port(RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    bytes_of(&fadt.finalize())
}

fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.start, 0, 0, 0xff);
    bytes_of(&mcfg)
}

#[cfg(test)]
mod tests;
