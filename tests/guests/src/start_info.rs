//! What the loader says: the PVH start information (`xen/include/public/arch-x86/hvm/start_info.h`).

use crate::text;

const MAGIC: u32 = 0x336e_c578;
/// Longest command line kept, in bytes.
pub(crate) const COMMAND_LINE_MAX: usize = 2048;
/// Most memory map entries kept.
pub(crate) const RANGES_MAX: usize = 32;

/// One entry of the memory map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// E820 type: 1 is RAM.
    pub kind: u32,
}

impl Range {
    /// First address after the range.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// What the type means.
    pub fn kind_name(self) -> &'static str {
        match self.kind {
            1 => "RAM",
            2 => "reserved",
            3 => "ACPI tables",
            4 => "ACPI NVS",
            5 => "unusable",
            _ => "other",
        }
    }
}

/// Why the start information is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartError {
    /// The magic number is wrong: this is not a PVH start.
    Magic(u32),
    /// Version 0 of the structure has no memory map.
    NoMemoryMap,
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic(found) => {
                write!(f, "not started by a PVH loader: start_info magic is {found:#x}")
            }
            Self::NoMemoryMap => write!(f, "the PVH loader gives no memory map"),
        }
    }
}

/// A copy of what the guest needs of the start information.
#[derive(Clone, Debug)]
pub(crate) struct StartInfo {
    command_line: [u8; COMMAND_LINE_MAX],
    command_line_len: usize,
    ranges: [Range; RANGES_MAX],
    ranges_len: usize,
    /// Physical address of the ACPI RSDP, zero when not given.
    pub rsdp: u64,
}

impl StartInfo {
    /// Copies the start information at physical `address`, through `read`.
    pub fn parse(address: u64, read: &dyn Fn(u64, &mut [u8])) -> Result<Self, StartError> {
        let mut header = [0u8; 56];
        read(address, &mut header);
        let magic = text::u32_at(&header, 0);
        if magic != MAGIC {
            return Err(StartError::Magic(magic));
        }
        if text::u32_at(&header, 4) == 0 {
            return Err(StartError::NoMemoryMap);
        }
        let mut info = Self {
            command_line: [0; COMMAND_LINE_MAX],
            command_line_len: 0,
            ranges: [Range::default(); RANGES_MAX],
            ranges_len: 0,
            rsdp: text::u64_at(&header, 32),
        };
        let command_line = text::u64_at(&header, 24);
        if command_line != 0 {
            info.copy_command_line(command_line, read);
        }
        let map = text::u64_at(&header, 40);
        let count = (text::u32_at(&header, 48) as usize).min(RANGES_MAX);
        for index in 0..count {
            let mut entry = [0u8; 24];
            read(map + 24 * index as u64, &mut entry);
            let range = Range {
                start: text::u64_at(&entry, 0),
                len: text::u64_at(&entry, 8),
                kind: text::u32_at(&entry, 16),
            };
            if range.len > 0 {
                info.ranges[info.ranges_len] = range;
                info.ranges_len += 1;
            }
        }
        Ok(info)
    }

    fn copy_command_line(&mut self, address: u64, read: &dyn Fn(u64, &mut [u8])) {
        for (index, slot) in self.command_line.iter_mut().enumerate() {
            let mut byte = [0u8];
            read(address + index as u64, &mut byte);
            if byte[0] == 0 {
                break;
            }
            *slot = byte[0];
            self.command_line_len = index + 1;
        }
    }

    /// The command line, up to the first byte that is not UTF-8.
    pub fn command_line(&self) -> &str {
        let bytes = &self.command_line[..self.command_line_len];
        match core::str::from_utf8(bytes) {
            Ok(line) => line,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }

    /// The memory map, in the loader's order.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges[..self.ranges_len]
    }

    /// The end of the RAM that holds `address`; zero when it is not RAM.
    pub fn ram_end(&self, address: u64) -> u64 {
        let holds =
            |range: &&Range| range.kind == 1 && (range.start..range.end()).contains(&address);
        self.ranges().iter().find(holds).map_or(0, |range| range.end())
    }

    /// Total RAM in bytes.
    pub fn ram_bytes(&self) -> u64 {
        let ram = self.ranges().iter().filter(|range| range.kind == 1);
        ram.fold(0u64, |sum, range| sum.saturating_add(range.len))
    }

    /// Whether any RAM lies between `start` and `end`.
    pub fn overlaps_ram(&self, start: u64, end: u64) -> bool {
        let ram = self.ranges().iter().filter(|range| range.kind == 1);
        ram.into_iter().any(|range| range.start < end && start < range.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(magic: u32, version: u32, line: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 0x100];
        bytes[..4].copy_from_slice(&magic.to_le_bytes());
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes[24] = 0x90;
        bytes[32] = 0x77;
        bytes[40] = 0x40;
        bytes[48] = 3;
        for (index, (start, len, kind)) in
            [(0u64, 0x9_fc00u64, 1u32), (0, 0, 0), (0x10_0000, 0x700_0000, 1)]
                .into_iter()
                .enumerate()
        {
            let at = 0x40 + 24 * index;
            bytes[at..at + 8].copy_from_slice(&start.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
            bytes[at + 16..at + 20].copy_from_slice(&kind.to_le_bytes());
        }
        bytes[0x90..0x90 + line.len()].copy_from_slice(line);
        bytes
    }

    fn parse(memory: &[u8]) -> Result<StartInfo, StartError> {
        StartInfo::parse(0, &|address, to| {
            let at = address as usize;
            to.copy_from_slice(&memory[at..at + to.len()]);
        })
    }

    #[test]
    fn command_line_map_and_rsdp_are_found() {
        let info = parse(&memory(MAGIC, 1, b"check;poweroff\0")).expect("valid");
        assert_eq!(info.command_line(), "check;poweroff");
        assert_eq!(info.rsdp, 0x77);
        assert_eq!(info.ranges().len(), 2);
        assert_eq!(info.ram_end(0x20_0000), 0x710_0000);
        assert_eq!(info.ram_end(0xa_0000), 0);
        assert_eq!(info.ram_bytes(), 0x709_fc00);
        assert!(info.overlaps_ram(0x70f_ffff, 0x800_0000));
        assert!(!info.overlaps_ram(0x710_0000, 0x800_0000));
    }

    #[test]
    fn strangers_are_refused() {
        assert_eq!(parse(&memory(1, 1, b"")).unwrap_err(), StartError::Magic(1));
        assert_eq!(parse(&memory(MAGIC, 0, b"")).unwrap_err(), StartError::NoMemoryMap);
        assert_eq!(parse(&memory(MAGIC, 1, b"ok\xff\0")).expect("valid").command_line(), "ok");
    }
}
