//! What a group can submit.

use super::OpGroup;
use crate::buffers::FixedMemory;
use crate::fd::Fd;
use crate::io::RingId;
use crate::local::{self, Local};
use crate::op::codes::clamp_len;
use crate::op::token::Token;
use io_uring::{opcode, squeue, types};
use std::io;
use std::os::fd::RawFd;

/// The value added to an eventfd to signal it.
static ONE: [u8; 8] = 1u64.to_ne_bytes();

/// A file in the ring's table of registered files: operations on it skip the descriptor look-up.
///
/// In contexts other than the one it was registered in, its descriptor is used. The place in the table is
/// freed with the last clone and the last operation.
#[derive(Clone, Debug)]
pub struct FixedFile {
    /// Carries the registration.
    fd: Fd,
}

impl FixedFile {
    pub(super) fn new(fd: &Fd) -> io::Result<Self> {
        Ok(Self { fd: fd.register()? })
    }

    /// The descriptor, which knows its registration: functions of [`io`](crate::io) use it as well.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }
}

/// A file for [`OpGroup`] operations.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An ordinary descriptor.
    Fd(&'a Fd),
    /// A file registered with [`OpGroup::register_file`].
    Fixed(&'a FixedFile),
}

impl Target<'_> {
    fn resolve(self, local: &Local) -> (types::Fd, squeue::Flags) {
        match self {
            Self::Fd(fd) => fd.target(&local.shared),
            Self::Fixed(file) => file.fd.target(&local.shared),
        }
    }
}

pub(super) fn signal_eventfd(fd: RawFd) {
    let entry = opcode::Write::new(types::Fd(fd), ONE.as_ptr(), 8)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(Token::IGNORE.to_user_data());
    // SAFETY: the bytes are static.
    local::with(|local| unsafe { local.submit(entry) });
}

pub(super) fn read_eventfd(fd: RawFd, count: *mut u64) -> squeue::Entry {
    opcode::Read::new(types::Fd(fd), count.cast(), 8).build()
}

pub(super) fn poll_eventfd(fd: RawFd) -> squeue::Entry {
    opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).multi(true).build()
}

/// In all of these, `token` comes back in the [`Completion`](super::Completion), and `offset` is a
/// position in the file, or `u64::MAX` for what has none (a tap device, a pipe, a socket).
impl OpGroup {
    fn queue(
        &self,
        file: Target<'_>,
        token: u64,
        build: impl FnOnce(types::Fd, RingId) -> squeue::Entry,
    ) {
        local::with(|local| {
            let (fd, fixed) = file.resolve(local);
            let entry = build(fd, RingId::of(&local.shared)).flags(fixed);
            self.push(local, entry, token);
        });
    }

    /// Queues `IORING_OP_READV`.
    ///
    /// # Safety
    /// `iov` must point to `n` iovecs whose ranges, like the iovecs themselves, are part of what
    /// the group keeps, and which nobody turns into Rust references while in flight.
    pub unsafe fn readv(
        &self,
        file: Target<'_>,
        iov: *const libc::iovec,
        n: u32,
        offset: u64,
        token: u64,
    ) {
        self.queue(file, token, |fd, _| opcode::Readv::new(fd, iov, n).offset(offset).build());
    }

    /// Queues `IORING_OP_WRITEV`.
    ///
    /// # Safety
    /// As [`OpGroup::readv`].
    pub unsafe fn writev(
        &self,
        file: Target<'_>,
        iov: *const libc::iovec,
        n: u32,
        offset: u64,
        token: u64,
    ) {
        self.queue(file, token, |fd, _| opcode::Writev::new(fd, iov, n).offset(offset).build());
    }

    /// Queues `IORING_OP_SENDMSG`, without SIGPIPE.
    ///
    /// # Safety
    /// `message` must point to a header that is part of what the group keeps, as must be all that it
    /// points to, and which nobody changes while in flight.
    pub unsafe fn sendmsg(&self, file: Target<'_>, message: *const libc::msghdr, token: u64) {
        self.queue(file, token, |fd, _| {
            opcode::SendMsg::new(fd, message).flags(libc::MSG_NOSIGNAL as u32).build()
        });
    }

    /// Queues a read of up to `len` bytes to `start`: `IORING_OP_READ_FIXED` where `memory` is registered
    /// with the current context's ring and has the range, `IORING_OP_READ` otherwise.
    ///
    /// # Safety
    /// The range must be part of what the group keeps, as must be `memory` (or its registration may end
    /// early, and the operation fail), and nobody turns it into a Rust reference while in flight.
    pub unsafe fn read_fixed(
        &self,
        file: Target<'_>,
        start: *mut u8,
        len: usize,
        memory: &FixedMemory,
        offset: u64,
        token: u64,
    ) {
        self.queue(file, token, |fd, ring| {
            let known = memory.index(ring).filter(|_| memory.contains(start, len));
            let len = clamp_len(len);
            match known {
                Some(n) => opcode::ReadFixed::new(fd, start, len, n).offset(offset).build(),
                None => opcode::Read::new(fd, start, len).offset(offset).build(),
            }
        });
    }

    /// Queues a write of up to `len` bytes from `start`; otherwise as [`OpGroup::read_fixed`].
    ///
    /// # Safety
    /// As [`OpGroup::read_fixed`].
    pub unsafe fn write_fixed(
        &self,
        file: Target<'_>,
        start: *const u8,
        len: usize,
        memory: &FixedMemory,
        offset: u64,
        token: u64,
    ) {
        self.queue(file, token, |fd, ring| {
            let known = memory.index(ring).filter(|_| memory.contains(start, len));
            let len = clamp_len(len);
            match known {
                Some(n) => opcode::WriteFixed::new(fd, start, len, n).offset(offset).build(),
                None => opcode::Write::new(fd, start, len).offset(offset).build(),
            }
        });
    }

    /// Queues `IORING_OP_NOP`: what the least operation costs.
    pub fn nop(&self, token: u64) {
        local::with(|local| self.push(local, opcode::Nop::new().build(), token));
    }

    /// Queues `IORING_OP_FSYNC` (fdatasync(2)).
    pub fn fdatasync(&self, file: Target<'_>, token: u64) {
        let data = types::FsyncFlags::DATASYNC;
        self.queue(file, token, |fd, _| opcode::Fsync::new(fd).flags(data).build());
    }

    /// Queues `IORING_OP_FALLOCATE` with the mode of fallocate(2).
    pub fn fallocate(&self, file: Target<'_>, mode: i32, offset: u64, len: u64, token: u64) {
        self.queue(file, token, |fd, _| {
            opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build()
        });
    }
}
