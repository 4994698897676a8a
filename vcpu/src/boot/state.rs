//! The registers that the boot processor starts with.

use crate::memory::layout::{BOOT_GDT, PAGE_TABLES};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_FIXED: u64 = 2;

/// Selectors of the boot GDT, as the 64-bit Linux boot protocol fixes the first two.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;
/// Entries of the boot GDT; the 64-bit TSS descriptor takes two.
pub(super) const GDT_LEN: usize = 6;

/// How the boot processor starts. What the addresses lead to is in guest RAM by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootState {
    /// 64-bit mode, paging on with the first 4 GiB mapped one to one, `RSI` at `boot_params`
    /// (Linux x86 boot protocol, "64-bit boot protocol").
    Linux64 {
        /// First instruction.
        entry: u64,
        /// Where `boot_params` is.
        boot_params: u64,
    },
    /// 32-bit protected mode, paging off, `EBX` at `hvm_start_info` (Xen's PVH boot ABI).
    Pvh {
        /// First instruction.
        entry: u32,
        /// Where `hvm_start_info` is.
        start_info: u32,
    },
    /// Real mode at `CS:IP` = 0000:`ip`; for code that needs nothing.
    Real {
        /// First instruction.
        ip: u16,
    },
}

impl BootState {
    /// Changes registers from their power-on state to those that the boot protocol asks for.
    pub(crate) fn apply(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        regs.rflags = RFLAGS_FIXED;
        match *self {
            Self::Linux64 { entry, boot_params } => {
                regs.rip = entry;
                regs.rsi = boot_params;
                sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
                sregs.cr3 = PAGE_TABLES.start;
                sregs.cr4 = CR4_PAE;
                sregs.efer = EFER_LME | EFER_LMA;
                flat_segments(sregs, code_segment(true));
            }
            Self::Pvh { entry, start_info } => {
                regs.rip = entry.into();
                regs.rbx = start_info.into();
                sregs.cr0 = CR0_PE | CR0_ET;
                sregs.cr4 = 0;
                sregs.efer = 0;
                flat_segments(sregs, code_segment(false));
            }
            Self::Real { ip } => {
                regs.rip = ip.into();
                sregs.cs.selector = 0;
                sregs.cs.base = 0;
            }
        }
    }

    /// The GDT that the segment registers were "loaded" from; `None` in real mode.
    pub(super) fn gdt(&self) -> Option<[u64; GDT_LEN]> {
        let code = match self {
            Self::Linux64 { .. } => code_segment(true),
            Self::Pvh { .. } => code_segment(false),
            Self::Real { .. } => return None,
        };
        let entries = [code, data_segment(), task_segment()].map(|s| descriptor(&s));
        Some([0, 0, entries[0], entries[1], entries[2], 0])
    }
}

fn flat_segments(sregs: &mut kvm_sregs, code: kvm_segment) {
    let data = data_segment();
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task_segment();
    sregs.gdt =
        kvm_dtable { base: BOOT_GDT, limit: (GDT_LEN * 8 - 1) as u16, ..Default::default() };
    sregs.idt = kvm_dtable::default();
}

/// Flat, readable, present, ring 0 (Intel SDM volume 3, section 3.4.5).
fn code_segment(long: bool) -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector: CODE,
        type_: 0xb,
        present: 1,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

fn data_segment() -> kvm_segment {
    kvm_segment { selector: DATA, type_: 3, db: 1, l: 0, ..code_segment(false) }
}

/// A busy TSS of the least length; nothing uses it.
fn task_segment() -> kvm_segment {
    kvm_segment { limit: 0x67, selector: TASK, type_: 0xb, present: 1, ..Default::default() }
}

/// A segment register's hidden part as a descriptor.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = if segment.g == 1 { segment.limit >> 12 } else { segment.limit };
    let (base, limit) = (segment.base, u64::from(limit));
    let bits = |value: u8, shift: u32| u64::from(value) << shift;
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | bits(segment.type_, 40)
        | bits(segment.s, 44)
        | bits(segment.dpl, 45)
        | bits(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bits(segment.l, 53)
        | bits(segment.db, 54)
        | bits(segment.g, 55)
        | (base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_a_flat_machine() {
        let linux = BootState::Linux64 { entry: 0x100_0000, boot_params: 0x7000 };
        let gdt = linux.gdt().unwrap();
        assert_eq!(gdt[2..5], [0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x8b00_0000_0067]);
        let pvh = BootState::Pvh { entry: 0x10_0000, start_info: 0x6000 };
        assert_eq!(pvh.gdt().unwrap()[2], 0x00cf_9b00_0000_ffff);
        assert!(BootState::Real { ip: 0 }.gdt().is_none());
    }

    #[test]
    fn registers_are_as_the_protocols_say() {
        let (mut regs, mut sregs) = (kvm_regs::default(), kvm_sregs::default());
        sregs.cr0 = 0x6000_0010;
        BootState::Linux64 { entry: 0x100_0000, boot_params: 0x7000 }.apply(&mut regs, &mut sregs);
        assert_eq!((regs.rip, regs.rsi, regs.rflags), (0x100_0000, 0x7000, 2));
        assert_eq!((sregs.cs.selector, sregs.ds.selector, sregs.cs.l), (0x10, 0x18, 1));
        assert_eq!(sregs.cr0 >> 31 & 1, 1, "paging");
        assert_eq!(sregs.cr0 & 0x6000_0000, 0, "caches on");
        assert_eq!(sregs.efer, 0x500);

        let (mut regs, mut sregs) = (kvm_regs::default(), kvm_sregs::default());
        BootState::Pvh { entry: 0x10_0000, start_info: 0x6000 }.apply(&mut regs, &mut sregs);
        assert_eq!((regs.rip, regs.rbx), (0x10_0000, 0x6000));
        assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
        assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.limit), (1, 0, 0xffff_ffff));
        assert_eq!(sregs.tr.limit, 0x67);
    }
}
