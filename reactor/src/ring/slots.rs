//! The ring's tables of registered files and registered buffers.

use super::{Ring, Wait};
use std::io;
use std::os::fd::RawFd;

/// How many files or buffers a context can register; a sparse table costs the kernel 8 bytes a slot.
const SLOTS: u32 = 1024;

/// A place in one of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    File(u32),
    Buffer(u32),
}

/// Which slots of a table are taken. The table is made at the first registration.
#[derive(Debug, Default)]
pub(super) struct Slots {
    made: bool,
    free: Vec<u32>,
}

impl Slots {
    fn made(&mut self) {
        *self = Self { made: true, free: (0..SLOTS).rev().collect() };
    }
}

/// What a registered buffer is before and after.
const NO_BUFFER: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

impl Ring {
    /// Puts `fd` into a free slot.
    pub(crate) fn register_file(&mut self, fd: RawFd) -> io::Result<u32> {
        if !self.files.made {
            self.uring.submitter().register_files_sparse(SLOTS)?;
            self.files.made();
        }
        let full = || io::Error::other("the table of registered files is full");
        let slot = self.files.free.pop().ok_or_else(full)?;
        if let Err(error) = self.uring.submitter().register_files_update(slot, &[fd]) {
            self.files.free.push(slot);
            return Err(error);
        }
        Ok(slot)
    }

    /// Puts a range of memory into a free slot; its pages are pinned (and count as locked memory).
    ///
    /// # Safety
    /// The range must stay mapped until the slot has been released.
    pub(crate) unsafe fn register_buffer(&mut self, range: libc::iovec) -> io::Result<u32> {
        if !self.buffers.made {
            self.uring.submitter().register_buffers_sparse(SLOTS)?;
            self.buffers.made();
        }
        let full = || io::Error::other("the table of registered buffers is full");
        let slot = self.buffers.free.pop().ok_or_else(full)?;
        // SAFETY: the caller keeps the range.
        let result =
            unsafe { self.uring.submitter().register_buffers_update(slot, &[range], None) };
        if let Err(error) = result {
            self.buffers.free.push(slot);
            return Err(error);
        }
        Ok(slot)
    }

    /// Empties a slot. Operations that name it keep what was in it until they end, also those that are
    /// queued and not submitted yet: they are submitted first.
    pub(crate) fn release(&mut self, slot: Slot) {
        // Bounded: the kernel may be out of memory for a while, not for ever.
        for _ in 0..64 {
            if !self.has_unsubmitted() || self.enter(Wait::No).is_err() {
                break;
            }
        }
        if self.has_unsubmitted() {
            tracing::warn!(?slot, "not released: there are operations that cannot be submitted");
            return;
        }
        let submitter = self.uring.submitter();
        let result = match slot {
            Slot::File(n) => submitter.register_files_update(n, &[-1]).map(drop),
            // SAFETY: nothing is registered but emptiness.
            Slot::Buffer(n) => unsafe { submitter.register_buffers_update(n, &[NO_BUFFER], None) },
        };
        match (result, slot) {
            (Ok(()), Slot::File(n)) => self.files.free.push(n),
            (Ok(()), Slot::Buffer(n)) => self.buffers.free.push(n),
            // The slot is given up rather than used twice.
            (Err(error), _) => {
                tracing::warn!(?slot, %error, "a registration could not be released");
            }
        }
    }

    /// Registers memory as a provided buffer ring: `entries` (a power of two) of 16 bytes from `base`.
    ///
    /// # Safety
    /// The memory must stay mapped until [`Ring::unregister_buf_ring`] or the end of the ring.
    pub(crate) unsafe fn register_buf_ring(&mut self, base: u64, entries: u16) -> io::Result<u16> {
        let group = if let Some(group) = self.groups_free.pop() {
            group
        } else {
            let full = || io::Error::other("too many provided buffer rings");
            let next = self.groups_made.checked_add(1).ok_or_else(full)?;
            std::mem::replace(&mut self.groups_made, next)
        };
        // SAFETY: the caller keeps the memory.
        let result =
            unsafe { self.uring.submitter().register_buf_ring_with_flags(base, entries, group, 0) };
        if let Err(error) = result {
            self.groups_free.push(group);
            return Err(error);
        }
        Ok(group)
    }

    /// Undoes [`Ring::register_buf_ring`]. No operation in flight uses the group.
    pub(crate) fn unregister_buf_ring(&mut self, group: u16) -> io::Result<()> {
        self.uring.submitter().unregister_buf_ring(group)?;
        self.groups_free.push(group);
        Ok(())
    }
}
