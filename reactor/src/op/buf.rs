//! Buffers that are handed to the kernel by value and come back with the result.

use crate::mailbox::Shared;
use std::sync::Arc;

/// Names a ring, for buffers that are registered with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingId(usize);

impl RingId {
    pub(crate) fn of(home: &Arc<Shared>) -> Self {
        Self(Arc::as_ptr(home) as usize)
    }
}

/// A buffer whose bytes stay where they are while the value moves.
///
/// # Safety
/// `as_ptr` must point to `len` initialised bytes that are owned by the value through the heap (or are
/// static), so that moving the value does not move them, and that nothing else writes to.
pub unsafe trait IoBuf: Send + Unpin + 'static {
    /// The first byte.
    fn as_ptr(&self) -> *const u8;
    /// How many bytes there are.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes' place in the table of registered buffers of `ring`, if they are in it.
    fn fixed_index(&self, ring: RingId) -> Option<u16> {
        let _ = ring;
        None
    }
}

/// A buffer that the kernel may write to.
///
/// # Safety
/// As [`IoBuf`], and nothing else reads or writes the bytes while the kernel has the value.
pub unsafe trait IoBufMut: IoBuf {
    /// The first byte.
    fn as_mut_ptr(&mut self) -> *mut u8;
}

// SAFETY: a Vec's bytes are on the heap and its own; `len` of them are initialised.
unsafe impl IoBuf for Vec<u8> {
    fn as_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr()
    }
    fn len(&self) -> usize {
        self.as_slice().len()
    }
}

// SAFETY: as above; the Vec is owned by the operation while the kernel has it.
unsafe impl IoBufMut for Vec<u8> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_slice().as_mut_ptr()
    }
}

// SAFETY: a boxed slice's bytes are on the heap and its own.
unsafe impl IoBuf for Box<[u8]> {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Box<[u8]> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        (**self).as_mut_ptr()
    }
}

// SAFETY: static memory never moves and is never written.
unsafe impl IoBuf for &'static [u8] {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: the bytes are on the shared heap allocation, kept by this clone, never written.
unsafe impl IoBuf for Arc<[u8]> {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
}

/// A part of a buffer, from `start` on: for going on after a short write.
pub struct Tail<B> {
    buffer: B,
    start: usize,
}

impl<B: IoBuf> Tail<B> {
    /// The bytes of `buffer` from `start` on; none when `start` is past the end.
    pub fn new(buffer: B, start: usize) -> Self {
        let start = start.min(buffer.len());
        Self { buffer, start }
    }

    /// The whole buffer again.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

// SAFETY: a part of a buffer that keeps the contract, within its bounds.
unsafe impl<B: IoBuf> IoBuf for Tail<B> {
    fn as_ptr(&self) -> *const u8 {
        self.buffer.as_ptr().wrapping_add(self.start)
    }
    fn len(&self) -> usize {
        self.buffer.len() - self.start
    }
    fn fixed_index(&self, ring: RingId) -> Option<u16> {
        self.buffer.fixed_index(ring)
    }
}

// SAFETY: as above.
unsafe impl<B: IoBufMut> IoBufMut for Tail<B> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.buffer.as_mut_ptr().wrapping_add(self.start)
    }
}
