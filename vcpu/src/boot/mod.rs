//! Loading a kernel straight into guest memory, without firmware.
//!
//! [`Boot::open`] reads and checks every header and decides where everything goes; it touches no
//! guest memory, so that a bad file stops a machine before it exists. [`Boot::load`] puts kernel,
//! initrd, command line and boot data into RAM, at the start and again at each reset.

mod bzimage;
mod elf;
mod error;
mod params;
mod source;
mod state;
mod tables;
#[cfg(test)]
mod tests;

pub use error::BootError;
pub use state::BootState;
pub(crate) use tables::install;

use crate::memory::Ram;
use crate::memory::layout::{
    COMMAND_LINE, HIGH_MEMORY_START, LOW_RAM_END, PAGE, PVH_START_INFO, ZERO_PAGE,
};
use bzimage::BzImage;
use elf::{Elf, Entry, unusable};
use params::{Passed, plain_header, write_linux, write_pvh};
use source::Source;
use std::ops::Range;
use std::path::PathBuf;
use vm_memory::{Bytes, GuestAddress};

/// `COMMAND_LINE_SIZE` of Linux on x86, less the terminating zero byte.
const LINUX_COMMAND_LINE: usize = 2047;
/// Highest address of an initrd for a Linux that does not say (Linux x86 boot protocol,
/// `initrd_addr_max`).
const LINUX_INITRD_MAX: u64 = 0x7fff_ffff;

/// Where a kernel comes from.
#[derive(Clone, Debug)]
pub enum KernelSource {
    /// A file: ELF or bzImage.
    File(PathBuf),
    /// Bytes of this program.
    Embedded {
        /// For messages.
        name: &'static str,
        /// An ELF file or a bzImage.
        bytes: &'static [u8],
    },
}

/// What to start.
#[derive(Clone, Debug)]
pub struct BootConfig {
    /// The kernel.
    pub kernel: KernelSource,
    /// An initial RAM disk (PVH: the only module).
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; empty for none.
    pub cmdline: String,
}

/// How a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// An uncompressed kernel, by Linux's 64-bit entry.
    Linux64Elf,
    /// An uncompressed kernel, by its PVH entry.
    Pvh,
    /// A compressed Linux kernel, by its 64-bit entry.
    BzImage,
}

#[derive(Debug)]
enum Image {
    Elf(Elf),
    BzImage(BzImage),
}

/// A kernel that has been checked against the machine it will run on.
#[derive(Debug)]
pub struct Boot {
    kernel: Source,
    image: Image,
    initrd: Option<(Source, Range<u64>)>,
    command_line: Vec<u8>,
    ram_size: u64,
}

impl Boot {
    /// Checks `config` for a machine with `ram_size` bytes of RAM. Blocks while it reads headers.
    pub fn open(config: BootConfig, ram_size: u64) -> Result<Self, BootError> {
        let kernel = match &config.kernel {
            KernelSource::File(path) => Source::open("-kernel", path)?,
            KernelSource::Embedded { name, bytes } => Source::embedded(name, bytes),
        };
        let low_ram = HIGH_MEMORY_START..ram_size.min(LOW_RAM_END);
        let image = Image::parse(&kernel, low_ram.clone())?;
        let command_line = checked_command_line(config.cmdline, image.command_line_limit())?;
        let initrd = match config.initrd {
            Some(path) => {
                let source = Source::open("-initrd", &path)?;
                let place = place_initrd(&source, &image, low_ram.end)?;
                Some((source, place))
            }
            None => None,
        };
        let boot = Self { kernel, image, initrd, command_line, ram_size };
        tracing::debug!(kernel = boot.kernel.path, protocol = ?boot.protocol(), "kernel checked");
        Ok(boot)
    }

    /// How the kernel will be entered.
    pub fn protocol(&self) -> Protocol {
        match &self.image {
            Image::BzImage(_) => Protocol::BzImage,
            Image::Elf(elf) => match elf.entry {
                Entry::Linux64(_) => Protocol::Linux64Elf,
                Entry::Pvh(_) => Protocol::Pvh,
            },
        }
    }

