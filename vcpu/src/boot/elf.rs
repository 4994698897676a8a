//! Uncompressed kernels: 64-bit ELF (System V gABI), with Xen's PVH note where there is one.

use super::BootError;
use super::source::{Source, clear};
use crate::memory::Ram;
use std::ops::Range;

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const X86_64: u16 = 62;
const EXECUTABLE: u16 = 2;
const DYNAMIC: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Notes further into a segment than this are nobody's.
const NOTES_LIMIT: u64 = 1 << 20;
/// Where Linux links its kernel; its program headers pair these with low physical addresses.
const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's `elfnote.h`.
const PHYS32_ENTRY: u32 = 18;

/// How the kernel wants to be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Linux64(u64),
    Pvh(u32),
}

#[derive(Debug)]
pub(super) struct Segment {
    offset: u64,
    file_len: u64,
    memory: Range<u64>,
    virtual_start: u64,
}

/// A checked kernel: everything lies within the file and within `1 MiB..ram_end`.
#[derive(Debug)]
pub(super) struct Elf {
    segments: Vec<Segment>,
    pub entry: Entry,
    /// One past the last byte that is loaded or cleared.
    pub end: u64,
}

#[derive(Default)]
struct Notes {
    pvh: Option<u64>,
    linux: bool,
}

/// Little-endian fields of a header that has been read whole.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        // Headers are read whole, so the default is for the compiler only.
        self.0.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    pub fn byte(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.array(at))
    }

    pub fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

impl Elf {
    /// Reads and checks the headers of `source`, which begins with ELF's magic number.
    pub fn parse(source: &Source, low_ram: Range<u64>) -> Result<Self, BootError> {
        let unusable = |why: &str| unusable(source, why);
        require(source, "the ELF header", 0, HEADER)?;
        let header = source.bytes(0, HEADER)?;
        let header = Fields(&header);
        if header.byte(4) != CLASS_64 {
            return Err(unusable("is a 32-bit ELF file; ringvisor starts 64-bit kernels"));
        }
        if header.byte(5) != LITTLE_ENDIAN || header.half(18) != X86_64 {
            return Err(unusable("is an ELF file for another processor than x86-64"));
        }
        if ![EXECUTABLE, DYNAMIC].contains(&header.half(16)) {
            return Err(unusable("is an ELF file, but not an executable one"));
        }
        if u64::from(header.half(54)) != PROGRAM_HEADER {
            return Err(unusable("has ELF program headers of an unknown size"));
        }
        let (start, count) = (header.long(32), u64::from(header.half(56)));
        require(source, "the program header table", start, count * PROGRAM_HEADER)?;
        let table = source.bytes(start, count * PROGRAM_HEADER)?;

        let mut segments = Vec::new();
        let mut notes = Notes::default();
        for header in table.chunks_exact(PROGRAM_HEADER as usize).map(Fields) {
            match header.word(0) {
                PT_LOAD if header.long(40) > 0 => {
                    segments.push(Segment::parse(source, &header, &low_ram)?);
                }
                PT_NOTE => notes.parse(source, &header)?,
                _ => {}
            }
        }
        let entry = choose(&segments, &notes, header.long(24)).map_err(unusable)?;
        let end = segments.iter().map(|s| s.memory.end).max().unwrap_or(0);
        Ok(Self { segments, entry, end })
    }

    /// Puts the segments into guest memory.
    pub fn load(&self, source: &Source, ram: &Ram) -> Result<(), BootError> {
        for segment in &self.segments {
            let start = segment.memory.start;
            source.copy(segment.offset, segment.file_len, ram, start)?;
            let loaded = start + segment.file_len;
            clear(ram, loaded, segment.memory.end - loaded)?;
        }
        Ok(())
    }
}

