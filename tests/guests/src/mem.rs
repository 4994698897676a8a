//! Guest-physical memory: regions shared with devices, the arena they come from, and windows.
//!
//! Everything is identity mapped. A [`Region`] is only ever accessed by volatile loads and stores,
//! so a device may change it at any time.

use core::fmt;

/// A plain unsigned integer that a region can hold.
pub(crate) trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

/// A range of guest-physical addresses: RAM set aside for devices, or a device's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    address: u64,
    len: usize,
}

impl Region {
    /// A range that reads nothing and takes nothing.
    pub const EMPTY: Region = Region { address: 0, len: 0 };

    /// The `len` bytes at guest-physical `address`.
    ///
    /// # Safety
    /// They must be identity mapped and no Rust object may lie there.
    pub unsafe fn from_raw(address: u64, len: usize) -> Self {
        Self { address, len }
    }

    /// Guest-physical address of the first byte.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// The part of `len` bytes from `offset`; `None` when it is not inside.
    pub fn part(self, offset: u64, len: usize) -> Option<Region> {
        let end = offset.checked_add(len as u64)?;
        (end <= self.len as u64).then(|| Region { address: self.address + offset, len })
    }

    /// Like `part`, where the program itself has computed the range.
    pub fn slice(self, offset: usize, len: usize) -> Region {
        self.part(offset as u64, len).expect("a range inside its region")
    }

    /// The word at byte `offset`, little endian.
    pub fn load<T: Word>(self, offset: usize) -> T {
        // SAFETY: `pointer` has checked range and alignment; regions are mapped and no Rust
        // object lies in them (kept by `Arena` and `map_window`).
        unsafe { self.pointer::<T>(offset).read_volatile() }
    }

    /// Stores a word at byte `offset`, little endian.
    pub fn store<T: Word>(self, offset: usize, value: T) {
        // SAFETY: as in `load`.
        unsafe { self.pointer::<T>(offset).write_volatile(value) }
    }

    /// Sets every byte to zero.
    pub fn clear(self) {
        for offset in 0..self.len {
            self.store(offset, 0u8);
        }
    }

    fn pointer<T: Word>(self, offset: usize) -> *mut T {
        let inside = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        assert!(inside, "offset {offset:#x} is outside a region of {:#x} bytes", self.len);
        let pointer = core::ptr::with_exposed_provenance_mut::<T>(self.address as usize + offset);
        assert!(pointer.is_aligned(), "offset {offset:#x} is not aligned");
        pointer
    }
}

/// Reads RAM or ROM that other software left, as ACPI tables are, at any alignment.
pub(crate) fn read_physical(address: u64, bytes: &mut [u8]) {
    let region = Region { address, len: bytes.len() };
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = region.load(offset);
    }
}

/// A piece of RAM given out from the bottom up and taken back in one go.
#[derive(Debug)]
pub(crate) struct Arena {
    next: u64,
    end: u64,
}

/// The arena has no room for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory {
    wanted: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no room for {} bytes of buffers: give the guest more memory", self.wanted)
    }
}

impl Arena {
    /// An arena of the RAM from `start` to `end`.
    ///
    /// # Safety
    /// The range must be mapped RAM that no Rust object uses and no other arena covers.
    pub unsafe fn new(start: u64, end: u64) -> Self {
        Self { next: start, end: end.max(start) }
    }

    /// A region of `len` bytes, aligned to `align` (a power of two). Not cleared.
    pub fn take(&mut self, len: usize, align: u64) -> Result<Region, OutOfMemory> {
        let refused = OutOfMemory { wanted: len };
        let address = self.next.checked_next_multiple_of(align).ok_or(refused)?;
        let end = address.checked_add(len as u64).ok_or(refused)?;
        if end > self.end {
            return Err(refused);
        }
        self.next = end;
        Ok(Region { address, len })
    }

    /// An arena of its own, of `len` bytes of this one.
    pub fn split(&mut self, len: usize) -> Result<Self, OutOfMemory> {
        let region = self.take(len, 4096)?;
        Ok(Self { next: region.address, end: region.address + len as u64 })
    }

    /// What to hand to `release` to take back everything given out from now on.
    pub fn mark(&self) -> u64 {
        self.next
    }

    /// Takes back what was given out since `mark`; no device may use it any more.
    pub fn release(&mut self, mark: u64) {
        self.next = mark;
    }
}

const GIB: u64 = 1 << 30;
const PRESENT_USER: u64 = 0x27;
const LARGE_PAGE_USER: u64 = 0xe7;

/// Where the page tables are, and room for more of them.
#[derive(Debug)]
pub(crate) struct PageTables {
    root: Region,
    spare: Region,
    spare_used: usize,
}

impl PageTables {
    /// The tables that `root` (4 KiB) heads, which map the first 4 GiB; new ones are made in
    /// `spare`, whole pages. What a program before a reset has added is forgotten.
    pub fn new(root: Region, spare: Region) -> Self {
        let mut tables = Self { root, spare, spare_used: 0 };
        root.slice(8, 511 * 8).clear();
        if let Some(first) = tables.entry(root, 0) {
            first.slice(4 * 8, 508 * 8).clear();
        }
        tables
    }

