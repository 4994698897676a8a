//! Scatter lists of requests: guest memory as `iovec`s, built without allocation.
//!
//! A [`SegmentTable`] holds a fixed number of segments for each request slot of a queue. Only this
//! module turns guest addresses into host addresses; every one of them has been checked to lie
//! inside guest RAM, which the table keeps mapped.

use std::any::Any;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// One `struct iovec`: host address and length. An array of integers, so that a large table
/// starts as untouched zero pages.
type RawSegment = [usize; 2];

const _: () = assert!(size_of::<RawSegment>() == size_of::<libc::iovec>());
const _: () = assert!(align_of::<RawSegment>() == align_of::<libc::iovec>());

/// Why a range of guest memory cannot be added to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Some of it is not RAM.
    #[error("guest memory {address:#x} to {address:#x}+{len:#x} is not RAM")]
    NotRam {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        len: u32,
    },
    /// The slot has no segment left; nothing was added.
    #[error("the request has more segments than the device allows")]
    Full,
}

/// The used part of a slot's segments.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    start: usize,
    end: usize,
    bytes: u64,
    /// Bytes dropped from the first segment.
    cut: usize,
}

/// What the kernel reads (the segments) and what they point to (guest RAM).
struct Storage {
    ram: Arc<GuestMemoryMmap<()>>,
    raw: NonNull<[RawSegment]>,
    /// Memory whose contents nobody looks at.
    scratch: NonNull<[u8]>,
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: both came from boxes in `SegmentTable::with_scratch` and are freed here only.
        unsafe {
            drop(Box::from_raw(self.raw.as_ptr()));
            drop(Box::from_raw(self.scratch.as_ptr()));
        }
    }
}

/// The segments of all slots of one queue.
pub struct SegmentTable {
    storage: Rc<Storage>,
    windows: Box<[Window]>,
    per_slot: usize,
}

impl SegmentTable {
    /// A table of `slots` lists with up to `per_slot` segments in `ram`. Takes memory as slots
    /// are used.
    pub fn new(ram: Arc<GuestMemoryMmap<()>>, slots: usize, per_slot: usize) -> Self {
        Self::with_scratch(ram, slots, per_slot, 0)
    }

    /// As [`new`](Self::new), with `scratch` bytes for [`Segments::push_scratch`].
    pub(crate) fn with_scratch(
        ram: Arc<GuestMemoryMmap<()>>,
        slots: usize,
        per_slot: usize,
        scratch: usize,
    ) -> Self {
        let raw = NonNull::from(Box::leak(vec![[0, 0]; slots * per_slot].into_boxed_slice()));
        let scratch = NonNull::from(Box::leak(vec![0; scratch].into_boxed_slice()));
        Self {
            storage: Rc::new(Storage { ram, raw, scratch }),
            windows: vec![Window::default(); slots].into_boxed_slice(),
            per_slot,
        }
    }

    /// What must outlive every operation on the lists: the segments and guest RAM.
    pub(crate) fn keep(&self) -> Rc<dyn Any> {
        Rc::clone(&self.storage) as Rc<dyn Any>
    }

    /// The list of `slot`.
    ///
    /// # Panics
    /// On a slot that the table does not have.
    pub fn slot(&mut self, slot: usize) -> Segments<'_> {
        let window = &mut self.windows[slot];
        let raw = self.storage.raw.cast::<RawSegment>();
        // The kernel merely reads them, and only while the slot's operation is in flight, when its
        // owner leaves the list alone.
        // SAFETY: there are `windows.len() * per_slot` segments from `raw` on, `slot` was checked
        // above, and they are reached through this table only, which is borrowed mutably here.
        let raw = unsafe {
            std::slice::from_raw_parts_mut(raw.as_ptr().add(slot * self.per_slot), self.per_slot)
        };
        Segments { ram: &self.storage.ram, scratch: self.storage.scratch, raw, window }
    }
}

