//! Port and memory address spaces: which device answers an access.
//!
//! Writers (realize, BAR moves, unrealize) take a mutex, settle all regions into an immutable
//! sorted table and publish it through RCU. Readers (vCPU threads, the qtest accelerator) look
//! an address up in whichever table is current, with no lock; a device taken out of the table
//! lives until every reader that may still see it has left its read-side section.

mod flat;
#[cfg(test)]
mod tests;

use crate::bus::{BusDevice, Space};
use flat::{FlatView, Region};
use rcu::RcuCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A region in an [`AddressSpace`]; meaningless in any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(u64);

/// Why a region cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No address would lead to it.
    #[error("a region of {0:?} space must have at least one byte")]
    Empty(Space),
    /// It would reach past the last address.
    #[error("{len:#x} bytes at {base:#x} do not fit {space:?} space")]
    OutOfSpace {
        /// The space.
        space: Space,
        /// First address asked for.
        base: u64,
        /// Bytes asked for.
        len: u64,
    },
    /// It has been unmapped before, or was never mapped here.
    #[error("no such region in {0:?} space")]
    NoRegion(Space),
}

/// One address space of a machine.
pub struct AddressSpace {
    space: Space,
    unclaimed: u8,
    view: RcuCell<FlatView>,
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Writer {
    regions: Vec<Region>,
    next_id: u64,
}

impl AddressSpace {
    /// An empty space where unclaimed reads answer all ones, as a PC's bus does.
    pub fn new(space: Space) -> Arc<Self> {
        Self::with_unclaimed(space, 0xff)
    }

    /// An empty space where each byte of an unclaimed read is `unclaimed`.
    pub fn with_unclaimed(space: Space, unclaimed: u8) -> Arc<Self> {
        Arc::new(Self {
            space,
            unclaimed,
            view: RcuCell::new(FlatView::new(&[])),
            writer: Mutex::default(),
        })
    }

    /// Which of the two spaces this is.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Lets `device` answer `len` bytes from `base`, and publishes the new table.
    ///
    /// Where regions overlap the higher priority answers; of equals, the one mapped later. Any
    /// thread may call this, a vCPU thread inside an access included; it does not block on
    /// readers.
    pub fn map(
        &self,
        base: u64,
        len: u64,
        priority: i32,
        device: Arc<dyn BusDevice>,
    ) -> Result<RegionId, MapError> {
        self.batch(|batch| batch.map(base, len, priority, device))
    }

    /// Takes a region out and publishes the new table. Readers that are already inside the
    /// device finish there; the space's reference to it is dropped after a grace period.
    ///
    /// An unknown region is ignored: it is not there, which is what was asked for.
    pub fn unmap(&self, region: RegionId) {
        self.batch(|batch| batch.unmap(region));
    }

    /// Moves a region to `base`, with its length, priority and age, in one publication: no
    /// reader sees it in both places or in none.
    pub fn remap(&self, region: RegionId, base: u64) -> Result<(), MapError> {
        self.batch(|batch| batch.remap(region, base))
    }

    /// Makes several changes and publishes them as one.
    ///
    /// `change` runs under the writer's mutex: it may not call this space's writers itself.
    pub fn batch<T>(&self, change: impl FnOnce(&mut Batch<'_>) -> T) -> T {
        let mut batch = Batch { space: self.space, writer: self.lock(), changed: false };
        let result = change(&mut batch);
        if batch.changed {
            self.view.publish(FlatView::new(&batch.writer.regions));
        }
        result
    }

    /// Fills `data` from `address`.
    ///
    /// An access across the end of a region is split there; an odd length is split into the
    /// widths that a [`BusDevice`] takes. What nobody claims reads as the unclaimed byte.
    /// Never blocks but for what the device does.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        let guard = rcu::read();
        let view = self.view.read(&guard);
        let mut at = Some(address);
        let mut rest = data;
        while let Some(piece) = self.piece(view, at, rest.len()) {
            let (head, tail) = rest.split_at_mut(piece.len.min(rest.len()));
            match piece.target {
                Some((device, offset)) => device.read(offset, head),
                None => head.fill(self.unclaimed),
            }
            at = at.and_then(|a| a.checked_add(head.len() as u64));
            rest = tail;
        }
    }

