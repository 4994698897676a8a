//! Compressed Linux kernels (Linux x86 boot protocol: "The Linux/x86 Boot Protocol").

use super::BootError;
use super::elf::{Fields, require, unusable};
use super::source::Source;
use crate::memory::Ram;
use crate::memory::layout::MIB;
use linux_loader::loader::bootparam::setup_header;
use std::ops::Range;
use vm_memory::ByteValued;

/// Where the setup header is in the file.
const HEADER_AT: u64 = 0x1f1;
const BOOT_FLAG_AT: usize = 0x1fe;
const BOOT_FLAG: u16 = 0xaa55;
const MAGIC_AT: usize = 0x202;
const MAGIC: u32 = 0x5372_6448;
/// The header's end is here plus the byte before it: the displacement of a short jump.
const JUMP_AT: usize = 0x201;
/// The first version with `xloadflags`.
const VERSION_NEEDED: u16 = 0x020c;
const LOADED_HIGH: u8 = 1;
const XLF_KERNEL_64: u16 = 1;
/// The 64-bit entry, from the beginning of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;

/// Enough of a file to see whether it is one of these.
pub(super) const PROBE: u64 = 0x206;

/// `setup_header` as vm-memory writes it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
struct Header(setup_header);

// SAFETY: a packed structure of integers: every byte pattern is a value and there is no padding.
unsafe impl ByteValued for Header {}

/// A checked kernel.
#[derive(Debug)]
pub(super) struct BzImage {
    header: setup_header,
    payload: Range<u64>,
    load_at: u64,
    /// One past the last byte that it uses before it has looked at the memory map.
    pub end: u64,
}

/// Whether the first [`PROBE`] bytes of a file are those of a bzImage (or its older kin).
pub(super) fn probe(head: &[u8]) -> bool {
    let head = Fields(head);
    head.half(BOOT_FLAG_AT) == BOOT_FLAG && head.word(MAGIC_AT) == MAGIC
}

impl BzImage {
    /// Reads and checks the header of a `source` that [`probe`] has accepted.
    pub fn parse(source: &Source, low_ram: Range<u64>) -> Result<Self, BootError> {
        let header = read_header(source)?;
        let unusable = |why: &str| unusable(source, why);
        if header.version < VERSION_NEEDED {
            return Err(unusable("speaks a Linux boot protocol before 2.12 (Linux 3.8)"));
        }
        if header.loadflags & LOADED_HIGH == 0 {
            return Err(unusable("is a zImage, which loads low; ringvisor starts bzImages"));
        }
        if header.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(unusable("is a 32-bit Linux kernel; ringvisor starts 64-bit kernels"));
        }
        let sectors = if header.setup_sects == 0 { 4 } else { header.setup_sects };
        let start = (u64::from(sectors) + 1) * 512;
        let len = u64::from(header.syssize) * 16;
        // The last paragraph need not be filled, and a signature may follow.
        require(source, "its compressed kernel", start, len.saturating_sub(15))?;
        if len <= ENTRY_64 {
            return Err(unusable("has no compressed kernel in it"));
        }
        let payload = start..(start + len).min(source.len);
        let load = place(source, &header, len, low_ram)?;
        Ok(Self { header, payload, load_at: load.start, end: load.end })
    }

    /// The 64-bit entry point.
    pub fn entry(&self) -> u64 {
        self.load_at + ENTRY_64
    }

    /// The header to be passed on in `boot_params`.
    pub fn header(&self) -> setup_header {
        let mut header = self.header;
        header.code32_start = self.load_at as u32;
        header
    }

    /// Longest command line, without its terminating zero byte.
    pub fn command_line_limit(&self) -> usize {
        self.header.cmdline_size as usize
    }

    /// Highest address that an initrd may occupy.
    pub fn initrd_max(&self) -> u64 {
        self.header.initrd_addr_max.into()
    }

    /// Puts the kernel into guest memory.
    pub fn load(&self, source: &Source, ram: &Ram) -> Result<(), BootError> {
        let len = self.payload.end - self.payload.start;
        source.copy(self.payload.start, len, ram, self.load_at)
    }
}

/// The header as far as the file says that it goes; zero beyond.
fn read_header(source: &Source) -> Result<setup_header, BootError> {
    let head = source.bytes(0, PROBE)?;
    let end = MAGIC_AT as u64 + u64::from(Fields(&head).byte(JUMP_AT));
    require(source, "its setup header", 0, end)?;
    let mut header = Header::default();
    let bytes = source.bytes(HEADER_AT, end - HEADER_AT)?;
    let len = bytes.len().min(size_of::<Header>());
    if let (Some(to), Some(from)) = (header.as_mut_slice().get_mut(..len), bytes.get(..len)) {
        to.copy_from_slice(from);
    }
    Ok(header.0)
}

/// Where the kernel goes, and what it needs from there: at its preferred address, or as low as it
/// can be relocated to where that does not fit.
fn place(
    source: &Source,
    header: &setup_header,
    len: u64,
    low_ram: Range<u64>,
) -> Result<Range<u64>, BootError> {
    let needed = u64::from(header.init_size).max(len);
    let preferred = header.pref_address;
    let fits = |start: u64| {
        start >= low_ram.start && start.checked_add(needed).is_some_and(|end| end <= low_ram.end)
    };
    let align = u64::from(header.kernel_alignment);
    if header.relocatable_kernel != 0 && align.is_power_of_two() {
        let lowest = MIB.next_multiple_of(align);
        if !fits(preferred) && fits(lowest) {
            return Ok(lowest..lowest + needed);
        }
    }
    if fits(preferred) {
        return Ok(preferred..preferred + needed);
    }
    let end = preferred.saturating_add(needed);
    let (path, ram) = (source.path.clone(), low_ram.end);
    Err(BootError::DoesNotFit { path, start: preferred, end, ram })
}
