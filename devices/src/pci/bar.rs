//! Base address registers: their declaration, their sizing and where they decode
//! (PCI Local Bus 3.0, section 6.2.5.1).

use super::config::{BAR0, COMMAND_IO, COMMAND_MEMORY, ConfigBuilder, ConfigSpace, LayoutError};
use vcpu::bus::Space;

/// Base address registers of a type 0 header.
pub const BAR_COUNT: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Io,
    Memory32,
    Memory64,
}

/// One base address register (or a pair of them) as a device declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    kind: Kind,
    size: u64,
    prefetchable: bool,
}

impl Bar {
    /// `size` ports: a power of two from 4 to 256.
    pub fn io(size: u64) -> Self {
        Self { kind: Kind::Io, size, prefetchable: false }
    }

    /// `size` bytes of memory below 4 GiB: a power of two from 16 to 2 GiB.
    pub fn memory32(size: u64) -> Self {
        Self { kind: Kind::Memory32, size, prefetchable: false }
    }

    /// `size` bytes of memory anywhere: a power of two from 16. Takes the next register too.
    pub fn memory64(size: u64) -> Self {
        Self { kind: Kind::Memory64, size, prefetchable: false }
    }

    /// The same with the prefetchable bit: reads have no side effects.
    #[must_use]
    pub fn prefetchable(self) -> Self {
        Self { prefetchable: self.kind != Kind::Io, ..self }
    }

    /// Bytes (or ports) it decodes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The address space it decodes in.
    pub fn space(&self) -> Space {
        if self.kind == Kind::Io { Space::Pio } else { Space::Mmio }
    }

    /// How many registers it takes.
    fn registers(self) -> usize {
        if self.kind == Kind::Memory64 { 2 } else { 1 }
    }

    fn type_bits(self) -> u32 {
        match self.kind {
            Kind::Io => 0b01,
            Kind::Memory32 => u32::from(self.prefetchable) << 3,
            Kind::Memory64 => 0b100 | u32::from(self.prefetchable) << 3,
        }
    }

    fn check(self) -> Result<(), &'static str> {
        let (least, most) = match self.kind {
            Kind::Io => (4, 256),
            Kind::Memory32 => (16, 1 << 31),
            Kind::Memory64 => (16, 1 << 62),
        };
        if !self.size.is_power_of_two() {
            Err("the size is not a power of two")
        } else if !(least..=most).contains(&self.size) {
            Err("the size is out of range for its kind")
        } else {
            Ok(())
        }
    }
}

/// All base address registers of a function, by the index of their first register.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    bars: [Option<Bar>; BAR_COUNT],
}

impl Bars {
    /// Declares `bar` at register `index` and lays its registers out in `config`.
    pub fn declare(
        &mut self,
        index: usize,
        bar: Bar,
        config: &mut ConfigBuilder,
    ) -> Result<(), LayoutError> {
        let error = |reason| LayoutError::Bar { index, size: bar.size, reason };
        bar.check().map_err(error)?;
        if index + bar.registers() > BAR_COUNT {
            return Err(error("there are six registers"));
        }
        if (index..index + bar.registers()).any(|i| self.takes(i)) {
            return Err(error("the register is taken"));
        }
        let mask = !(bar.size - 1);
        let offset = BAR0 + 4 * index as u16;
        config.set(offset, &bar.type_bits().to_le_bytes());
        config.writable(offset, &(mask as u32).to_le_bytes());
        if bar.kind == Kind::Memory64 {
            config.writable(offset + 4, &((mask >> 32) as u32).to_le_bytes());
        }
        self.bars[index] = Some(bar);
        Ok(())
    }

    fn takes(&self, register: usize) -> bool {
        let upper = register.checked_sub(1).and_then(|i| self.get(i));
        self.get(register).is_some() || upper.is_some_and(|bar| bar.registers() == 2)
    }

    /// The BAR whose first register is `index`.
    pub fn get(&self, index: usize) -> Option<Bar> {
        self.bars.get(index).copied().flatten()
    }

    /// Where BAR `index` asks to decode now: `None` while the Command register has its space
    /// off, or where the register holds no address that its size fits at.
    pub fn decoded_at(&self, index: usize, config: &ConfigSpace, command: u16) -> Option<u64> {
        let bar = self.get(index)?;
        let offset = BAR0 + 4 * index as u16;
        let low = u64::from(config.u32(offset));
        let (enable, base) = match bar.kind {
            Kind::Io => (COMMAND_IO, low & !0x3),
            Kind::Memory32 => (COMMAND_MEMORY, low & !0xf),
            Kind::Memory64 => {
                (COMMAND_MEMORY, u64::from(config.u32(offset + 4)) << 32 | low & !0xf)
            }
        };
        let fits = base != 0 && base.checked_add(bar.size - 1).is_some();
        (command & enable != 0 && fits).then_some(base)
    }
}
