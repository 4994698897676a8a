//! Guest RAM and the machine map.
//!
//! RAM is one private anonymous mapping a range, never reserved and never touched here: a guest costs
//! the host what the guest has written. A [`RamConfig`] may ask for a memfd, a file, huge pages or all
//! pages at once instead. Any thread may call what is in this module; nothing blocks, but for the
//! system calls that make a mapping, and for touching all of it where that is asked for.

pub mod layout;
mod map;
#[cfg(test)]
mod tests;

use layout::{GIB, HIGH_RAM_START, KIB, LOW_RAM_END, MIB, MIN_RAM, PAGE};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Guest RAM.
pub type Ram = vm_memory::GuestMemoryMmap<()>;

/// Why a machine cannot have the RAM asked for.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size is not a whole number of pages.
    #[error("-m: {0} bytes is not a multiple of 4096; give a whole number of KiB divisible by 4")]
    NotPages(u64),
    /// No kernel could run in so little.
    #[error("-m: {} is too little memory; a machine needs at least 2 MiB", Size(*.0))]
    TooSmall(u64),
    /// Guest-physical addresses would not fit the processor.
    #[error(
        "-m: {} is more memory than this host can address ({bits} physical address bits, {} in \
         all); ask for less",
        Size(*.size), Size(1 << .bits)
    )]
    TooLarge {
        /// What was asked for, in bytes.
        size: u64,
        /// Physical address bits of the host.
        bits: u32,
    },
    /// The host kernel refused the mapping.
    #[error(
        "-m: the host refused to map {} of guest memory ({source}); ask for less, or look at \
         vm.overcommit_memory and `ulimit -v`",
        Size(*.size)
    )]
    Map {
        /// What was asked for, in bytes.
        size: u64,
        /// The system call's error.
        source: std::io::Error,
    },
    /// The file cannot be opened or made.
    #[error("can't open backing store {path} for guest RAM: {source}")]
    Open {
        /// Its path.
        path: String,
        /// The system call's error.
        source: std::io::Error,
    },
    /// The file does not become large enough: mostly, since there are not enough huge pages.
    #[error("failed to resize {what} to {size}: {source}")]
    Resize {
        /// What it is.
        what: &'static str,
        /// Bytes.
        size: u64,
        /// The system call's error.
        source: std::io::Error,
    },
    /// The size is not a multiple of the pages of what holds it.
    #[error("memory size must be multiple of {}", Size(*.0))]
    Pages(u64),
    /// There is not enough memory to touch all of it.
    #[error("preallocating memory failed: {0}")]
    Populate(std::io::Error),
}

/// What holds guest memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Nothing but the process.
    #[default]
    Anonymous,
    /// A file without a name (memfd_create(2)).
    Memfd {
        /// The size of its huge pages; 0: the host's usual ones; `None`: small pages.
        huge: Option<u64>,
        /// Nobody can change its size.
        seal: bool,
    },
    /// A file, which is made where there is none; on hugetlbfs, of huge pages.
    File {
        /// Where it is.
        path: PathBuf,
        /// Where the memory begins in it.
        offset: u64,
    },
}

/// Whether guest RAM may be backed by transparent huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Small pages for guests below 1 GiB, so that an idle one stays small (a single byte
    /// written would otherwise cost 2 MiB where the host's policy is `always`); the host's own
    /// policy for larger ones.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Wherever the host can: fastest, and the largest footprint.
    Always,
}

/// How much RAM, and of which kind.
#[derive(Clone, Debug)]
pub struct RamConfig {
    /// Bytes; a multiple of 4096.
    pub size: u64,
    /// What holds it.
    pub backing: Backing,
    /// What is written goes to what holds it, and to other processes that map that.
    pub shared: bool,
    /// Transparent huge pages.
    pub huge_pages: HugePages,
    /// It is part of core dumps.
    pub dump: bool,
    /// The host may share pages that are alike (KSM).
    pub merge: bool,
    /// The host counts it as used from the start.
    pub reserve: bool,
    /// Threads that touch all of it at the start; 0: it is not touched.
    pub populate: usize,
}

