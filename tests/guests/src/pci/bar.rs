//! Base address registers: what they say, and where to put those without an address
//! (PCI Local Bus 3.0, section 6.2.5).

/// Where addresses for memory BARs are taken from: the machine's 32-bit PCI window.
pub(crate) const MEMORY_START: u64 = 0xd000_0000;
/// End of that window: the I/O APIC's page is next.
pub(crate) const MEMORY_END: u64 = 0xfec0_0000;
/// Where addresses for I/O BARs are taken from.
pub(crate) const IO_START: u64 = 0xc000;
const IO_END: u64 = 0x1_0000;

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Ports.
    Io,
    /// Memory.
    Memory {
        /// A 64-bit register, two slots long.
        wide: bool,
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

impl Space {
    /// A word for `lspci`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Memory { wide: false, prefetchable: false } => "mem32",
            Self::Memory { wide: false, prefetchable: true } => "mem32 prefetchable",
            Self::Memory { wide: true, prefetchable: false } => "mem64",
            Self::Memory { wide: true, prefetchable: true } => "mem64 prefetchable",
        }
    }
}

/// A base address register that decodes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    /// Its (first) slot, 0 to 5.
    pub index: u8,
    /// What it decodes.
    pub space: Space,
    /// Its address; zero when it has none.
    pub address: u64,
    /// How much it decodes, a power of two.
    pub size: u64,
}

/// A register's value, and what it read back after all ones were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The value it had.
    pub value: u32,
    /// What stuck of all ones.
    pub mask: u32,
}

/// Whether a register's low bits call it a 64-bit memory BAR.
pub(crate) fn is_wide(low: u32) -> bool {
    low & 0x7 == 0x4
}

/// What the registers at `index` say; `None` for one that decodes nothing.
pub(crate) fn decode(index: u8, low: Reading, high: Reading) -> Option<Bar> {
    if low.mask == 0 || low.mask == u32::MAX {
        return None;
    }
    if low.value & 1 != 0 {
        // A device may leave out the upper half of an I/O address.
        let mask = (low.mask | 0xffff_0000) & !3;
        let address = u64::from(low.value & !3);
        return sized(index, Space::Io, address, (!mask).wrapping_add(1).into());
    }
    let wide = is_wide(low.value);
    let space = Space::Memory { wide, prefetchable: low.value & 8 != 0 };
    let low_address = low.value & !15;
    if wide {
        let mask = u64::from(high.mask) << 32 | u64::from(low.mask & !15);
        let address = u64::from(high.value) << 32 | u64::from(low_address);
        return sized(index, space, address, (!mask).wrapping_add(1));
    }
    sized(index, space, low_address.into(), (!(low.mask & !15)).wrapping_add(1).into())
}

fn sized(index: u8, space: Space, address: u64, size: u64) -> Option<Bar> {
    size.is_power_of_two().then_some(Bar { index, space, address, size })
}

/// The next free addresses for BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    memory: u64,
    memory_end: u64,
    io: u64,
}

impl Windows {
    /// Both windows empty.
    pub fn new() -> Self {
        Self { memory: MEMORY_START, memory_end: MEMORY_END, io: IO_START }
    }

    /// Memory from `start` to `end`, and no ports.
    pub fn memory(start: u64, end: u64) -> Self {
        Self { memory: start, memory_end: end, io: IO_END }
    }

    /// Stays clear of a BAR that has an address.
    pub fn avoid(&mut self, bar: &Bar) {
        let end = bar.address.saturating_add(bar.size);
        let (next, start, limit) = match bar.space {
            Space::Io => (&mut self.io, IO_START, IO_END),
            Space::Memory { .. } => (&mut self.memory, MEMORY_START, MEMORY_END),
        };
        if bar.address != 0 && end > start && bar.address < limit {
            *next = (*next).max(end);
        }
    }

    /// An address for `bar`, naturally aligned; `None` when the window is full.
    pub fn place(&mut self, bar: &Bar) -> Option<u64> {
        let (next, limit) = match bar.space {
            Space::Io => (&mut self.io, IO_END),
            Space::Memory { .. } => (&mut self.memory, self.memory_end),
        };
        let address = next.checked_next_multiple_of(bar.size)?;
        let end = address.checked_add(bar.size)?;
        if end > limit {
            return None;
        }
        *next = end;
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(value: u32, mask: u32) -> Option<Bar> {
        decode(0, Reading { value, mask }, Reading::default())
    }

    #[test]
    fn registers_are_decoded() {
        assert_eq!(alone(0, 0), None);
        let io = alone(0xc041, 0xffff_ffe1).expect("an I/O BAR");
        assert_eq!((io.space, io.address, io.size), (Space::Io, 0xc040, 32));
        assert_eq!(alone(1, 0x0000_ffe1).expect("16-bit decoder").size, 32);
        let memory = alone(0xfebf_1000, 0xffff_f000).expect("a memory BAR");
        assert_eq!(
            (memory.space.name(), memory.address, memory.size),
            ("mem32", 0xfebf_1000, 4096)
        );
        let low = Reading { value: 0x0c, mask: 0xffff_c00c };
        let high = Reading { value: 0x80, mask: 0xffff_ffff };
        let wide = decode(4, low, high).expect("a 64-bit BAR");
        assert_eq!((wide.index, wide.address, wide.size), (4, 0x80_0000_0000, 0x4000));
        assert_eq!(wide.space.name(), "mem64 prefetchable");
        let huge =
            decode(0, Reading { value: 4, mask: 4 }, Reading { value: 0, mask: 0xffff_fffe });
        assert_eq!(huge.expect("8 GiB").size, 8 << 30);
    }

    #[test]
    fn nonsense_masks_decode_nothing() {
        assert_eq!(alone(0, 0xff00_ff00), None, "not a power of two");
        assert_eq!(alone(0xffff_ffff, 0xffff_ffff), None, "no device");
        assert_eq!(decode(0, Reading { value: 4, mask: 4 }, Reading::default()), None);
    }

    #[test]
    fn places_are_aligned_and_clear_of_what_is_there() {
        let memory = |address, size| Bar {
            index: 0,
            space: Space::Memory { wide: false, prefetchable: false },
            address,
            size,
        };
        let mut windows = Windows::new();
        windows.avoid(&memory(0, 0x1000));
        windows.avoid(&memory(0xd000_0000, 0x1000));
        windows.avoid(&memory(0x80_0000_0000, 0x1000));
        assert_eq!(windows.place(&memory(0, 0x4000)), Some(0xd000_4000));
        assert_eq!(windows.place(&memory(0, 0x1000)), Some(0xd000_8000));
        assert_eq!(windows.place(&memory(0, 1 << 31)), None);
        let io = Bar { index: 0, space: Space::Io, address: 0, size: 0x40 };
        assert_eq!(windows.place(&io), Some(0xc000));
        assert_eq!(windows.place(&io), Some(0xc040));
        let mut small = Windows::memory(0xe000_0000, 0xe000_2000);
        assert_eq!(small.place(&memory(0, 0x1000)), Some(0xe000_0000));
        assert_eq!(small.place(&io), None);
        assert_eq!(small.place(&memory(0, 0x2000)), None);
    }
}
