//! Page-table walks of 4 and 5 levels with their access checks (Intel SDM volume 3, sections 4.5
//! and 4.6).
//!
//! `KVM_TRANSLATE` gives an address but not whether the guest may write to it, and a write to a
//! page that the guest shares copy-on-write must fault. So in long mode we look ourselves.

use super::Stop;
use crate::memory::Ram;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileMemory};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Error code bits of a page fault.
const FAULT_PRESENT: u32 = 1;
const FAULT_WRITE: u32 = 1 << 1;
const FAULT_USER: u32 = 1 << 2;

/// What governs a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paging {
    /// Physical address of the top table.
    pub root: u64,
    /// 4 or 5.
    pub levels: u32,
    /// CR0.WP: supervisor writes heed read-only pages.
    pub write_protect: bool,
    /// Supervisor accesses to user pages fault (CR4.SMAP, with RFLAGS.AC clear).
    pub user_pages_barred: bool,
    /// The access comes from CPL 3.
    pub user: bool,
}

/// The guest-physical address behind `linear`, or the page fault that the access is.
///
/// Sets the accessed and dirty bits as the processor would.
pub(super) fn walk(ram: &Ram, paging: &Paging, linear: u64, write: bool) -> Result<u64, Stop> {
    let access = (u32::from(write) * FAULT_WRITE) | (u32::from(paging.user) * FAULT_USER);
    let fault = |present: u32| Stop::page_fault(linear, access | present);
    let mut table = paging.root & ADDRESS;
    let mut rights = WRITABLE | USER;
    let mut path = Vec::with_capacity(5);
    for level in (0..paging.levels).rev() {
        let shift = 12 + 9 * level;
        let slot = table + (linear >> shift & 0x1ff) * 8;
        let entry = atomic(ram, slot, |entry| entry.load(Ordering::Relaxed))?;
        if entry & PRESENT == 0 {
            return Err(fault(0));
        }
        path.push(slot);
        rights &= entry;
        let leaf = level == 0 || entry & LARGE != 0;
        if !leaf {
            table = entry & ADDRESS;
            continue;
        }
        if level > 2 {
            return Err(Stop::Decline("its page tables are malformed"));
        }
        if denied(paging, rights, write) {
            return Err(fault(FAULT_PRESENT));
        }
        mark(ram, &path, write)?;
        let offset = (1u64 << shift) - 1;
        return Ok(entry & ADDRESS & !offset | linear & offset);
    }
    Err(Stop::Decline("its page tables have no leaf"))
}

fn denied(paging: &Paging, rights: u64, write: bool) -> bool {
    let user_page = rights & USER != 0;
    let read_only = rights & WRITABLE == 0;
    if paging.user {
        !user_page || write && read_only
    } else {
        user_page && paging.user_pages_barred || write && read_only && paging.write_protect
    }
}

fn mark(ram: &Ram, path: &[u64], write: bool) -> Result<(), Stop> {
    for (depth, slot) in path.iter().enumerate() {
        let leaf = depth + 1 == path.len();
        let bits = if leaf && write { ACCESSED | DIRTY } else { ACCESSED };
        atomic(ram, *slot, |entry| entry.fetch_or(bits, Ordering::Relaxed))?;
    }
    Ok(())
}

fn atomic(ram: &Ram, slot: u64, f: impl FnOnce(&AtomicU64) -> u64) -> Result<u64, Stop> {
    const OUTSIDE: Stop = Stop::Decline("its page tables are not in RAM");
    let slice = ram.get_slice(GuestAddress(slot), 8).map_err(|_| OUTSIDE)?;
    slice.get_atomic_ref::<AtomicU64>(0).map(f).map_err(|_| OUTSIDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    const RW_USER: u64 = PRESENT | WRITABLE | USER;

    /// PML4 at 0x1000, PDPT 0x2000, PD 0x3000, PT 0x4000; linear 0x40_0000 up.
    fn tables(leaf: u64) -> Ram {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x80_0000)]).unwrap();
        let put = |at: u64, value: u64| ram.write_obj(value, GuestAddress(at)).unwrap();
        put(0x1000, 0x2000 | RW_USER);
        put(0x2000, 0x3000 | RW_USER);
        put(0x3000 + 2 * 8, 0x4000 | RW_USER);
        put(0x3000 + 3 * 8, 0x20_0000 | LARGE | RW_USER);
        put(0x4000, leaf);
        ram
    }

    const KERNEL: Paging = Paging {
        root: 0x1000,
        levels: 4,
        write_protect: true,
        user_pages_barred: false,
        user: false,
    };

    fn code(result: Result<u64, Stop>) -> Option<u32> {
        match result {
            Err(Stop::Exception { vector: 14, code, .. }) => code,
            _ => None,
        }
    }

    #[test]
    fn small_and_large_pages_are_found_and_marked() {
        let ram = tables(0x7000 | RW_USER);
        assert_eq!(walk(&ram, &KERNEL, 0x40_0123, false).unwrap(), 0x7123);
        let leaf = |ram: &Ram| ram.read_obj::<u64>(GuestAddress(0x4000)).unwrap();
        assert_eq!(leaf(&ram) & (ACCESSED | DIRTY), ACCESSED);
        assert_eq!(walk(&ram, &KERNEL, 0x40_0123, true).unwrap(), 0x7123);
        assert_eq!(leaf(&ram) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
        assert_eq!(walk(&ram, &KERNEL, 0x61_2345, true).unwrap(), 0x21_2345);
    }

    #[test]
    fn what_is_not_allowed_faults_with_the_processors_error_code() {
        let ram = tables(0x7000 | PRESENT | USER);
        assert_eq!(code(walk(&ram, &KERNEL, 0x40_0000, true)), Some(3), "copy on write");
        let no_wp = Paging { write_protect: false, ..KERNEL };
        assert!(walk(&ram, &no_wp, 0x40_0000, true).is_ok());
        let smap = Paging { user_pages_barred: true, ..KERNEL };
        assert_eq!(code(walk(&ram, &smap, 0x40_0000, false)), Some(1));
        let user = Paging { user: true, ..KERNEL };
        assert_eq!(code(walk(&ram, &user, 0x40_0000, true)), Some(7));
        assert_eq!(code(walk(&ram, &KERNEL, 0x40_1000, true)), Some(2), "not present");
        let ram = tables(0x7000 | PRESENT | WRITABLE);
        assert_eq!(code(walk(&ram, &user, 0x40_0000, false)), Some(5));
    }

    #[test]
    fn tables_outside_ram_are_declined() {
        let ram = tables(0);
        let outside = Paging { root: 0x1_0000_0000, ..KERNEL };
        assert!(matches!(walk(&ram, &outside, 0, false), Err(Stop::Decline(_))));
    }
}