/// The scatter list of one request.
pub struct Segments<'a> {
    ram: &'a GuestMemoryMmap<()>,
    scratch: NonNull<[u8]>,
    raw: &'a mut [RawSegment],
    window: &'a mut Window,
}

impl Segments<'_> {
    /// Empties the list.
    pub fn clear(&mut self) {
        *self.window = Window::default();
    }

    /// How many bytes the list covers.
    pub fn bytes(&self) -> u64 {
        self.window.bytes
    }

    /// How many segments the list has; what adjoins in host memory counts once.
    pub fn count(&self) -> usize {
        self.window.end - self.window.start
    }

    /// Appends `len` bytes of guest memory at `address`.
    pub fn push(&mut self, address: GuestAddress, len: u32) -> Result<(), SegmentError> {
        let before = *self.window;
        let result = self.push_all(address, len);
        if result.is_err() {
            *self.window = before;
        }
        result
    }

    fn push_all(&mut self, address: GuestAddress, len: u32) -> Result<(), SegmentError> {
        let not_ram = SegmentError::NotRam { address: address.0, len };
        let (mut at, mut left) = (address.0, u64::from(len));
        while left > 0 {
            let region = self.ram.find_region(GuestAddress(at)).ok_or(not_ram)?;
            let offset = region.to_region_addr(GuestAddress(at)).ok_or(not_ram)?;
            let here = left.min(region.len() - offset.0);
            let host = region.get_host_address(offset).map_err(|_| not_ram)?;
            self.push_host(host.expose_provenance(), here as usize)?;
            left -= here;
            at = if left == 0 { at } else { at.checked_add(here).ok_or(not_ram)? };
        }
        Ok(())
    }

    fn push_host(&mut self, base: usize, len: usize) -> Result<(), SegmentError> {
        let Window { start, end, .. } = *self.window;
        if end == start {
            self.window.cut = 0;
        }
        if end > start
            && let Some([last_base, last_len]) = self.raw.get_mut(end - 1)
            && *last_base + *last_len == base
        {
            *last_len += len;
        } else {
            if end == self.raw.len() && start > 0 {
                self.raw.copy_within(start..end, 0);
                *self.window = Window { start: 0, end: end - start, ..*self.window };
            }
            let end = self.window.end;
            *self.raw.get_mut(end).ok_or(SegmentError::Full)? = [base, len];
            self.window.end += 1;
        }
        self.window.bytes += len as u64;
        Ok(())
    }

    /// Fills what the list covers with zeroes.
    pub(super) fn zero(&mut self) {
        for [base, len] in self.live() {
            let into = std::ptr::with_exposed_provenance_mut::<u8>(*base);
            // SAFETY: as in `copy_from`.
            unsafe { std::ptr::write_bytes(into, 0, *len) };
        }
    }

    /// Whether all that the list covers is zero. The guest may change it meanwhile.
    pub(super) fn are_zero(&self) -> bool {
        const CHUNK: usize = 4096;
        let mut chunk = [0; CHUNK];
        let mut at = 0;
        while at < self.bytes() {
            let n = self.read_at(at, &mut chunk);
            if n == 0 || chunk[..n].iter().any(|byte| *byte != 0) {
                return false;
            }
            at += n as u64;
        }
        true
    }

    /// Makes the list that of `other`, which is in the same guest memory; false where it does not
    /// fit.
    pub(super) fn adopt(&mut self, other: &Segments<'_>) -> bool {
        self.clear();
        std::ptr::eq(self.ram, other.ram)
            && other.live().iter().all(|[base, len]| self.push_host(*base, *len).is_ok())
    }

    /// Drops the first `bytes` bytes (all, where there are fewer).
    pub fn advance(&mut self, bytes: u64) {
        let mut left = bytes.min(self.window.bytes);
        self.window.bytes -= left;
        while left > 0 {
            let Window { start, cut, .. } = *self.window;
            let [base, len] = &mut self.raw[start];
            let here = left.min(*len as u64) as usize;
            left -= here as u64;
            if here < *len {
                (*base, *len) = (*base + here, *len - here);
                self.window.cut = cut + here;
            } else {
                // Left as it was, for `rewind`.
                (*base, *len) = (*base - cut, *len + cut);
                self.window.cut = 0;
                self.window.start += 1;
            }
        }
    }

    /// Takes back that the last `bytes` bytes were dropped by [`advance`](Self::advance); nothing
    /// was appended since.
    pub(super) fn rewind(&mut self, bytes: u64) {
        self.window.bytes += bytes;
        let mut left = bytes;
        while left > 0 {
            if self.window.cut == 0 {
                self.window.start -= 1;
                let [base, len] = &mut self.raw[self.window.start];
                // Nothing of it is there yet.
                self.window.cut = *len;
                (*base, *len) = (*base + *len, 0);
            }
            let [base, len] = &mut self.raw[self.window.start];
            let here = left.min(self.window.cut as u64) as usize;
            (*base, *len) = (*base - here, *len + here);
            self.window.cut -= here;
            left -= here as u64;
        }
    }

    /// Keeps the first `bytes` bytes only.
    pub fn truncate(&mut self, bytes: u64) {
        let mut over = self.window.bytes.saturating_sub(bytes);
        self.window.bytes -= over;
        while over > 0 {
            let [_, len] = &mut self.raw[self.window.end - 1];
            let here = over.min(*len as u64);
            *len -= here as usize;
            over -= here;
            if *len == 0 {
                self.window.end -= 1;
            }
        }
    }

    /// Whether every segment starts at a multiple of `address` and is a multiple of `len` long
    /// (powers of two).
    pub(super) fn aligned_to(&self, address: usize, len: usize) -> bool {
        self.live().iter().all(|[at, n]| at & (address - 1) == 0 && n & (len - 1) == 0)
    }

    /// Appends bytes of the program itself; false when the slot is full.
    pub(super) fn push_static(&mut self, bytes: &'static [u8]) -> bool {
        self.push_host(bytes.as_ptr().expose_provenance(), bytes.len()).is_ok()
    }

    /// Appends the table's scratch memory: what does not fit into the segments before lands there
    /// and is lost. False when the slot is full.
    pub(crate) fn push_scratch(&mut self) -> bool {
        let start = self.scratch.as_ptr().cast::<u8>();
        self.push_host(start.expose_provenance(), self.scratch.len()).is_ok()
    }

    /// The list as the kernel takes it: the first `iovec` and their number. Valid as long as the
    /// table is, and until the list is changed.
    pub(crate) fn as_iovecs(&self) -> (*const libc::iovec, u32) {
        (self.live().as_ptr().cast(), self.count() as u32)
    }

    /// Appends `bytes` bytes of `other` from its byte `at` on: the same memory, not a copy. Fails, with
    /// nothing added, when the slot is full.
    ///
    /// # Panics
    /// When `other` is of other RAM.
    pub fn extend(
        &mut self,
        other: &Segments<'_>,
        at: u64,
        bytes: u64,
    ) -> Result<(), SegmentError> {
        // What keeps this list's memory mapped must keep the other's.
        assert!(std::ptr::eq(self.ram, other.ram), "lists of different RAM");
        let before = *self.window;
        for (base, len) in other.pieces(at, bytes) {
            if let Err(full) = self.push_host(base, len) {
                *self.window = before;
                return Err(full);
            }
        }
        Ok(())
    }

    /// Host addresses and lengths of up to `bytes` bytes from byte `at` on.
    fn pieces(&self, at: u64, bytes: u64) -> impl Iterator<Item = (usize, usize)> {
        let (mut skip, mut left) = (at, bytes);
        self.live().iter().filter_map(move |[base, len]| {
            let before = skip.min(*len as u64);
            skip -= before;
            let here = left.min(*len as u64 - before);
            left -= here;
            (here > 0).then_some((*base + before as usize, here as usize))
        })
    }

    /// Copies the start of the list into `into`; returns how many bytes there were.
    pub fn copy_to(&self, into: &mut [u8]) -> usize {
        self.read_at(0, into)
    }

    /// Copies the list from byte `at` on into `into`; returns how many bytes there were.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        for (base, here) in self.pieces(at, into.len() as u64) {
            let from = std::ptr::with_exposed_provenance::<u8>(base);
            // SAFETY: `push_all` found `base .. base + here` inside a region of `self.ram`, which
            // stays mapped while the table lives (tested by `ranges_outside_of_ram_are_refused`).
            // The guest may change the bytes meanwhile: they are plain bytes and are copied once.
            unsafe { std::ptr::copy(from, into[done..done + here].as_mut_ptr(), here) };
            done += here;
        }
        done
    }

    /// Copies `from` to the start of the list; returns how many bytes found room.
    pub fn copy_from(&mut self, from: &[u8]) -> usize {
        self.write_at(0, from)
    }

    /// Copies `from` to the list from byte `at` on; returns how many bytes found room.
    pub fn write_at(&mut self, at: u64, from: &[u8]) -> usize {
        let mut done = 0;
        for (base, here) in self.pieces(at, from.len() as u64) {
            let into = std::ptr::with_exposed_provenance_mut::<u8>(base);
            // SAFETY: as in `read_at`; guest memory is writable and no Rust reference to it exists.
            unsafe { std::ptr::copy(from[done..done + here].as_ptr(), into, here) };
            done += here;
        }
        done
    }

    fn live(&self) -> &[RawSegment] {
        &self.raw[self.window.start..self.window.end]
    }
}

