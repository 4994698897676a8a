//! Linear addresses as a debugger sees them: where they lead, without checks of access and without
//! a trace in the page tables (Intel SDM volume 3, chapter 4).

use crate::memory::Ram;
use kvm_bindings::kvm_sregs;
use vm_memory::{Bytes, GuestAddress};

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PAGE: u64 = 4096;

/// How a vCPU translates linear addresses, as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    mode: Mode,
    /// Physical address of the top table.
    root: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// No paging: addresses are physical.
    Flat,
    /// 32-bit paging; with 4 MiB pages if CR4.PSE is set.
    Legacy { large_pages: bool },
    /// PAE paging.
    Pae,
    /// 4-level or 5-level paging.
    Long { levels: u32 },
}

impl Linear {
    /// Of a vCPU with these registers.
    pub(crate) fn of(sregs: &kvm_sregs) -> Self {
        if sregs.cr0 & CR0_PG == 0 {
            return Self::flat();
        }
        let mode = if sregs.cr4 & CR4_PAE == 0 {
            Mode::Legacy { large_pages: sregs.cr4 & CR4_PSE != 0 }
        } else if sregs.efer & EFER_LMA == 0 {
            Mode::Pae
        } else {
            Mode::Long { levels: if sregs.cr4 & CR4_LA57 == 0 { 4 } else { 5 } }
        };
        Self { mode, root: sregs.cr3 }
    }

    /// A vCPU that does not page: linear addresses are physical.
    pub fn flat() -> Self {
        Self { mode: Mode::Flat, root: 0 }
    }

    /// The guest-physical address behind `linear`; `None` where no page is present. Reads the
    /// page tables out of RAM: any thread, no waiting.
    pub fn translate(&self, ram: &Ram, linear: u64) -> Option<u64> {
        match self.mode {
            Mode::Flat => Some(linear),
            Mode::Legacy { large_pages } => self.legacy(ram, linear, large_pages),
            // CR3 points to 4 entries of 8 bytes, each for 1 GiB; none of them is a page.
            Mode::Pae => {
                let linear = linear & 0xffff_ffff;
                let entry = present(ram, (self.root & 0xffff_ffe0) + (linear >> 30) * 8)?;
                walk(ram, entry & ADDRESS, linear, 2)
            }
            Mode::Long { levels } => {
                let unused = 64 - (12 + 9 * levels);
                // Non-canonical addresses lead nowhere.
                if ((linear << unused) as i64 >> unused) as u64 != linear {
                    return None;
                }
                walk(ram, self.root & ADDRESS, linear, levels)
            }
        }
    }

    fn legacy(&self, ram: &Ram, linear: u64, large_pages: bool) -> Option<u64> {
        let entry = |table: u64, index: u64| {
            let entry: u32 = ram.read_obj(GuestAddress(table + index * 4)).ok()?;
            (u64::from(entry) & PRESENT != 0).then_some(u64::from(entry))
        };
        let linear = linear & 0xffff_ffff;
        let directory = entry(self.root & 0xffff_f000, linear >> 22)?;
        if large_pages && directory & LARGE != 0 {
            // PSE-36: bits 13 to 20 are bits 32 to 39 of the address.
            let high = (directory >> 13 & 0xff) << 32;
            return Some(high | directory & 0xffc0_0000 | linear & 0x3f_ffff);
        }
        let page = entry(directory & 0xffff_f000, linear >> 12 & 0x3ff)?;
        Some(page & 0xffff_f000 | linear & (PAGE - 1))
    }
}

/// `levels` of tables with 512 entries of 8 bytes.
fn walk(ram: &Ram, mut table: u64, linear: u64, levels: u32) -> Option<u64> {
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = present(ram, table + (linear >> shift & 0x1ff) * 8)?;
        if level == 0 || entry & LARGE != 0 {
            let offset = (1u64 << shift) - 1;
            // Only the lower levels have pages; bit 7 is reserved above.
            return (level <= 2).then_some(entry & ADDRESS & !offset | linear & offset);
        }
        table = entry & ADDRESS;
    }
    None
}

fn present(ram: &Ram, at: u64) -> Option<u64> {
    let entry: u64 = ram.read_obj(GuestAddress(at)).ok()?;
    (entry & PRESENT != 0).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(entries: &[(u64, u64)]) -> Ram {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        for (at, value) in entries {
            ram.write_obj(*value, GuestAddress(*at)).unwrap();
        }
        ram
    }

    fn sregs(cr0: u64, cr4: u64, efer: u64) -> kvm_sregs {
        kvm_sregs { cr0, cr3: 0x1000, cr4, efer, ..kvm_sregs::default() }
    }

    #[test]
    fn each_mode_finds_its_pages() {
        let flat = Linear::of(&sregs(0, 0, 0));
        assert_eq!((flat, flat.translate(&ram(&[]), 0x1234)), (Linear::flat(), Some(0x1234)));

        let long = Linear::of(&sregs(CR0_PG, CR4_PAE, EFER_LMA));
        let tables = ram(&[
            (0x1000, 0x2001),
            (0x2000, 0x3001),
            (0x2008, 0x4000_0081),
            (0x3000, 0x4001),
            (0x3008, 0x20_0081),
            (0x4008, 0x7001),
        ]);
        assert_eq!(long.translate(&tables, 0x1123), Some(0x7123));
        assert_eq!(long.translate(&tables, 0x23_4567), Some(0x23_4567));
        assert_eq!(long.translate(&tables, 0x4012_3456), Some(0x4012_3456));
        assert_eq!(long.translate(&tables, 0x2000), None);
        assert_eq!(long.translate(&tables, 0x7fff_0000_0000), None);
        assert_eq!(long.translate(&tables, 1 << 50), None, "not canonical");
        let untouched: u64 = tables.read_obj(GuestAddress(0x4008)).unwrap();
        assert_eq!(untouched, 0x7001, "no accessed bit is set");

        let deeper = Linear::of(&sregs(CR0_PG, CR4_PAE | CR4_LA57, EFER_LMA));
        let tables = ram(&[(0x1000, 0x2001), (0x2000, 0x8000_0081)]);
        assert_eq!(deeper.translate(&tables, 0x12), None, "bit 7 is reserved in a PML4 entry");

        let pae = Linear::of(&sregs(CR0_PG, CR4_PAE, 0));
        let tables = ram(&[(0x1018, 0x2001), (0x2000, 0x3001), (0x3000, 0x9001)]);
        assert_eq!(pae.translate(&tables, 0xc000_0abc), Some(0x9abc));
        assert_eq!(pae.translate(&tables, 0x0000_0abc), None);

        let legacy = Linear::of(&sregs(CR0_PG, CR4_PSE, 0));
        let tables = ram(&[(0x1000, 0x0040_0081_0000_2001), (0x2000, 0x5001)]);
        assert_eq!(legacy.translate(&tables, 0x123), Some(0x5123));
        assert_eq!(legacy.translate(&tables, 0x40_0123), Some(0x40_0123));
    }
}