    /// Loads everything into `ram`, which has the size given to [`Boot::open`]. `rsdp` is where
    /// the ACPI tables begin. Blocks while it reads files: not for reactors.
    pub fn load(&self, ram: &Ram, rsdp: Option<u64>) -> Result<BootState, BootError> {
        match &self.image {
            Image::Elf(elf) => elf.load(&self.kernel, ram)?,
            Image::BzImage(image) => image.load(&self.kernel, ram)?,
        }
        if let Some((source, place)) = &self.initrd {
            source.copy(0, place.end - place.start, ram, place.start)?;
        }
        if !self.command_line.is_empty() {
            ram.write_slice(&self.command_line, GuestAddress(COMMAND_LINE.start))?;
        }
        let passed = Passed {
            ram_size: self.ram_size,
            initrd: self.initrd.as_ref().map(|(_, place)| place.clone()),
            has_command_line: !self.command_line.is_empty(),
            rsdp,
        };
        let linux = |entry| BootState::Linux64 { entry, boot_params: ZERO_PAGE };
        let state = match &self.image {
            Image::BzImage(image) => {
                write_linux(image.header(), &passed, ram)?;
                linux(image.entry())
            }
            Image::Elf(Elf { entry: Entry::Linux64(entry), .. }) => {
                write_linux(plain_header(), &passed, ram)?;
                linux(*entry)
            }
            Image::Elf(Elf { entry: Entry::Pvh(entry), .. }) => {
                write_pvh(&passed, ram)?;
                BootState::Pvh { entry: *entry, start_info: PVH_START_INFO as u32 }
            }
        };
        install(&state, ram)?;
        Ok(state)
    }
}

impl Image {
    fn parse(source: &Source, low_ram: Range<u64>) -> Result<Self, BootError> {
        let head = source.bytes(0, bzimage::PROBE)?;
        if head.starts_with(b"\x7fELF") {
            return Elf::parse(source, low_ram).map(Self::Elf);
        }
        if bzimage::probe(&head) {
            return BzImage::parse(source, low_ram).map(Self::BzImage);
        }
        let compressed: &[(&[u8], &str)] = &[
            (b"\x1f\x8b", "gzip"),
            (b"\xfd7zXZ\0", "xz"),
            (b"BZh", "bzip2"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
        ];
        let why = match compressed.iter().find(|(magic, _)| head.starts_with(magic)) {
            Some((_, tool)) => format!("is compressed by {tool}; decompress it first"),
            None => "is no kernel: neither an ELF file nor a bzImage".to_owned(),
        };
        Err(unusable(source, &why))
    }

    fn end(&self) -> u64 {
        match self {
            Self::Elf(elf) => elf.end,
            Self::BzImage(image) => image.end,
        }
    }

    fn command_line_limit(&self) -> usize {
        let room = (COMMAND_LINE.end - COMMAND_LINE.start - 1) as usize;
        match self {
            Self::BzImage(image) => image.command_line_limit().min(room),
            Self::Elf(Elf { entry: Entry::Linux64(_), .. }) => LINUX_COMMAND_LINE,
            Self::Elf(_) => room,
        }
    }

    fn initrd_max(&self) -> u64 {
        match self {
            Self::BzImage(image) => image.initrd_max(),
            Self::Elf(Elf { entry: Entry::Linux64(_), .. }) => LINUX_INITRD_MAX,
            Self::Elf(_) => u64::from(u32::MAX),
        }
    }
}

/// The command line with its terminating zero byte; nothing for an empty one.
fn checked_command_line(text: String, limit: usize) -> Result<Vec<u8>, BootError> {
    let mut bytes = text.into_bytes();
    if bytes.contains(&0) {
        return Err(BootError::CommandLineZero);
    }
    if bytes.len() > limit {
        return Err(BootError::CommandLineTooLong { len: bytes.len(), limit });
    }
    if !bytes.is_empty() {
        bytes.push(0);
    }
    Ok(bytes)
}

/// As high as kernel and RAM allow, so that the kernel has room to grow.
fn place_initrd(source: &Source, image: &Image, ram_end: u64) -> Result<Range<u64>, BootError> {
    let top = ram_end.min(image.initrd_max().saturating_add(1));
    let bottom = image.end().next_multiple_of(PAGE);
    let start = top.checked_sub(source.len).map_or(0, |start| start / PAGE * PAGE);
    if start < bottom {
        return Err(BootError::InitrdTooLarge {
            path: source.path.clone(),
            len: source.len,
            room: top.saturating_sub(bottom),
        });
    }
    Ok(start..start + source.len)
}
