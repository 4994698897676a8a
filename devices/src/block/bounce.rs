//! Aligned buffers for direct I/O on guest buffers that are not aligned.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;

/// Bytes of a buffer: larger requests go through it in pieces.
pub(super) const BOUNCE_BYTES: usize = 256 * 1024;
/// Buffers of one queue: further requests wait for one.
const BOUNCE_BUFFERS: usize = 8;
const LAYOUT: Layout = match Layout::from_size_align(BOUNCE_BYTES, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("the layout of a bounce buffer is a constant"),
};

/// One buffer, with the iovec that names it to the kernel.
pub(super) struct Bounce {
    bytes: NonNull<u8>,
    iovec: Cell<[usize; 2]>,
}

impl Bounce {
    fn new() -> Self {
        // SAFETY: the layout has a size above zero.
        let bytes = unsafe { alloc_zeroed(LAYOUT) };
        let bytes = NonNull::new(bytes).unwrap_or_else(|| handle_alloc_error(LAYOUT));
        Self { bytes, iovec: Cell::new([0, 0]) }
    }

    /// An iovec of the first `len` bytes, valid as long as the buffer and until the next call.
    pub(super) fn iovec(&self, len: usize) -> *const libc::iovec {
        self.iovec.set([self.bytes.as_ptr().expose_provenance(), len.min(BOUNCE_BYTES)]);
        self.iovec.as_ptr().cast_const().cast()
    }

    /// Runs `f` on the first `len` bytes.
    ///
    /// # Safety
    /// No operation in flight may use the buffer, and `f` may not reach it another way.
    pub(super) unsafe fn with<R>(&self, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        // SAFETY: the buffer is `BOUNCE_BYTES` long; the caller keeps everybody else away.
        f(unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), len.min(BOUNCE_BYTES)) })
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), LAYOUT) };
    }
}

/// The buffers of one queue, allocated as they are first needed.
#[derive(Default)]
pub(super) struct BouncePool {
    idle: Vec<Rc<Bounce>>,
    made: usize,
}

impl BouncePool {
    /// A buffer and whether it is new (the group must keep it then); `None` when all are in use.
    pub(super) fn take(&mut self) -> Option<(Rc<Bounce>, bool)> {
        if let Some(bounce) = self.idle.pop() {
            return Some((bounce, false));
        }
        (self.made < BOUNCE_BUFFERS).then(|| {
            self.made += 1;
            (Rc::new(Bounce::new()), true)
        })
    }

    pub(super) fn give_back(&mut self, bounce: Rc<Bounce>) {
        self.idle.push(bounce);
    }
}
