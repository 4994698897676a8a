//! Guest-physical memory as a processor without translation sees it.

use crate::address_space::AddressSpace;
use crate::memory::Ram;
use std::sync::{Arc, Weak};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// RAM, and what the memory space leads to elsewhere. Clones share both.
///
/// Any thread; an access takes as long as the device that answers it. Does not keep the space alive:
/// the devices in it may hold this.
#[derive(Clone)]
pub struct PhysicalMemory {
    ram: Arc<Ram>,
    mmio: Weak<AddressSpace>,
}

impl PhysicalMemory {
    /// `ram`, and `mmio` around it.
    pub fn new(ram: Arc<Ram>, mmio: &Arc<AddressSpace>) -> Self {
        Self { ram, mmio: Arc::downgrade(mmio) }
    }

    /// Fills `data` from `address`. Outside RAM an access of 1, 2, 4 or 8 bytes is one access of that
    /// width; what nobody claims reads as the space says.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        let mut at = Some(address);
        let mut rest = data;
        while !rest.is_empty() {
            let (len, in_ram) = self.piece(at, rest.len());
            let (head, tail) = rest.split_at_mut(len);
            match (at, in_ram, self.mmio.upgrade()) {
                (Some(at), true, _) => {
                    if let Err(error) = self.ram.read_slice(head, GuestAddress(at)) {
                        tracing::error!(%error, "guest RAM cannot be read");
                    }
                }
                (Some(at), false, Some(mmio)) => mmio.read(at, head),
                _ => head.fill(0),
            }
            at = at.and_then(|at| at.checked_add(len as u64));
            rest = tail;
        }
    }

    /// Stores `data` at `address`, in pieces as [`PhysicalMemory::read`] does.
    pub fn write(&self, address: u64, data: &[u8]) {
        let mut at = Some(address);
        let mut rest = data;
        while !rest.is_empty() {
            let (len, in_ram) = self.piece(at, rest.len());
            let (head, tail) = rest.split_at(len);
            match (at, in_ram, self.mmio.upgrade()) {
                (Some(at), true, _) => {
                    if let Err(error) = self.ram.write_slice(head, GuestAddress(at)) {
                        tracing::error!(%error, "guest RAM cannot be written");
                    }
                }
                (Some(at), false, Some(mmio)) => mmio.write(at, head),
                _ => {}
            }
            at = at.and_then(|at| at.checked_add(len as u64));
            rest = tail;
        }
    }

    /// Whether all of `len` bytes at `address` is RAM.
    pub fn is_ram(&self, address: u64, len: usize) -> bool {
        self.piece(Some(address), len) == (len, true)
    }

    /// How much of an access of `len` bytes at `at` (`None`: past the last address) is of one kind, and
    /// whether that is RAM.
    fn piece(&self, at: Option<u64>, len: usize) -> (usize, bool) {
        let Some(at) = at else { return (len, false) };
        let mut room = u64::MAX;
        for region in self.ram.iter() {
            let start = region.start_addr().0;
            let last = region.last_addr().0;
            if (start..=last).contains(&at) {
                // One less than what is left, which may be too many to count.
                return (
                    len.min(usize::try_from(last - at).unwrap_or(len).saturating_add(1)),
                    true,
                );
            }
            if start > at {
                room = room.min(start - at);
            }
        }
        (len.min(usize::try_from(room).unwrap_or(len)), false)
    }
}
