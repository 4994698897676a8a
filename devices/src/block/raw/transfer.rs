//! Reads and writes.

use super::super::bounce::{BOUNCE_BYTES, Bounce};
use super::{RawQueue, Step};
use reactor::Target;
use std::rc::Rc;

/// Which way the next piece of a transfer goes.
enum Way {
    /// From or to guest memory, on the image's own descriptor.
    Straight,
    /// Through the page cache: direct I/O cannot address so small a piece of the file.
    Buffered,
    /// Through an aligned buffer: direct I/O cannot address the guest's memory.
    Bounced,
}

impl RawQueue {
    /// Submits what is left of the transfer of `slot`.
    pub(super) fn transfer(&mut self, slot: usize) {
        if self.aborting {
            return self.finish(slot, Err(libc::ECANCELED));
        }
        if self.table.slot(slot).bytes() == 0 {
            return self.transfer_over(slot);
        }
        self.slots[slot].step = Step::Transfer;
        match self.way(slot) {
            Way::Straight => self.submit_segments(slot, false),
            Way::Buffered => self.submit_segments(slot, true),
            Way::Bounced => self.submit_bounced(slot),
        }
    }

    fn transfer_over(&mut self, slot: usize) {
        if self.slots[slot].write { self.written(slot) } else { self.finish(slot, Ok(())) }
    }

    fn way(&mut self, slot: usize) -> Way {
        let Some(direct) = self.direct else { return Way::Straight };
        let state = &self.slots[slot];
        let list = self.table.slot(slot);
        let mask = direct.offset as u64 - 1;
        if (state.offset | list.bytes()) & mask != 0 && self.buffered.is_some() {
            Way::Buffered
        } else if state.bounced || !list.aligned_to(direct.memory, direct.offset) {
            Way::Bounced
        } else {
            Way::Straight
        }
    }

    pub(super) fn submit_segments(&mut self, slot: usize, buffered: bool) {
        let (iovecs, n) = self.table.slot(slot).as_iovecs();
        let handle = self.buffered.as_ref().filter(|_| buffered).unwrap_or(&self.main);
        self.submit_iovecs(handle.target(), slot, iovecs, n);
    }

    fn submit_iovecs(&self, target: Target<'_>, slot: usize, iov: *const libc::iovec, n: u32) {
        let state = &self.slots[slot];
        // The iovecs are the slot's list, or that of its bounce buffer. Tested by
        // `dropping_a_queue_in_flight_leaves_memory_alone`.
        // SAFETY: both, and the memory they name, are kept by the group (`SegmentTable::keep`,
        // `submit_bounced`), and neither is touched before the completion: the slot is not idle.
        unsafe {
            if state.write {
                self.group.writev(target, iov, n, state.offset, slot as u64);
            } else {
                self.group.readv(target, iov, n, state.offset, slot as u64);
            }
        }
    }

    /// Submits the next piece through a buffer, or queues for one.
    fn submit_bounced(&mut self, slot: usize) {
        self.slots[slot].bounced = true;
        if self.slots[slot].bounce.is_none() {
            let Some((bounce, new)) = self.pool.take() else {
                return self.waiting.push_back(slot);
            };
            if new {
                self.group.keep(Rc::clone(&bounce) as Rc<dyn std::any::Any>);
            }
            self.slots[slot].bounce = Some(bounce);
        }
        let list = self.table.slot(slot);
        let len = usize::try_from(list.bytes()).map_or(BOUNCE_BYTES, |n| n.min(BOUNCE_BYTES));
        let state = &self.slots[slot];
        let Some(bounce) = &state.bounce else { return };
        if state.write {
            // SAFETY: the buffer belongs to this slot, which has nothing in flight now.
            unsafe { bounce.with(len, |bytes| list.copy_to(bytes)) };
        }
        self.submit_iovecs(self.main.target(), slot, bounce.iovec(len), 1);
    }

    /// A buffer is free: the longest waiting slot takes it.
    pub(super) fn release(&mut self, bounce: Rc<Bounce>) {
        self.pool.give_back(bounce);
        if let Some(slot) = self.waiting.pop_front() {
            self.transfer(slot);
        }
    }

    /// `n` bytes of the transfer of `slot` have been moved.
    pub(super) fn transferred(&mut self, slot: usize, n: usize) {
        let left = self.table.slot(slot).bytes();
        let moved = self.whole_blocks(n as u64, left);
        let state = &mut self.slots[slot];
        let mut list = self.table.slot(slot);
        if moved == 0 {
            // The file ends before the disk does, or is full without saying so.
            let errno = if state.write { libc::ENOSPC } else { libc::EIO };
            return self.finish(slot, Err(errno));
        }
        if let (Some(bounce), false) = (&state.bounce, state.write) {
            // SAFETY: the read of this slot's buffer has just completed.
            unsafe { bounce.with(moved as usize, |bytes| list.copy_from(bytes)) };
        }
        list.advance(moved);
        state.offset += moved;
        state.retries = 0;
        self.transfer(slot);
    }
}