    /// Makes `len` bytes at `address` accessible as a device's registers: identity mapped, in
    /// 2 MiB pages, for CPL3. `None` when `address` is not canonical or page tables run out.
    ///
    /// # Safety
    /// No RAM that a Rust object uses may be in the range.
    pub unsafe fn map_window(&mut self, address: u64, len: usize) -> Option<Region> {
        let end = address.checked_add(len as u64)?;
        if len == 0 || end > 1 << 47 {
            return None;
        }
        let mut gib = address & !(GIB - 1);
        while gib < end {
            let directory_pointers = self.entry(self.root, (gib >> 39) as usize & 511)?;
            self.entry_with(directory_pointers, (gib >> 30) as usize & 511, gib)?;
            gib += GIB;
        }
        Some(Region { address, len })
    }

    /// The table that entry `index` of `table` names, made (empty) when there is none.
    fn entry(&mut self, table: Region, index: usize) -> Option<Region> {
        let entry: u64 = table.load(index * 8);
        if entry & 1 != 0 {
            return Some(Region { address: entry & !0xfff, len: 4096 });
        }
        let new = self.spare.part(self.spare_used as u64, 4096)?;
        self.spare_used += 4096;
        new.clear();
        table.store(index * 8, new.address | PRESENT_USER);
        Some(new)
    }

    /// Like `entry`, a new table mapping the GiB from `base`.
    fn entry_with(&mut self, table: Region, index: usize, base: u64) -> Option<()> {
        if table.load::<u64>(index * 8) & 1 != 0 {
            return Some(());
        }
        let directory = self.entry(table, index)?;
        for page in 0..512u64 {
            directory.store(page as usize * 8, (base + (page << 21)) | LARGE_PAGE_USER);
        }
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod test_memory {
    use super::Region;

    /// `len` zeroed bytes of the host's memory, page aligned and never freed.
    pub fn region(len: usize) -> Region {
        let pages = vec![[0u64; 512]; len.div_ceil(4096) + 1].leak();
        let exposed = pages.as_mut_ptr().expose_provenance() as u64;
        Region { address: exposed.next_multiple_of(4096), len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_stored_little_endian_and_bounds_are_kept() {
        let region = test_memory::region(16);
        region.store(4, 0x1122_3344u32);
        assert_eq!(region.load::<u8>(4), 0x44);
        assert_eq!(region.load::<u16>(6), 0x1122);
        assert_eq!(region.part(8, 8).map(Region::len), Some(8));
        assert_eq!(region.part(8, 9), None);
        assert_eq!(region.part(u64::MAX, 2), None);
        assert!(std::panic::catch_unwind(|| region.load::<u32>(13)).is_err());
    }

    #[test]
    fn arena_aligns_refuses_and_takes_back() {
        // SAFETY: the addresses are never accessed.
        let mut arena = unsafe { Arena::new(0x1001, 0x3000) };
        let first = arena.take(10, 0x1000).expect("room");
        assert_eq!(first.address(), 0x2000);
        let mark = arena.mark();
        assert_eq!(arena.take(0x1000, 1), Err(OutOfMemory { wanted: 0x1000 }));
        assert!(arena.take(0xff6, 1).is_ok());
        assert!(arena.take(1, 1).is_err());
        arena.release(mark);
        assert!(arena.take(usize::MAX, 1).is_err());
        assert_eq!(arena.take(6, 16).expect("room").address(), 0x2010);
        arena.release(mark);
        assert!(arena.split(0x1000).is_err());
        // SAFETY: as above.
        let mut whole = unsafe { Arena::new(0x1000, 0x3000) };
        let mut part = whole.split(0x1000).expect("room");
        assert_eq!(part.take(0x1000, 16).expect("room").address(), 0x1000);
        assert!(part.take(1, 1).is_err());
        assert_eq!(whole.take(16, 16).expect("room").address(), 0x2000);
    }

    #[test]
    fn windows_get_page_directories_once() {
        let root = test_memory::region(4096);
        let first = test_memory::region(4096);
        root.store(0, first.address() | PRESENT_USER);
        root.store(16, u64::MAX);
        first.store(4 * 8, u64::MAX);
        let mut tables = PageTables::new(root, test_memory::region(3 * 4096));
        assert_eq!((root.load::<u64>(16), first.load::<u64>(32)), (0, 0), "left from before");
        // SAFETY: only the tables are written, the window is not accessed.
        let mut map = |address, len| unsafe { tables.map_window(address, len) };
        assert!(map(0x80_0000_1000, 0x1000).is_some());
        assert!(map(0x80_0020_0000, 0x1000).is_some(), "the same GiB needs no further table");
        assert!(map(0x80_4000_0000, 0x1000).is_some());
        assert!(map(0x80_8000_0000, 0x1000).is_none(), "no spare page left");
        assert!(map(u64::MAX - 10, 0x1000).is_none());
        let pdpt = Region { address: root.load::<u64>(8) & !0xfff, len: 4096 };
        let directory = Region { address: pdpt.load::<u64>(0) & !0xfff, len: 4096 };
        assert_eq!(directory.load::<u64>(8), 0x80_0020_00e7);
    }
}
