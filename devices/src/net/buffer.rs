//! One operation at a time between a descriptor and a buffer of our own.

use reactor::{Fd, OpGroup, Target};
use std::any::Any;
use std::cell::UnsafeCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

/// The offset of what has none.
const NO_OFFSET: u64 = u64::MAX;

/// The buffer and the one iovec that names a part of it, at addresses that stay.
struct Memory {
    bytes: UnsafeCell<Box<[u8]>>,
    iovec: UnsafeCell<libc::iovec>,
}

/// A buffer that is read into or written from; while an operation is in flight its bytes cannot be
/// reached. Dropping it cancels; the memory stays until the kernel has let go.
pub(super) struct BufferOp {
    memory: Rc<Memory>,
    /// The descriptor in use, and the operations on it.
    file: Option<(Fd, OpGroup)>,
    in_flight: bool,
}

impl BufferOp {
    pub(super) fn new(bytes: Box<[u8]>) -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let memory =
            Rc::new(Memory { bytes: UnsafeCell::new(bytes), iovec: UnsafeCell::new(empty) });
        Self { memory, file: None, in_flight: false }
    }

    /// From now on operations go to `fd`, or nowhere.
    ///
    /// # Panics
    /// While an operation is in flight.
    pub(super) fn attach(&mut self, fd: Option<Fd>) {
        assert!(!self.in_flight, "the kernel has the buffer");
        self.file = fd.map(|fd| {
            let fd = fd.register().unwrap_or(fd);
            let group = OpGroup::new(1, Rc::clone(&self.memory) as Rc<dyn Any>);
            group.keep(Rc::new(fd.clone()));
            (fd, group)
        });
    }

    /// Whether there is somewhere to go.
    pub(super) fn attached(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// The bytes.
    ///
    /// # Panics
    /// While an operation is in flight.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        assert!(!self.in_flight, "the kernel has the buffer");
        // SAFETY: nothing is in flight and `self`, the only one who hands out the bytes, is
        // borrowed mutably.
        unsafe { &mut *self.memory.bytes.get() }
    }

    fn aim(&mut self, range: std::ops::Range<usize>) -> *const libc::iovec {
        let part = &mut self.bytes()[range];
        let iovec = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
        // SAFETY: nothing is in flight (`bytes` has asserted it), so nobody else looks at it.
        unsafe { *self.memory.iovec.get() = iovec };
        self.memory.iovec.get()
    }

    /// Starts to read into `range`; nothing happens without a descriptor.
    pub(super) fn read(&mut self, range: std::ops::Range<usize>) {
        let iovec = self.aim(range);
        let Some((fd, group)) = &self.file else { return };
        self.in_flight = true;
        // SAFETY: iovec and bytes are in `memory`, which the group keeps along with the descriptor;
        // `in_flight` keeps everybody away until the completion.
        unsafe { group.readv(Target::Fd(fd), iovec, 1, NO_OFFSET, 0) };
    }

    /// Starts to write `range`; nothing happens without a descriptor.
    pub(super) fn write(&mut self, range: std::ops::Range<usize>) {
        let iovec = self.aim(range);
        let Some((fd, group)) = &self.file else { return };
        self.in_flight = true;
        // SAFETY: as in `read`.
        unsafe { group.writev(Target::Fd(fd), iovec, 1, NO_OFFSET, 0) };
    }

    /// The end of the operation in flight.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((_, group)) = &self.file else { return Poll::Pending };
        group.poll_next(cx).map(|completion| {
            self.in_flight = false;
            completion.into_result().map(|n| n as usize)
        })
    }

    /// Ends the operation as soon as possible; [`poll`](Self::poll) still tells how.
    pub(super) fn cancel(&self) {
        if let (true, Some((_, group))) = (self.in_flight, &self.file) {
            group.cancel_all();
        }
    }
}
