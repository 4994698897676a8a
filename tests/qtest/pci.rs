//! Configuration mechanism #1 and BARs, as drivers without firmware use them.

use crate::machine::Machine;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
pub const COMMAND: u8 = 0x04;
pub const STATUS: u8 = 0x06;
pub const BAR0: u8 = 0x10;
const CAPABILITIES: u8 = 0x34;
/// I/O, memory and bus master.
pub const ENABLE: u16 = 0b111;
/// Where tests place memory BARs.
pub const WINDOW: u64 = 0xe000_0000;

/// A function on bus 0: device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u8);

impl Slot {
    fn select(self, m: &mut Machine, register: u8) {
        m.outl(ADDRESS, 1 << 31 | u32::from(self.0) << 11 | u32::from(register));
    }

    pub fn read8(self, m: &mut Machine, register: u8) -> u8 {
        self.select(m, register);
        m.inb(DATA)
    }

    pub fn read16(self, m: &mut Machine, register: u8) -> u16 {
        self.select(m, register);
        m.inw(DATA)
    }

    pub fn read32(self, m: &mut Machine, register: u8) -> u32 {
        self.select(m, register);
        m.inl(DATA)
    }

    pub fn write16(self, m: &mut Machine, register: u8, value: u16) {
        self.select(m, register);
        m.outw(DATA, value);
    }

    pub fn write32(self, m: &mut Machine, register: u8, value: u32) {
        self.select(m, register);
        m.outl(DATA, value);
    }

    /// Bytes that BAR `index` decodes; 0 where there is none.
    pub fn bar_size(self, m: &mut Machine, index: u8) -> u32 {
        let register = BAR0 + 4 * index;
        let before = self.read32(m, register);
        self.write32(m, register, u32::MAX);
        let mask = self.read32(m, register) & !0xf;
        self.write32(m, register, before);
        mask.wrapping_neg()
    }

    /// Places BAR `index` at `address`, writing its low half only.
    pub fn place(self, m: &mut Machine, index: u8, address: u64) {
        self.write32(m, BAR0 + 4 * index, address as u32);
    }

    /// Switches decoding and bus mastering on.
    pub fn enable(self, m: &mut Machine) {
        let command = self.read16(m, COMMAND);
        self.write16(m, COMMAND, command | ENABLE);
    }

    /// Offsets of the capabilities with this ID.
    pub fn capabilities(self, m: &mut Machine, id: u8) -> Vec<u8> {
        let mut found = Vec::new();
        let mut at = self.read8(m, CAPABILITIES);
        // A list has as many entries as fit the space, at most.
        for _ in 0..48 {
            if at == 0 {
                return found;
            }
            if self.read8(m, at) == id {
                found.push(at);
            }
            at = self.read8(m, at + 1);
        }
        panic!("the capability list has no end");
    }
}