impl Segment {
    fn parse(
        source: &Source,
        header: &Fields<'_>,
        low_ram: &Range<u64>,
    ) -> Result<Self, BootError> {
        let (offset, file_len) = (header.long(8), header.long(32));
        let (virtual_start, start, len) = (header.long(16), header.long(24), header.long(40));
        require(source, "a segment", offset, file_len)?;
        if file_len > len {
            return Err(unusable(
                source,
                "has an ELF segment that is larger in the file than in memory",
            ));
        }
        let end = start.saturating_add(len);
        if start < low_ram.start || end > low_ram.end {
            let (path, ram) = (source.path.clone(), low_ram.end);
            return Err(BootError::DoesNotFit { path, start, end, ram });
        }
        Ok(Self { offset, file_len, memory: start..end, virtual_start })
    }
}

impl Notes {
    /// Looks through one note segment (gABI, "Note Section"); a damaged one ends the search.
    fn parse(&mut self, source: &Source, header: &Fields<'_>) -> Result<(), BootError> {
        let (offset, len) = (header.long(8), header.long(32));
        require(source, "a note segment", offset, len)?;
        let align = if header.long(48) == 8 { 8 } else { 4 };
        let bytes = source.bytes(offset, len.min(NOTES_LIMIT))?;
        let mut at = 0;
        while let Some(note) = bytes.get(at..at + 12).map(Fields) {
            let (name_len, desc_len) = (note.word(0) as usize, note.word(4) as usize);
            let name = bytes.get(at + 12..at + 12 + name_len);
            let desc_at = (at + 12 + name_len).next_multiple_of(align);
            let desc = bytes.get(desc_at..desc_at + desc_len);
            let (Some(name), Some(desc)) = (name, desc) else { break };
            match (name, note.word(8)) {
                (b"Xen\0", PHYS32_ENTRY) => self.pvh = self.pvh.or(entry_of(desc)),
                (b"Linux\0", _) => self.linux = true,
                _ => {}
            }
            at = (desc_at + desc_len).next_multiple_of(align);
        }
        Ok(())
    }
}

/// The descriptor is an address of 4 or 8 bytes.
fn entry_of(desc: &[u8]) -> Option<u64> {
    match desc.len() {
        4 => Some(Fields(desc).word(0).into()),
        8.. => Some(Fields(desc).long(0)),
        _ => None,
    }
}

/// Decides by evidence. A Linux kernel says so in a note, or shows it by segments linked at the
/// top of the address space with an entry point given as a physical address; its 64-bit entry
/// saves it the way through 32-bit mode. Any other kernel is entered as its PVH note says, and a
/// kernel without one at its ELF entry point in Linux's way.
fn choose(segments: &[Segment], notes: &Notes, entry: u64) -> Result<Entry, &'static str> {
    let loaded = |address: u64| segments.iter().any(|s| s.memory.contains(&address));
    if segments.is_empty() {
        return Err("has nothing to load: no ELF segment of type LOAD");
    }
    let linux = notes.linux || segments.iter().any(|s| s.virtual_start >= KERNEL_BASE);
    if linux && loaded(entry) {
        return Ok(Entry::Linux64(entry));
    }
    if let Some(entry) = notes.pvh {
        return match u32::try_from(entry) {
            Ok(entry) if loaded(entry.into()) => Ok(Entry::Pvh(entry)),
            _ => Err("has a PVH entry point outside what it loads"),
        };
    }
    if loaded(entry) {
        return Ok(Entry::Linux64(entry));
    }
    Err("has no PVH note, and an ELF entry point outside what it loads")
}

/// That `len` bytes from `offset` are in the file.
pub(super) fn require(
    source: &Source,
    what: &'static str,
    offset: u64,
    len: u64,
) -> Result<(), BootError> {
    let needed = offset.saturating_add(len);
    if needed > source.len {
        let (path, have) = (source.path.clone(), source.len);
        return Err(BootError::Truncated { path, what, needed, have });
    }
    Ok(())
}

pub(super) fn unusable(source: &Source, why: &str) -> BootError {
    BootError::Unusable { path: source.path.clone(), why: why.to_owned() }
}
