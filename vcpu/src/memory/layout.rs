//! The machine map: where RAM, devices and boot data lie in guest-physical memory.
//!
//! Every figure that two crates must agree on is here once. Ranges are half-open.

use std::ops::Range;

/// One kibibyte.
pub const KIB: u64 = 1 << 10;
/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;
/// The page size that guest RAM is counted in.
pub const PAGE: u64 = 4 * KIB;

/// RAM of a machine that was not told how much to have.
pub const DEFAULT_RAM: u64 = 128 * MIB;
/// The least RAM a machine can have.
pub const MIN_RAM: u64 = 2 * MIB;

/// RAM below 4 GiB ends here at the latest.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// RAM that does not fit below [`LOW_RAM_END`] goes on here.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;

/// PCI Express enhanced configuration space of buses 0 to 255.
pub const ECAM: Range<u64> = 0xc000_0000..0xd000_0000;
/// Window for 32-bit memory BARs.
pub const PCI32: Range<u64> = 0xd000_0000..0xfec0_0000;
/// Registers of the I/O APIC.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Registers of the local APIC, before a guest moves or disables them.
pub const LAPIC: u64 = 0xfee0_0000;
/// Four pages that KVM keeps for itself on Intel hosts: the identity map and the real-mode TSS.
pub const KVM_PRIVATE: Range<u64> = 0xfffb_c000..0xfffc_0000;

/// Conventional memory, up to the extended BIOS data area.
pub const LOW_MEMORY: Range<u64> = 0..0x9_fc00;
/// Where the ACPI tables live: RSDP (16-byte aligned, where a guest also finds it by searching;
/// ACPI 6.5, section 5.2.5.1) and all that it leads to. RAM, but reserved in the memory map.
pub const ACPI: Range<u64> = 0xe_0000..0x10_0000;
/// Where RAM that a kernel may use freely begins again.
pub const HIGH_MEMORY_START: u64 = MIB;

/// The GDT of a directly started kernel.
pub(crate) const BOOT_GDT: u64 = 0x500;
/// `hvm_start_info` of a PVH guest; its module list and memory map follow in the same page.
pub(crate) const PVH_START_INFO: u64 = 0x6000;
/// `boot_params` ("zero page") of a Linux guest.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// Six page-table pages: PML4, PDPT and four page directories.
pub(crate) const PAGE_TABLES: Range<u64> = 0x9000..0xf000;
/// The kernel command line, with its terminating zero byte.
pub(crate) const COMMAND_LINE: Range<u64> = 0x2_0000..0x3_0000;

/// The 64-bit PCI window of a machine with `ram_size` bytes of RAM whose processors address
/// `phys_bits` bits of physical memory: at most 512 GiB, 1 GiB aligned, directly above RAM.
///
/// Empty when RAM leaves no room.
pub fn pci64_window(ram_size: u64, phys_bits: u32) -> Range<u64> {
    let ram_end = super::ranges(ram_size).last().map_or(0, |range| range.end);
    let start = ram_end.max(HIGH_RAM_START).next_multiple_of(GIB);
    let limit = 1u64.checked_shl(phys_bits).unwrap_or(u64::MAX);
    start..limit.min(start.saturating_add(512 * GIB)).max(start)
}