#[cfg(test)]
mod tests {
    use super::{SegmentError, SegmentTable};
    use std::sync::Arc;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    const PAGE: u64 = 0x1000;

    fn table(per_slot: usize) -> (Arc<GuestMemoryMmap<()>>, SegmentTable) {
        // Two regions with a hole, and a third that adjoins the second.
        let ram = Arc::new(
            GuestMemoryMmap::from_ranges(&[
                (GuestAddress(0), 0x4000),
                (GuestAddress(0x8000), 0x4000),
                (GuestAddress(0xc000), 0x4000),
            ])
            .unwrap(),
        );
        (Arc::clone(&ram), SegmentTable::new(ram, 2, per_slot))
    }

    #[test]
    fn ranges_outside_of_ram_are_refused() {
        let (_, mut table) = table(4);
        let mut list = table.slot(1);
        for (address, len) in [
            (0x3fff, 2),
            (0x4000, 1),
            (0x7000, 0x2000),
            (0xf000, 0x1001),
            (u64::MAX, 1),
            (u64::MAX - 1, 16),
            (0, u32::MAX),
        ] {
            let error = list.push(GuestAddress(address), len).unwrap_err();
            assert_eq!(error, SegmentError::NotRam { address, len });
        }
        assert_eq!((list.count(), list.bytes()), (0, 0));
        list.push(GuestAddress(0x3fff), 1).unwrap();
        list.push(GuestAddress(0xffff), 1).unwrap();
        assert_eq!((list.count(), list.bytes()), (2, 2));
    }

