//! Registered buffers (fixed buffers): memory whose pages the kernel has pinned once, so that an
//! operation need not pin them each time.

use super::Region;
use crate::io::{IoBuf, IoBufMut, RingId};
use crate::local;
use crate::mailbox::Shared;
use crate::ring::Slot;
use crate::work::HomeWork;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A place in the table of registered buffers of one context's ring.
pub(crate) struct BufferSlot {
    home: Arc<Shared>,
    slot: u32,
}

impl BufferSlot {
    /// # Safety
    /// The range must stay mapped until this value has been dropped and its context has turned once.
    unsafe fn new(base: *mut u8, len: usize) -> io::Result<Self> {
        let range = libc::iovec { iov_base: base.cast(), iov_len: len };
        local::with(|local| {
            // SAFETY: the caller keeps the range mapped.
            let slot = unsafe { local.ring.borrow_mut().register_buffer(range) }?;
            Ok(Self { home: Arc::clone(&local.shared), slot })
        })
    }

    /// The number that operations of `ring` use; `None` for another ring.
    fn index(&self, ring: RingId) -> Option<u16> {
        (RingId::of(&self.home) == ring).then_some(self.slot as u16)
    }
}

impl fmt::Debug for BufferSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.slot, self.home.name)
    }
}

impl Drop for BufferSlot {
    fn drop(&mut self) {
        let slot = Slot::Buffer(self.slot);
        if local::is_current(&self.home) {
            local::with(|local| local.ring.borrow_mut().release(slot));
        } else {
            self.home.send_home(HomeWork::Release(slot));
        }
    }
}

/// A buffer registered with the ring of the context that made it. Reads and writes of files there
/// use `IORING_OP_READ_FIXED` and `IORING_OP_WRITE_FIXED` with it by themselves; elsewhere, and in other
/// operations, it is an ordinary buffer. Its pages count as locked memory.
pub struct FixedBuffer {
    /// First: unregistered before it is unmapped. The kernel has its pages pinned where that comes later.
    slot: BufferSlot,
    region: Region,
    len: usize,
}

impl FixedBuffer {
    /// A zeroed buffer of `len` bytes, aligned to pages as `O_DIRECT` wants it.
    ///
    /// Errors: `InvalidInput` when `len` is 0 or above 1 GiB; the table of 1024 buffers is full; what the
    /// kernel answers otherwise, such as `ENOMEM` beyond the limit of locked memory (`ulimit -l`).
    ///
    /// # Panics
    /// Off a reactor.
    pub fn new(len: usize) -> io::Result<Self> {
        if len == 0 || len > 1 << 30 {
            let text = "a registered buffer has 1 byte to 1 GiB";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let region = Region::new(len)?;
        // SAFETY: the region is dropped after the slot, and no operation uses the slot without having
        // this value. The kernel holds the pages themselves for as long as the slot is filled.
        let slot = unsafe { BufferSlot::new(region.base(), len) }?;
        Ok(Self { slot, region, len })
    }
}

impl Deref for FixedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the region has `len` initialised (zeroed) bytes and is this value's own.
        unsafe { std::slice::from_raw_parts(self.region.base(), self.len) }
    }
}

impl DerefMut for FixedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.region.base(), self.len) }
    }
}

// SAFETY: the bytes are in the mapping, which does not move with the value.
unsafe impl IoBuf for FixedBuffer {
    fn as_ptr(&self) -> *const u8 {
        self.region.base()
    }
    fn len(&self) -> usize {
        self.len
    }
    fn fixed_index(&self, ring: RingId) -> Option<u16> {
        self.slot.index(ring)
    }
}

// SAFETY: as above; the value is owned by the operation while the kernel has it.
unsafe impl IoBufMut for FixedBuffer {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.region.base()
    }
}

impl fmt::Debug for FixedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FixedBuffer({} bytes)", self.len)
    }
}

/// Memory of somebody else's, such as a guest's, registered with the ring of the context that made this
/// value, for the operations of an [`OpGroup`](crate::OpGroup). Its pages count as locked memory.
#[derive(Debug)]
pub struct FixedMemory {
    slot: BufferSlot,
    base: usize,
    len: usize,
}

impl FixedMemory {
    /// Registers `len` bytes from `base` on (1 byte to 1 GiB).
    ///
    /// Errors: the table of 1024 buffers is full; what the kernel answers otherwise, such as `ENOMEM`
    /// beyond the limit of locked memory (`ulimit -l`).
    ///
    /// # Safety
    /// The range must stay mapped until this value has been dropped.
    ///
    /// # Panics
    /// Off a reactor.
    pub unsafe fn new(base: *mut u8, len: usize) -> io::Result<Self> {
        // SAFETY: the caller keeps the range mapped; the kernel holds the pages beyond that.
        Ok(Self { slot: unsafe { BufferSlot::new(base, len) }?, base: base as usize, len })
    }

    /// Whether `len` bytes from `start` on are registered.
    pub fn contains(&self, start: *const u8, len: usize) -> bool {
        let Some(at) = (start as usize).checked_sub(self.base) else { return false };
        at <= self.len && len <= self.len - at
    }

    pub(crate) fn index(&self, ring: RingId) -> Option<u16> {
        self.slot.index(ring)
    }
}
