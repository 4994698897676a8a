//! PCI by configuration mechanism #1 (PCI Local Bus 3.0, section 3.2.2.3.2): bus 0, and slots of root ports.

pub(crate) mod bar;
pub(crate) mod msix;
mod names;
pub(crate) mod port;

pub(crate) use self::bar::{Bar, Space, Windows};
pub(crate) use self::names::name_of;

use crate::cpu::{self, Width};

/// Most functions kept of a bus.
pub(crate) const FUNCTIONS_MAX: usize = 64;
/// Most capabilities followed in one function's list: as many as fit the space for them.
const CAPABILITIES_MAX: usize = 48;

const COMMAND: u8 = 0x04;
const STATUS: u8 = 0x06;
const BARS: u8 = 0x10;
const CAPABILITIES: u8 = 0x34;

const COMMAND_IO: u16 = 0x1;
const COMMAND_MEMORY: u16 = 0x2;
const COMMAND_MASTER: u16 = 0x4;
const STATUS_CAPABILITIES: u16 = 0x10;

/// Where a function is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl core::fmt::Display for Location {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

impl Location {
    /// What 0xcf8 takes to select `offset`.
    pub fn address(self, offset: u8) -> u32 {
        let [bus, device, function] = [self.bus, self.device, self.function].map(u32::from);
        1 << 31 | bus << 16 | (device & 31) << 11 | (function & 7) << 8 | u32::from(offset)
    }

    /// Reads the 32 bits at `offset`, rounded down to a multiple of four.
    pub fn read32(self, offset: u8) -> u32 {
        cpu::config_read(self.address(offset))
    }

    /// Reads the 16 bits at `offset`, an even number.
    pub fn read16(self, offset: u8) -> u16 {
        (self.read32(offset) >> (8 * (offset & 2))) as u16
    }

    /// Reads the byte at `offset`.
    pub fn read8(self, offset: u8) -> u8 {
        (self.read32(offset) >> (8 * (offset & 3))) as u8
    }

    /// Writes 32 bits.
    pub fn write32(self, offset: u8, value: u32) {
        cpu::config_write(self.address(offset), Width::Long, value);
    }

    /// Writes 16 bits.
    pub fn write16(self, offset: u8, value: u16) {
        cpu::config_write(self.address(offset), Width::Word, value.into());
    }

    /// Writes a byte.
    pub fn write8(self, offset: u8, value: u8) {
        cpu::config_write(self.address(offset), Width::Byte, value.into());
    }

    /// The command register.
    pub fn command(self) -> u16 {
        self.read16(COMMAND)
    }

    /// Sets the command register.
    pub fn set_command(self, value: u16) {
        self.write16(COMMAND, value);
    }

    /// Lets the function answer at its memory BARs and use memory itself.
    pub fn enable(self) {
        let command = self.command();
        if command & (COMMAND_MEMORY | COMMAND_MASTER) != COMMAND_MEMORY | COMMAND_MASTER {
            self.set_command(command | COMMAND_MEMORY | COMMAND_MASTER);
        }
    }

    /// Calls `visit` with identifier and offset of each capability until it returns `Some`.
    pub fn find_capability<T>(self, mut visit: impl FnMut(u8, u8) -> Option<T>) -> Option<T> {
        if self.read16(STATUS) & STATUS_CAPABILITIES == 0 {
            return None;
        }
        let mut offset = self.read8(CAPABILITIES) & !3;
        for _ in 0..CAPABILITIES_MAX {
            if offset < 0x40 {
                break;
            }
            let head = self.read32(offset);
            if let Some(found) = visit(head as u8, offset) {
                return Some(found);
            }
            offset = (head >> 8) as u8 & !3;
        }
        None
    }

    /// Configuration offset of BAR `index`.
    pub fn bar_offset(index: u8) -> u8 {
        BARS + 4 * index
    }
}

/// A function found on the bus.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Function {
    /// Where it is.
    pub location: Location,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Class, subclass and programming interface, 24 bits.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Base address registers; the second half of a 64-bit one is `None`.
    pub bars: [Option<Bar>; 6],
}

/// The functions of bus 0.
pub(crate) struct Bus {
    functions: [Function; FUNCTIONS_MAX],
    count: usize,
}