    #[test]
    fn data_goes_through_regions_in_order() {
        let (ram, mut table) = table(8);
        let mut list = table.slot(0);
        // Across the border of two adjoining regions, then backwards.
        list.push(GuestAddress(0xc000 - 4), 8).unwrap();
        list.push(GuestAddress(PAGE), 4).unwrap();
        assert_eq!(list.copy_from(b"abcdefghijklmnop"), 12);
        let mut found = [0; 8];
        ram.read_slice(&mut found, GuestAddress(0xc000 - 4)).unwrap();
        assert_eq!(&found, b"abcdefgh");
        let mut all = [0; 16];
        assert_eq!(list.copy_to(&mut all), 12);
        assert_eq!(&all[..12], b"abcdefghijkl");
    }

    #[test]
    fn advance_and_truncate_cut_at_any_byte() {
        let (ram, mut table) = table(8);
        ram.write_slice(b"0123456789", GuestAddress(PAGE)).unwrap();
        ram.write_slice(b"abcdefghij", GuestAddress(2 * PAGE)).unwrap();
        for (cut, keep) in (0..=20).flat_map(|cut| (0..=20).map(move |keep| (cut, keep))) {
            let mut list = table.slot(0);
            list.clear();
            list.push(GuestAddress(PAGE), 10).unwrap();
            list.push(GuestAddress(2 * PAGE), 10).unwrap();
            list.advance(cut);
            list.truncate(keep);
            let mut bytes = [0; 20];
            let n = list.copy_to(&mut bytes);
            let from = cut as usize;
            let expected = &b"0123456789abcdefghij"[from..20.min(from + keep as usize)];
            assert_eq!(&bytes[..n], expected);
            assert_eq!(list.bytes(), expected.len() as u64);
        }
    }

