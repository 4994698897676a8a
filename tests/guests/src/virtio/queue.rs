//! A split virtqueue, the driver's side (virtio 1.3, section 2.7).

use core::sync::atomic::{Ordering, fence};

use crate::mem::Region;

/// Descriptor flags.
pub(crate) mod flag {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_LEN: usize = 16;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// Offsets of the parts of a queue in one piece of memory, aligned as they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Offset of the available ring; the descriptors are at zero.
    pub driver: usize,
    /// Offset of the used ring.
    pub device: usize,
    /// Total length.
    pub len: usize,
}

impl Layout {
    /// The layout of a queue of `size` entries.
    pub fn new(size: u16) -> Self {
        let size = usize::from(size);
        let driver = DESCRIPTOR_LEN * size;
        let device = (driver + 6 + 2 * size).next_multiple_of(64);
        Self { driver, device, len: device + 6 + 8 * size }
    }
}

/// Whether moving an index from `old` to `new` passes `event` (section 2.7.10, `vring_need_event`).
pub(crate) fn passes_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// An entry of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// Index of the chain's first descriptor.
    pub head: u32,
    /// Bytes the device has written.
    pub len: u32,
}

/// The driver's side of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    size: u16,
    descriptors: Region,
    driver: Region,
    device: Region,
    event_idx: bool,
    /// Available index with the chains added but not published.
    next: u16,
    /// Available index the device can see.
    published: u16,
    /// Used index up to which entries were taken.
    taken: u16,
}

impl Queue {
    /// An empty queue of `size` entries (a power of two) in `memory`, which is cleared.
    pub fn new(memory: Region, size: u16, event_idx: bool) -> Self {
        let layout = Layout::new(size);
        let entries = usize::from(size);
        memory.clear();
        let queue = Self {
            size,
            descriptors: memory.slice(0, DESCRIPTOR_LEN * entries),
            driver: memory.slice(layout.driver, 6 + 2 * entries),
            device: memory.slice(layout.device, 6 + 8 * entries),
            event_idx,
            next: 0,
            published: 0,
            taken: 0,
        };
        queue.suppress();
        queue
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The descriptor table.
    pub fn descriptors(&self) -> Region {
        self.descriptors
    }

    /// The available ring.
    pub fn driver(&self) -> Region {
        self.driver
    }

    /// The used ring.
    pub fn device(&self) -> Region {
        self.device
    }

    /// Adds the chain that starts at descriptor `head`; `publish` shows it to the device.
    pub fn add(&mut self, head: u16) {
        let slot = usize::from(self.next % self.size);
        self.driver.store(4 + 2 * slot, head);
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the device what was added. Whether it wants to be notified.
    pub fn publish(&mut self) -> bool {
        if self.next == self.published {
            return false;
        }
        // The chains and ring entries before the index that makes them valid.
        fence(Ordering::Release);
        self.driver.store(2, self.next);
        let old = core::mem::replace(&mut self.published, self.next);
        // The index before looking at what the device wants: the device stores that, then looks
        // at the index again.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.device.load(4 + 8 * usize::from(self.size));
            passes_event(event, self.next, old)
        } else {
            self.device.load::<u16>(0) & NO_NOTIFY == 0
        }
    }

    /// Advances the available index by `count` entries that were never filled in, for tests of
    /// what the device makes of it.
    pub fn skip(&mut self, count: u16) {
        self.next = self.next.wrapping_add(count);
    }

    /// Takes the next entry of the used ring.
    pub fn take(&mut self) -> Option<Used> {
        if !self.pending() {
            return None;
        }
        // The index before the entry and the data it stands for.
        fence(Ordering::Acquire);
        let entry = 4 + 8 * usize::from(self.taken % self.size);
        self.taken = self.taken.wrapping_add(1);
        Some(Used { head: self.device.load(entry), len: self.device.load(entry + 4) })
    }

    /// Whether the used ring has entries that were not taken.
    pub fn pending(&self) -> bool {
        self.ready() != 0
    }

    /// How many entries of the used ring were not taken.
    pub fn ready(&self) -> u16 {
        self.device.load::<u16>(2).wrapping_sub(self.taken)
    }

    /// Asks the device not to interrupt. With EVENT_IDX this has to be repeated before 65,535
    /// further entries are used.
    pub fn suppress(&self) {
        if self.event_idx {
            self.set_used_event(self.taken.wrapping_sub(1));
        } else {
            self.driver.store(0, NO_INTERRUPT);
        }
    }

    /// Asks for an interrupt when `ahead` entries more than those taken have been used (without
    /// EVENT_IDX, at the next one). Whether that many already have, so that none may come.
    pub fn arm(&self, ahead: u16) -> bool {
        if self.event_idx {
            self.set_used_event(self.taken.wrapping_add(ahead.saturating_sub(1)));
        } else {
            self.driver.store(0, 0u16);
        }
        // The request before the look at the index: the device stores that, then looks at this.
        fence(Ordering::SeqCst);
        self.ready() >= ahead.max(1)
    }

    fn set_used_event(&self, index: u16) {
        self.driver.store(4 + 2 * usize::from(self.size), index);
    }
}

/// Writes a chain of descriptors, one after the other from a first index in a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    table: Region,
    first: u16,
    len: u16,
}

impl Chain {
    /// A chain from descriptor `first` of `table` on.
    pub fn new(table: Region, first: u16) -> Self {
        Self { table, first, len: 0 }
    }

    /// Appends a buffer, which the device writes when `write` is set.
    pub fn push(&mut self, address: u64, len: u32, write: bool) {
        let flags = if write { flag::WRITE } else { 0 };
        self.push_raw(address, len, flags);
    }

    /// Appends a descriptor with flags; NEXT is set on the one before.
    pub fn push_raw(&mut self, address: u64, len: u32, flags: u16) {
        let index = self.first + self.len;
        if self.len > 0 {
            let before = descriptor(self.table, index - 1);
            before.store(12, before.load::<u16>(12) | flag::NEXT);
            before.store(14, index);
        }
        write_descriptor(self.table, index, address, len, flags, 0);
        self.len += 1;
    }

    /// How many descriptors were appended.
    pub fn len(&self) -> u16 {
        self.len
    }
}

fn descriptor(table: Region, index: u16) -> Region {
    table.slice(DESCRIPTOR_LEN * usize::from(index), DESCRIPTOR_LEN)
}

/// Writes one descriptor.
pub(crate) fn write_descriptor(
    table: Region,
    index: u16,
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
) {
    let entry = descriptor(table, index);
    entry.store(0, address);
    entry.store(8, len);
    entry.store(12, flags);
    entry.store(14, next);
}

#[cfg(test)]
mod tests;
