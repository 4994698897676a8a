//! The few ACPI facts that switching the machine off takes (ACPI 6.5, sections 4.8, 5.2 and 7.4.2).

use crate::text::{u16_at, u32_at, u64_at};

/// Reads physical memory into the slice.
pub(crate) type Read<'a> = &'a dyn Fn(u64, &mut [u8]);

/// Longest DSDT that is searched, in bytes.
const DSDT_MAX: u64 = 64 * 1024;
const TABLES_MAX: u64 = 64;

/// The fixed power management hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerBlocks {
    /// PM1a event block: status, and enable two bytes on (of a block of four).
    pub event: u16,
    /// PM1a control register.
    pub control: u16,
    /// SLP_TYP of the S5 state.
    pub soft_off: u16,
}

/// What QEMU's machines and ringvisor use; for when the tables say nothing.
pub(crate) const DEFAULTS: PowerBlocks = PowerBlocks { event: 0x600, control: 0x604, soft_off: 0 };

/// Finds the blocks through the FADT; what is missing or zero there comes from `DEFAULTS`.
pub(crate) fn power_blocks(rsdp: u64, read: Read<'_>) -> PowerBlocks {
    let rsdp = if rsdp == 0 { find_rsdp(read) } else { Some(rsdp) };
    let Some(fadt) = rsdp.and_then(|rsdp| find_fadt(rsdp, read)) else {
        return DEFAULTS;
    };
    let mut bytes = [0u8; 148];
    read(fadt, &mut bytes);
    let port = |offset, default| match u32_at(&bytes, offset) {
        0 => default,
        port => port as u16,
    };
    let dsdt = match u64_at(&bytes, 140) {
        0 => u32_at(&bytes, 40).into(),
        wide if u32_at(&bytes, 4) >= 148 => wide,
        _ => u32_at(&bytes, 40).into(),
    };
    PowerBlocks {
        event: port(56, DEFAULTS.event),
        control: port(64, DEFAULTS.control),
        soft_off: soft_off_type(dsdt, read).unwrap_or(DEFAULTS.soft_off),
    }
}

/// Looks for the RSDP where BIOSes put it: on 16-byte boundaries from 0xe0000 to 0xfffff.
fn find_rsdp(read: Read<'_>) -> Option<u64> {
    (0xe_0000..0x10_0000).step_by(16).find(|&address| {
        let mut signature = [0u8; 8];
        read(address, &mut signature);
        &signature == b"RSD PTR "
    })
}

fn find_fadt(rsdp: u64, read: Read<'_>) -> Option<u64> {
    let mut bytes = [0u8; 36];
    read(rsdp, &mut bytes);
    if !bytes.starts_with(b"RSD PTR ") {
        return None;
    }
    let xsdt = if bytes[15] >= 2 { u64_at(&bytes, 24) } else { 0 };
    let (root, width) = if xsdt == 0 { (u32_at(&bytes, 16).into(), 4) } else { (xsdt, 8) };
    if root == 0 {
        return None;
    }
    let mut header = [0u8; 36];
    read(root, &mut header);
    let count = u64::from(u32_at(&header, 4)).saturating_sub(36) / width;
    (0..count.min(TABLES_MAX)).find_map(|index| {
        let mut entry = [0u8; 8];
        read(root + 36 + index * width, &mut entry[..width as usize]);
        let table = u64_at(&entry, 0);
        let mut signature = [0u8; 4];
        read(table, &mut signature);
        (&signature == b"FACP").then_some(table)
    })
}

/// The first element of the package `_S5`, found by its name in the DSDT's byte code.
fn soft_off_type(dsdt: u64, read: Read<'_>) -> Option<u16> {
    if dsdt == 0 {
        return None;
    }
    let mut header = [0u8; 8];
    read(dsdt, &mut header);
    if !header.starts_with(b"DSDT") {
        return None;
    }
    let len = u64::from(u32_at(&header, 4)).min(DSDT_MAX);
    let mut name = [0u8; 4];
    let at = (36..len.saturating_sub(12)).find(|&offset| {
        read(dsdt + offset, &mut name);
        &name == b"_S5_"
    })?;
    let mut package = [0u8; 12];
    read(dsdt + at + 4, &mut package);
    // PackageOp, PkgLength (its size is in the top two bits), NumElements, then an integer.
    if package[0] != 0x12 {
        return None;
    }
    let element = 3 + usize::from(package[1] >> 6);
    match package.get(element)? {
        0x00 => Some(0),
        0x01 => Some(1),
        0x0a => Some((*package.get(element + 1)?).into()),
        0x0b => Some(u16_at(&package, element + 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(s5: &[u8]) -> Vec<u8> {
        let mut memory = vec![0u8; 0x1000];
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x100, b"RSD PTR ");
        put(0x110, &0x200u32.to_le_bytes());
        put(0x200, b"RSDT");
        put(0x204, &44u32.to_le_bytes());
        put(0x224, &0x300u32.to_le_bytes());
        put(0x228, &0x400u32.to_le_bytes());
        put(0x300, b"APIC");
        put(0x400, b"FACP");
        put(0x404, &116u32.to_le_bytes());
        put(0x428, &0x600u32.to_le_bytes());
        put(0x438, &0xb000u32.to_le_bytes());
        put(0x440, &0xb004u32.to_le_bytes());
        put(0x600, b"DSDT");
        put(0x604, &0x100u32.to_le_bytes());
        put(0x640, b"\x08_S5_");
        put(0x645, s5);
        memory
    }

    fn blocks(memory: &[u8], rsdp: u64) -> PowerBlocks {
        power_blocks(rsdp, &|address, to| {
            for (offset, byte) in to.iter_mut().enumerate() {
                *byte = memory.get(address as usize + offset).copied().unwrap_or(0);
            }
        })
    }

    #[test]
    fn fadt_and_s5_are_found() {
        let expected = PowerBlocks { event: 0xb000, control: 0xb004, soft_off: 5 };
        assert_eq!(blocks(&tables(&[0x12, 0x06, 0x04, 0x0a, 0x05]), 0x100), expected);
        let long = tables(&[0x12, 0x46, 0x00, 0x04, 0x01]);
        assert_eq!(blocks(&long, 0x100), PowerBlocks { soft_off: 1, ..expected });
        let zero = tables(&[0x12, 0x06, 0x04, 0x00]);
        assert_eq!(blocks(&zero, 0x100), PowerBlocks { soft_off: 0, ..expected });
    }

    #[test]
    fn without_tables_the_defaults_hold() {
        assert_eq!(blocks(&[0; 16], 0), DEFAULTS);
        assert_eq!(blocks(&tables(&[]), 0x101), DEFAULTS);
        let mut no_fadt = tables(&[0x12, 0x06, 0x04, 0x05]);
        no_fadt[0x400] = b'X';
        assert_eq!(blocks(&no_fadt, 0x100), DEFAULTS);
    }
}