impl RamConfig {
    /// `size` bytes of private memory.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            backing: Backing::Anonymous,
            shared: false,
            huge_pages: HugePages::default(),
            dump: false,
            merge: false,
            reserve: false,
            populate: 0,
        }
    }
}

/// Memory that no guest sees as its RAM: a back end that was made beside it. Given back when dropped.
#[derive(Debug)]
pub struct SpareMemory(#[expect(dead_code, reason = "it is held, and not read")] map::Region);

/// Maps the memory that `config` describes in one piece. May take long: see [`RamConfig::populate`].
pub fn spare(config: &RamConfig) -> Result<SpareMemory, MemoryError> {
    map::spare(config).map(SpareMemory)
}

/// Makes the RAM that `config` describes, laid out as [`ranges`] says.
pub fn build(config: &RamConfig) -> Result<Arc<Ram>, MemoryError> {
    check(config.size)?;
    map::build(config).map(Arc::new)
}

/// Whether a machine can have `size` bytes of RAM on this host.
pub fn check(size: u64) -> Result<(), MemoryError> {
    if !size.is_multiple_of(PAGE) {
        return Err(MemoryError::NotPages(size));
    }
    if size < MIN_RAM {
        return Err(MemoryError::TooSmall(size));
    }
    let bits = host_phys_bits();
    let end = ranges(size).last().map_or(u64::MAX, |range| range.end);
    if end > 1u64.checked_shl(bits).unwrap_or(u64::MAX) {
        return Err(MemoryError::TooLarge { size, bits });
    }
    Ok(())
}

/// The guest-physical ranges that hold `size` bytes of RAM: from 0 to [`LOW_RAM_END`] at most,
/// the rest from [`HIGH_RAM_START`] up.
pub fn ranges(size: u64) -> Vec<Range<u64>> {
    let low = size.min(LOW_RAM_END);
    let high = HIGH_RAM_START..HIGH_RAM_START.saturating_add(size - low);
    [0..low, high].into_iter().filter(|range| !range.is_empty()).collect()
}

/// What a range of the memory map is for (ACPI 6.5, table 15.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// Free for the guest.
    Ram = 1,
    /// Not to be touched without knowing what it is.
    Reserved = 2,
}

/// One range of the memory map that a guest is told at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it is for.
    pub kind: E820Kind,
}

/// The memory map of a machine with `size` bytes of RAM, in ascending order.
pub fn e820(size: u64) -> Vec<E820Entry> {
    let entry = |range: Range<u64>, kind| E820Entry {
        start: range.start,
        len: range.end - range.start,
        kind,
    };
    let mut map = vec![
        entry(layout::LOW_MEMORY, E820Kind::Ram),
        entry(layout::LOW_MEMORY.end..0xa_0000, E820Kind::Reserved),
        entry(layout::ACPI, E820Kind::Reserved),
        entry(layout::HIGH_MEMORY_START..size.min(LOW_RAM_END), E820Kind::Ram),
        entry(layout::ECAM, E820Kind::Reserved),
        entry(layout::KVM_PRIVATE, E820Kind::Reserved),
    ];
    map.extend(ranges(size).into_iter().skip(1).map(|range| entry(range, E820Kind::Ram)));
    map
}

/// How many physical address bits the host's processors have (CPUID leaf 8000_0008h).
pub fn host_phys_bits() -> u32 {
    const ADDRESS_SIZES: u32 = 0x8000_0008;
    // Processors without the leaf have 36 bits (Intel SDM volume 2, CPUID).
    if crate::cpuid::host(0x8000_0000).eax < ADDRESS_SIZES {
        return 36;
    }
    crate::cpuid::host(ADDRESS_SIZES).eax & 0xff
}

/// A number of bytes, printed in the largest unit that divides it.
pub(crate) struct Size(pub u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(GIB << 10, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        for (unit, name) in units {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{} {name}", self.0 / unit);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}