    /// Hands `data` to what answers at `address`, split as [`AddressSpace::read`] does. What
    /// nobody claims is lost.
    pub fn write(&self, address: u64, data: &[u8]) {
        let guard = rcu::read();
        let view = self.view.read(&guard);
        let mut at = Some(address);
        let mut rest = data;
        while let Some(piece) = self.piece(view, at, rest.len()) {
            let (head, tail) = rest.split_at(piece.len.min(rest.len()));
            if let Some((device, offset)) = piece.target {
                device.write(offset, head);
            }
            at = at.and_then(|a| a.checked_add(head.len() as u64));
            rest = tail;
        }
    }

    /// The first part of an access of `len` bytes at `at`; `None` when there is nothing left. `at`
    /// is `None` past the last address.
    fn piece<'v>(&self, view: &'v FlatView, at: Option<u64>, len: usize) -> Option<Piece<'v>> {
        if len == 0 {
            return None;
        }
        let Some(at) = at.filter(|at| *at <= last_address(self.space)) else {
            return Some(Piece { len, target: None });
        };
        if let Some(segment) = view.find(at) {
            let room = usize::try_from(segment.last - at).unwrap_or(usize::MAX).saturating_add(1);
            let target = Some((&*segment.device, at - segment.base));
            return Some(Piece { len: widest(len.min(room)), target });
        }
        let room = view.next_start(at).map_or(len, |next| (next - at).min(len as u64) as usize);
        Some(Piece { len: room, target: None })
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // The list is whole between any two statements that could panic.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of an access that one device answers, at an offset; or nobody.
struct Piece<'v> {
    len: usize,
    target: Option<(&'v dyn BusDevice, u64)>,
}

/// Changes to an [`AddressSpace`] that are published together.
pub struct Batch<'a> {
    space: Space,
    writer: MutexGuard<'a, Writer>,
    changed: bool,
}

impl Batch<'_> {
    /// As [`AddressSpace::map`].
    pub fn map(
        &mut self,
        base: u64,
        len: u64,
        priority: i32,
        device: Arc<dyn BusDevice>,
    ) -> Result<RegionId, MapError> {
        let last = last_of(self.space, base, len)?;
        let id = self.writer.next_id;
        self.writer.next_id += 1;
        self.writer.regions.push(Region { id, start: base, last, priority, device });
        self.changed = true;
        Ok(RegionId(id))
    }

    /// As [`AddressSpace::unmap`].
    pub fn unmap(&mut self, region: RegionId) {
        let before = self.writer.regions.len();
        self.writer.regions.retain(|r| r.id != region.0);
        self.changed |= self.writer.regions.len() != before;
    }

    /// As [`AddressSpace::remap`].
    pub fn remap(&mut self, region: RegionId, base: u64) -> Result<(), MapError> {
        let space = self.space;
        let region = self
            .writer
            .regions
            .iter_mut()
            .find(|r| r.id == region.0)
            .ok_or(MapError::NoRegion(space))?;
        let last = base
            .checked_add(region.last - region.start)
            .filter(|last| *last <= last_address(space))
            .ok_or(MapError::OutOfSpace {
                space,
                base,
                len: (region.last - region.start).saturating_add(1),
            })?;
        region.start = base;
        region.last = last;
        self.changed = true;
        Ok(())
    }
}

const fn last_address(space: Space) -> u64 {
    match space {
        Space::Pio => 0xffff,
        Space::Mmio => u64::MAX,
    }
}

fn last_of(space: Space, base: u64, len: u64) -> Result<u64, MapError> {
    let extra = len.checked_sub(1).ok_or(MapError::Empty(space))?;
    base.checked_add(extra)
        .filter(|last| *last <= last_address(space))
        .ok_or(MapError::OutOfSpace { space, base, len })
}

/// The widest access of 8, 4, 2 or 1 bytes that `len` (at least 1) bytes hold.
fn widest(len: usize) -> usize {
    match len {
        8.. => 8,
        4..8 => 4,
        2..4 => 2,
        _ => 1,
    }
}