impl Bus {
    /// Finds all functions, and gives addresses to the BARs that have none.
    pub fn scan() -> Self {
        let mut bus = Self { functions: [Function::default(); FUNCTIONS_MAX], count: 0 };
        for device in 0..32 {
            bus.scan_device(device);
        }
        bus.assign();
        bus
    }

    /// What was found, in the order of location.
    pub fn functions(&self) -> &[Function] {
        &self.functions[..self.count]
    }

    fn scan_device(&mut self, device: u8) {
        for function in 0..8 {
            let location = Location { bus: 0, device, function };
            let found = probe(location);
            let present = found.is_some();
            if let Some(found) = found.filter(|_| self.count < FUNCTIONS_MAX) {
                self.functions[self.count] = found;
                self.count += 1;
            }
            let several = function != 0 || (present && location.read8(0x0e) & 0x80 != 0);
            if !several {
                break;
            }
        }
    }

    fn assign(&mut self) {
        let functions = &mut self.functions[..self.count];
        let mut windows = bar::Windows::new();
        for bar in functions.iter().flat_map(|function| function.bars.iter().flatten()) {
            windows.avoid(bar);
        }
        for function in functions {
            place_bars(function, &mut windows);
        }
    }
}

/// The function that has come at `location`, with addresses of `windows` for its BARs.
pub(crate) fn function_at(location: Location, windows: &mut Windows) -> Option<Function> {
    let mut function = probe(location)?;
    place_bars(&mut function, windows);
    Some(function)
}

/// Gives addresses to the BARs that have none.
fn place_bars(function: &mut Function, windows: &mut Windows) {
    let location = function.location;
    for bar in function.bars.iter_mut().flatten().filter(|bar| bar.address == 0) {
        if let Some(address) = windows.place(bar) {
            bar.address = address;
            write_bar(location, bar, address);
        }
    }
}

/// Writes `address` into the registers of `bar`.
pub(crate) fn write_bar(location: Location, bar: &Bar, address: u64) {
    let offset = Location::bar_offset(bar.index);
    location.write32(offset, address as u32);
    if matches!(bar.space, Space::Memory { wide: true, .. }) {
        location.write32(offset + 4, (address >> 32) as u32);
    }
}

fn probe(location: Location) -> Option<Function> {
    let identity = location.read32(0);
    if matches!(identity as u16, 0 | 0xffff) {
        return None;
    }
    let class = location.read32(0x08);
    let bars = match location.read8(0x0e) & 0x7f {
        0 => 6,
        1 => 2,
        _ => 0,
    };
    Some(Function {
        location,
        vendor: identity as u16,
        device: (identity >> 16) as u16,
        class: class >> 8,
        revision: class as u8,
        bars: probe_bars(location, bars),
    })
}

/// Sizes the first `count` BARs, decoding switched off meanwhile.
fn probe_bars(location: Location, count: u8) -> [Option<Bar>; 6] {
    let command = location.command();
    let decoding = command & (COMMAND_IO | COMMAND_MEMORY) != 0;
    if decoding {
        location.set_command(command & !(COMMAND_IO | COMMAND_MEMORY));
    }
    let mut bars = [None; 6];
    let mut index = 0;
    while index < count {
        let low = size(location, index);
        let wide = low.mask != 0 && bar::is_wide(low.value) && index + 1 < count;
        let high = if wide { size(location, index + 1) } else { bar::Reading::default() };
        bars[usize::from(index)] = bar::decode(index, low, high);
        index += if wide { 2 } else { 1 };
    }
    if decoding {
        location.set_command(command);
    }
    bars
}

fn size(location: Location, index: u8) -> bar::Reading {
    let offset = Location::bar_offset(index);
    let value = location.read32(offset);
    location.write32(offset, u32::MAX);
    let mask = location.read32(offset);
    location.write32(offset, value);
    bar::Reading { value, mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_addresses_select_device_and_function() {
        let location = Location { bus: 0, device: 31, function: 7 };
        assert_eq!(location.address(0x3c), 0x8000_ff3c);
        assert_eq!(location.to_string(), "00:1f.7");
        let below = Location { bus: 0x12, device: 1, function: 0 };
        assert_eq!(below.address(0), 0x8012_0800);
        assert_eq!(below.to_string(), "12:01.0");
        assert_eq!(Location::bar_offset(5), 0x24);
    }
}
