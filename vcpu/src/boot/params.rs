//! What a kernel is told: `boot_params` for Linux, `hvm_start_info` for PVH guests.

use super::BootError;
use crate::memory::layout::{COMMAND_LINE, PVH_START_INFO, ZERO_PAGE};
use crate::memory::{Ram, e820};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use std::ops::Range;
use vm_memory::{GuestAddress, GuestMemoryError};

/// "Any other boot loader" (Linux x86 boot protocol, `type_of_loader`).
const LOADER: u8 = 0xff;
/// "Normal" video mode.
const VIDEO_MODE: u16 = 0xffff;

/// What both protocols pass on.
pub(super) struct Passed {
    pub ram_size: u64,
    pub initrd: Option<Range<u64>>,
    /// Where the command line is; `None` for none.
    pub has_command_line: bool,
    pub rsdp: Option<u64>,
}

/// The header of a kernel that has none of its own: a vmlinux.
pub(super) fn plain_header() -> setup_header {
    setup_header {
        boot_flag: 0xaa55,
        header: 0x5372_6448,
        version: 0x020f,
        loadflags: 1,
        kernel_alignment: 0x100_0000,
        ..Default::default()
    }
}

/// Writes `boot_params` for Linux.
pub(super) fn write_linux(
    header: setup_header,
    passed: &Passed,
    ram: &Ram,
) -> Result<(), BootError> {
    let mut params = boot_params { hdr: header, ..Default::default() };
    params.hdr.type_of_loader = LOADER;
    params.hdr.vid_mode = VIDEO_MODE;
    if passed.has_command_line {
        params.hdr.cmd_line_ptr = COMMAND_LINE.start as u32;
    }
    if let Some(initrd) = &passed.initrd {
        params.hdr.ramdisk_image = initrd.start as u32;
        params.hdr.ramdisk_size = (initrd.end - initrd.start) as u32;
    }
    params.acpi_rsdp_addr = passed.rsdp.unwrap_or(0);
    let map = e820(passed.ram_size);
    let mut table = params.e820_table;
    for (to, from) in table.iter_mut().zip(&map) {
        *to = boot_e820_entry { addr: from.start, size: from.len, r#type: from.kind as u32 };
    }
    params.e820_table = table;
    params.e820_entries = map.len() as u8;
    let params = BootParams::new(&params, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, ram).map_err(|e| unwritable(&e))
}

/// Writes `hvm_start_info`, with the memory map and the module list behind it.
pub(super) fn write_pvh(passed: &Passed, ram: &Ram) -> Result<(), BootError> {
    let map: Vec<_> = e820(passed.ram_size)
        .iter()
        .map(|e| hvm_memmap_table_entry {
            addr: e.start,
            size: e.len,
            type_: e.kind as u32,
            reserved: 0,
        })
        .collect();
    let modules: Vec<_> = passed
        .initrd
        .iter()
        .map(|i| hvm_modlist_entry { paddr: i.start, size: i.end - i.start, ..Default::default() })
        .collect();
    let modules_at = PVH_START_INFO + size_of::<hvm_start_info>() as u64;
    let map_at = modules_at + size_of_val(modules.as_slice()) as u64;
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: modules.len() as u32,
        modlist_paddr: if modules.is_empty() { 0 } else { modules_at },
        cmdline_paddr: if passed.has_command_line { COMMAND_LINE.start } else { 0 },
        rsdp_paddr: passed.rsdp.unwrap_or(0),
        memmap_paddr: map_at,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(PVH_START_INFO));
    params.set_sections(&map, GuestAddress(map_at));
    if !modules.is_empty() {
        params.set_modules(&modules, GuestAddress(modules_at));
    }
    PvhBootConfigurator::write_bootparams(&params, ram).map_err(|e| unwritable(&e))
}

fn unwritable(error: &linux_loader::configurator::Error) -> BootError {
    BootError::Memory(GuestMemoryError::IOError(std::io::Error::other(error.to_string())))
}