    #[test]
    fn what_was_dropped_comes_back() {
        let (ram, mut table) = table(8);
        ram.write_slice(b"0123456789", GuestAddress(PAGE)).unwrap();
        ram.write_slice(b"abcdefghij", GuestAddress(2 * PAGE)).unwrap();
        for (header, first) in (0..=12).flat_map(|header| (0..=20).map(move |n| (header, n))) {
            let mut list = table.slot(0);
            list.clear();
            list.push(GuestAddress(PAGE), 10).unwrap();
            list.push(GuestAddress(2 * PAGE), 10).unwrap();
            // What was dropped before stays so.
            list.advance(header);
            let whole = list.bytes();
            list.advance(first);
            list.advance(1);
            let dropped = whole - list.bytes();
            list.rewind(dropped);
            let mut bytes = [0; 20];
            let n = list.copy_to(&mut bytes);
            assert_eq!(&bytes[..n], &b"0123456789abcdefghij"[header as usize..]);
            assert_eq!(list.bytes(), whole);
        }
    }

    #[test]
    fn part_of_a_list_goes_into_another_one_without_a_copy() {
        let (ram, mut table) = table(3);
        let mut other = SegmentTable::new(Arc::clone(&ram), 1, 8);
        ram.write_slice(b"0123456789", GuestAddress(PAGE)).unwrap();
        ram.write_slice(b"abcdefghij", GuestAddress(2 * PAGE)).unwrap();
        let mut whole = other.slot(0);
        whole.push(GuestAddress(PAGE), 10).unwrap();
        whole.push(GuestAddress(2 * PAGE), 10).unwrap();
        for (at, n) in (0..=21).flat_map(|at| (0..=21).map(move |n| (at, n))) {
            let mut list = table.slot(0);
            list.clear();
            list.extend(&whole, at, n).unwrap();
            let mut bytes = [0; 20];
            let found = list.copy_to(&mut bytes);
            let from = (at as usize).min(20);
            let expected = &b"0123456789abcdefghij"[from..20.min(from + n as usize)];
            assert_eq!(&bytes[..found], expected);
            assert_eq!(list.bytes(), expected.len() as u64);
        }
        let mut list = table.slot(0);
        list.clear();
        list.extend(&whole, 8, 4).unwrap();
        assert_eq!(list.extend(&whole, 8, 4), Err(SegmentError::Full));
        assert_eq!((list.count(), list.bytes()), (2, 4), "nothing added");
        list.write_at(1, b"9A");
        let mut found = [0; 20];
        assert_eq!(whole.read_at(7, &mut found), 13);
        assert_eq!(&found[..13], b"789Abcdefghij");
    }

    #[test]
    fn neighbours_merge_and_a_full_slot_is_told() {
        let (_, mut table) = table(2);
        let mut list = table.slot(0);
        for page in 0..3 {
            list.push(GuestAddress(page * PAGE), PAGE as u32).unwrap();
        }
        assert_eq!(list.count(), 1);
        list.push(GuestAddress(0), 8).unwrap();
        assert_eq!(list.push(GuestAddress(0), 8), Err(SegmentError::Full));
        assert_eq!(list.bytes(), 3 * PAGE + 8);
        assert!(list.aligned_to(4096, 8));
        assert!(!list.aligned_to(4096, 16));
    }
}
