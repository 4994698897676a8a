//! The ring's table of registered files.

use super::Ring;
use std::io;
use std::os::fd::RawFd;

/// How many files a context can register; a sparse table costs the kernel 8 bytes a slot.
const SLOTS: u32 = 1024;

/// Which slots are taken. The table is made at the first registration.
#[derive(Debug, Default)]
pub(super) struct FileSlots {
    made: bool,
    free: Vec<u32>,
}

impl Ring {
    /// Puts `fd` into a free slot.
    pub(crate) fn register_file(&mut self, fd: RawFd) -> io::Result<u32> {
        if !self.files.made {
            self.uring.submitter().register_files_sparse(SLOTS)?;
            self.files = FileSlots { made: true, free: (0..SLOTS).rev().collect() };
        }
        let full = || io::Error::other("the table of registered files is full");
        let slot = self.files.free.pop().ok_or_else(full)?;
        if let Err(error) = self.uring.submitter().register_files_update(slot, &[fd]) {
            self.files.free.push(slot);
            return Err(error);
        }
        Ok(slot)
    }

    /// Empties a slot. Operations that were submitted with it keep the file until they end.
    pub(crate) fn unregister_file(&mut self, slot: u32) {
        match self.uring.submitter().register_files_update(slot, &[-1]) {
            Ok(_) => self.files.free.push(slot),
            // The slot is given up rather than used twice.
            Err(error) => tracing::warn!(slot, %error, "a registered file could not be released"),
        }
    }
}
