//! MSI-X: the table of message-signalled interrupts (PCI Local Bus 3.0, section 6.8.2).

use super::{Function, Location};
use crate::machine::Machine;
use crate::mem::Region;

/// Identifier of the capability.
pub(crate) const CAPABILITY: u8 = 0x11;
/// What a virtio register takes to have no vector.
pub(crate) const NO_VECTOR: u16 = 0xffff;

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const ENTRY_LEN: usize = 16;

/// Where a function's MSI-X table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// BAR that holds the table.
    pub bar: u8,
    /// Offset into it.
    pub offset: u32,
    /// Entries.
    pub entries: u16,
}

/// Decodes the capability's first two words.
pub(crate) fn place(head: u32, table: u32) -> Place {
    let entries = ((head >> 16) as u16 & 0x7ff) + 1;
    Place { bar: (table & 7) as u8, offset: table & !7, entries }
}

/// A function's MSI-X table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Msix {
    location: Location,
    capability: u8,
    table: Region,
    entries: u16,
}

impl Msix {
    /// The table of `function`, where it has one that is accessible.
    pub fn open(machine: &mut Machine, function: &Function) -> Option<Self> {
        let location = function.location;
        let (at, place) = location.find_capability(|id, at| {
            let words = || (location.read32(at), location.read32(at.saturating_add(4)));
            (id == CAPABILITY).then(words).map(|(head, table)| (at, place(head, table)))
        })?;
        let len = usize::from(place.entries) * ENTRY_LEN;
        let table = machine.map_bar(function, place.bar, place.offset, len)?;
        Some(Self::new(location, at, table, place.entries))
    }

    /// The table `table` of the function whose capability is at offset `capability`.
    pub fn new(location: Location, capability: u8, table: Region, entries: u16) -> Self {
        Self { location, capability, table, entries }
    }

    /// How many interrupts the table can tell apart.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Sends interrupt `entry` to `vector` of the processor `apic_id`, unmasked.
    pub fn set(&self, entry: u16, vector: u8, apic_id: u32) {
        let words = [0xfee0_0000 | (apic_id & 0xff) << 12, 0, vector.into(), 0];
        for (index, word) in words.into_iter().enumerate() {
            self.table.store(usize::from(entry) * ENTRY_LEN + 4 * index, word);
        }
    }

    /// Programs nonsense: all states of the control bits, entries of all ones while masked. The
    /// function's interrupts are off afterwards.
    pub fn scramble(&self) {
        let control = self.location.read16(self.capability + 2);
        for bits in [FUNCTION_MASK, ENABLE | FUNCTION_MASK, !ENABLE, ENABLE | FUNCTION_MASK] {
            self.location.write16(self.capability + 2, bits);
            for word in 0..usize::from(self.entries) * ENTRY_LEN / 4 {
                self.table.store(4 * word, u32::MAX);
            }
        }
        for entry in 0..self.entries {
            self.set(entry, 0, 0);
            self.table.store(usize::from(entry) * ENTRY_LEN + 12, 1u32);
        }
        self.location.write16(self.capability + 2, control & !ENABLE);
    }

    /// Switches the function's interrupts to MSI-X.
    pub fn enable(&self) {
        let control = self.location.read16(self.capability + 2);
        self.location.write16(self.capability + 2, (control | ENABLE) & !FUNCTION_MASK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::test_memory;

    #[test]
    fn the_capability_tells_where_the_table_is() {
        let found = place(0x8003_0011, 0x0000_0801);
        assert_eq!(found, Place { bar: 1, offset: 0x800, entries: 4 });
    }

    #[test]
    fn entries_are_address_data_and_unmasked() {
        let table = test_memory::region(64);
        let msix = Msix::new(Location::default(), 0x40, table, 4);
        msix.set(2, 0x31, 1);
        let words: [u32; 4] = core::array::from_fn(|index| table.load(32 + 4 * index));
        assert_eq!(words, [0xfee0_1000, 0, 0x31, 0]);
    }
}
