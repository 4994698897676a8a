//! The GDT and the page tables that [`super::BootState`] relies on.

use super::BootState;
use crate::memory::Ram;
use crate::memory::layout::{BOOT_GDT, GIB, MIB, PAGE, PAGE_TABLES};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// What is mapped one to one.
const MAPPED: u64 = 4 * GIB;

/// Writes what `state` needs besides the kernel into low memory.
pub(crate) fn install(state: &BootState, ram: &Ram) -> Result<(), GuestMemoryError> {
    if let Some(gdt) = state.gdt() {
        write_table(ram, BOOT_GDT, gdt)?;
    }
    if matches!(state, BootState::Linux64 { .. }) {
        write_page_tables(ram)?;
    }
    Ok(())
}

/// 4-level tables: 2 MiB pages, which every 64-bit processor has.
fn write_page_tables(ram: &Ram) -> Result<(), GuestMemoryError> {
    let pml4 = PAGE_TABLES.start;
    let pdpt = pml4 + PAGE;
    let directories = pdpt + PAGE;
    let table = |address: u64| address | PRESENT | WRITABLE;
    write_table(ram, pml4, one_entry(table(pdpt)))?;
    let gibs = MAPPED / GIB;
    write_table(
        ram,
        pdpt,
        (0..512).map(|i| if i < gibs { table(directories + i * PAGE) } else { 0 }),
    )?;
    let large = |i: u64| (i * 2 * MIB) | LARGE | PRESENT | WRITABLE;
    write_table(ram, directories, (0..gibs * 512).map(large))
}

fn one_entry(entry: u64) -> impl Iterator<Item = u64> {
    std::iter::once(entry).chain(std::iter::repeat_n(0, 511))
}

fn write_table(
    ram: &Ram,
    at: u64,
    entries: impl IntoIterator<Item = u64>,
) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = entries.into_iter().flat_map(u64::to_le_bytes).collect();
    ram.write_slice(&bytes, GuestAddress(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::layout::{PVH_START_INFO, ZERO_PAGE};

    #[test]
    fn four_gib_are_mapped_one_to_one() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        install(&BootState::Linux64 { entry: 0, boot_params: ZERO_PAGE }, &ram).unwrap();
        let entry = |at: u64| ram.read_obj::<u64>(GuestAddress(at)).unwrap();
        for address in [0, 0x20_0000, 0x4000_0000, 0xffe0_0000u64] {
            let pdpt = entry(PAGE_TABLES.start) & !0xfff;
            let directory = entry(pdpt + (address >> 30) * 8) & !0xfff;
            let page = entry(directory + (address >> 21 & 0x1ff) * 8);
            assert_eq!((page & !0xfff, page & LARGE), (address, LARGE));
            assert!(directory < PAGE_TABLES.end);
        }
        assert_eq!(entry(PAGE_TABLES.start + 8), 0);
        assert_eq!(entry(PAGE_TABLES.end), 0, "nothing past the tables is touched");
    }

    #[test]
    fn a_pvh_guest_gets_a_gdt_and_no_page_tables() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        let start_info = PVH_START_INFO as u32;
        install(&BootState::Pvh { entry: 0, start_info }, &ram).unwrap();
        assert_ne!(ram.read_obj::<u64>(GuestAddress(BOOT_GDT + 0x10)).unwrap(), 0);
        assert_eq!(ram.read_obj::<u64>(GuestAddress(PAGE_TABLES.start)).unwrap(), 0);
    }
}
