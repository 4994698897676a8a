//! The opcodes, each with its arguments and the meaning of its result.

use super::OpCode;
use super::buf::{IoBuf, IoBufMut, RingId};
use crate::fd::Fd;
use crate::mailbox::Shared;
use io_uring::{opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// One operation moves at most this much (`MAX_RW_COUNT` of the kernel); the rest is a short count.
pub(crate) fn clamp_len(len: usize) -> u32 {
    len.min(0x7fff_f000) as u32
}

/// Takes a descriptor that the kernel made.
pub(crate) fn adopt(fd: u32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us as the result of an operation,
    // and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Closes the descriptor that an abandoned operation has made nevertheless.
pub(crate) fn close_result(result: i32) {
    if let Ok(fd) = u32::try_from(result) {
        drop(adopt(fd));
    }
}

/// `IORING_OP_READ`: fills the buffer from `offset` (`u64::MAX`: the current position).
pub(crate) struct Read<B> {
    pub(crate) fd: Fd,
    pub(crate) buffer: B,
    pub(crate) offset: u64,
}

// SAFETY: the buffer keeps IoBuf's contract; the descriptor is owned.
unsafe impl<B: IoBufMut> OpCode for Read<B> {
    type Output = (io::Result<usize>, B);

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        let len = clamp_len(self.buffer.len());
        let (start, offset) = (self.buffer.as_mut_ptr(), self.offset);
        match self.buffer.fixed_index(RingId::of(home)) {
            Some(n) => opcode::ReadFixed::new(fd, start, len, n).offset(offset).build(),
            None => opcode::Read::new(fd, start, len).offset(offset).build(),
        }
        .flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|n| n as usize), self.buffer)
    }
}

/// `IORING_OP_WRITE`.
pub(crate) struct Write<B> {
    pub(crate) fd: Fd,
    pub(crate) buffer: B,
    pub(crate) offset: u64,
}

// SAFETY: the buffer keeps IoBuf's contract; the descriptor is owned.
unsafe impl<B: IoBuf> OpCode for Write<B> {
    type Output = (io::Result<usize>, B);

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        let len = clamp_len(self.buffer.len());
        let (start, offset) = (self.buffer.as_ptr(), self.offset);
        match self.buffer.fixed_index(RingId::of(home)) {
            Some(n) => opcode::WriteFixed::new(fd, start, len, n).offset(offset).build(),
            None => opcode::Write::new(fd, start, len).offset(offset).build(),
        }
        .flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|n| n as usize), self.buffer)
    }
}

/// `IORING_OP_NOP`.
pub(crate) struct Nop;

// SAFETY: points to nothing.
unsafe impl OpCode for Nop {
    type Output = io::Result<()>;

    fn entry(&mut self, _: &Arc<Shared>) -> squeue::Entry {
        opcode::Nop::new().build()
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// The iovecs of a vectored operation: they point into buffers that the same operation owns.
struct Iovecs(Box<[libc::iovec]>);

// SAFETY: only pointers into buffers that are Send and move with this value.
unsafe impl std::marker::Send for Iovecs {}

/// `IORING_OP_READV` and `IORING_OP_WRITEV`.
pub(crate) struct Vectored<B> {
    fd: Fd,
    buffers: Vec<B>,
    iovecs: Iovecs,
    offset: u64,
    write: bool,
}

impl<B: IoBuf> Vectored<B> {
    pub(crate) fn write(fd: Fd, buffers: Vec<B>, offset: u64) -> Self {
        let iovec =
            |b: &B| libc::iovec { iov_base: b.as_ptr().cast_mut().cast(), iov_len: b.len() };
        let iovecs = Iovecs(buffers.iter().map(iovec).collect());
        Self { fd, buffers, iovecs, offset, write: true }
    }
}

impl<B: IoBufMut> Vectored<B> {
    pub(crate) fn read(fd: Fd, mut buffers: Vec<B>, offset: u64) -> Self {
        let iovec = |b: &mut B| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() };
        let iovecs = Iovecs(buffers.iter_mut().map(iovec).collect());
        Self { fd, buffers, iovecs, offset, write: false }
    }
}

// SAFETY: the iovecs are on the heap and point into owned buffers that keep IoBuf's contract
// (IoBufMut's where `write` is false: see the constructors).
unsafe impl<B: IoBuf> OpCode for Vectored<B> {
    type Output = (io::Result<usize>, Vec<B>);

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        let (iov, n) = (self.iovecs.0.as_ptr(), self.iovecs.0.len() as u32);
        if self.write {
            opcode::Writev::new(fd, iov, n).offset(self.offset).build()
        } else {
            opcode::Readv::new(fd, iov, n).offset(self.offset).build()
        }
        .flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|n| n as usize), self.buffers)
    }
}

/// `IORING_OP_RECV`.
pub(crate) struct Recv<B> {
    pub(crate) fd: Fd,
    pub(crate) buffer: B,
}

// SAFETY: the buffer keeps IoBuf's contract; the descriptor is owned.
unsafe impl<B: IoBufMut> OpCode for Recv<B> {
    type Output = (io::Result<usize>, B);

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        let len = clamp_len(self.buffer.len());
        opcode::Recv::new(fd, self.buffer.as_mut_ptr(), len).build().flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|n| n as usize), self.buffer)
    }
}

/// `IORING_OP_SEND`, without SIGPIPE.
pub(crate) struct Send<B> {
    pub(crate) fd: Fd,
    pub(crate) buffer: B,
}

// SAFETY: the buffer keeps IoBuf's contract; the descriptor is owned.
unsafe impl<B: IoBuf> OpCode for Send<B> {
    type Output = (io::Result<usize>, B);

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        let len = clamp_len(self.buffer.len());
        opcode::Send::new(fd, self.buffer.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        (result.map(|n| n as usize), self.buffer)
    }
}

/// `IORING_OP_FSYNC`.
pub(crate) struct Fsync {
    pub(crate) fd: Fd,
    pub(crate) data_only: bool,
}

// SAFETY: points to nothing; the descriptor is owned.
unsafe impl OpCode for Fsync {
    type Output = io::Result<()>;

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let flags =
            if self.data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
        let (fd, fixed) = self.fd.target(home);
        opcode::Fsync::new(fd).flags(flags).build().flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_FALLOCATE`.
pub(crate) struct Fallocate {
    pub(crate) fd: Fd,
    pub(crate) mode: i32,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

// SAFETY: points to nothing; the descriptor is owned.
unsafe impl OpCode for Fallocate {
    type Output = io::Result<()>;

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        opcode::Fallocate::new(fd, self.len)
            .offset(self.offset)
            .mode(self.mode)
            .build()
            .flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_POLL_ADD`, one-shot: level-triggered when armed again.
pub(crate) struct PollFd {
    pub(crate) fd: Fd,
    pub(crate) events: u32,
}

// SAFETY: points to nothing; the descriptor is owned.
unsafe impl OpCode for PollFd {
    type Output = io::Result<u32>;

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        opcode::PollAdd::new(fd, self.events).build().flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result
    }
}

/// `IORING_OP_ACCEPT`; the new socket is close-on-exec.
pub(crate) struct Accept {
    pub(crate) fd: Fd,
}

// SAFETY: no address is asked for, so it points to nothing; the descriptor is owned.
unsafe impl OpCode for Accept {
    type Output = io::Result<Fd>;

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        let none = std::ptr::null_mut();
        opcode::Accept::new(fd, none, std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(|fd| Fd::from(adopt(fd)))
    }

    fn orphaned(&mut self, result: i32) {
        close_result(result);
    }
}

/// A socket address in the kernel's form, on the heap.
pub(crate) struct RawAddress {
    pub(crate) storage: Box<libc::sockaddr_storage>,
    pub(crate) len: libc::socklen_t,
}

/// `IORING_OP_CONNECT`.
pub(crate) struct Connect {
    pub(crate) fd: Fd,
    pub(crate) address: RawAddress,
}

// SAFETY: the address is boxed; the descriptor is owned.
unsafe impl OpCode for Connect {
    type Output = io::Result<()>;

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        let address = (&raw const *self.address.storage).cast();
        opcode::Connect::new(fd, address, self.address.len).build().flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_SHUTDOWN`.
pub(crate) struct Shutdown {
    pub(crate) fd: Fd,
    pub(crate) how: i32,
}

// SAFETY: points to nothing; the descriptor is owned.
unsafe impl OpCode for Shutdown {
    type Output = io::Result<()>;

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        opcode::Shutdown::new(fd, self.how).build().flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_FTRUNCATE`.
pub(crate) struct Ftruncate {
    pub(crate) fd: Fd,
    pub(crate) len: u64,
}

// SAFETY: points to nothing; the descriptor is owned.
unsafe impl OpCode for Ftruncate {
    type Output = io::Result<()>;

    fn entry(&mut self, home: &Arc<Shared>) -> squeue::Entry {
        let (fd, fixed) = self.fd.target(home);
        opcode::Ftruncate::new(fd, self.len).build().flags(fixed)
    }

    fn complete(self, result: io::Result<u32>) -> Self::Output {
        result.map(drop)
    }
}

/// `IORING_OP_CLOSE`. Once the kernel has begun, the descriptor is its own.
pub(crate) struct Close {
    fd: Option<OwnedFd>,
}

impl Close {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd: Some(fd) }
    }

    /// Whether the kernel has not touched the descriptor: it was cancelled before.
    fn ended(&mut self, untouched: bool) {
        if let Some(fd) = self.fd.take()
            && !untouched
        {
            let _closed: RawFd = fd.into_raw_fd();
        }
    }
}

// SAFETY: points to nothing.
unsafe impl OpCode for Close {
    type Output = io::Result<()>;

    fn entry(&mut self, _: &Arc<Shared>) -> squeue::Entry {
        let fd = self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        opcode::Close::new(types::Fd(fd)).build()
    }

    fn complete(mut self, result: io::Result<u32>) -> Self::Output {
        let cancelled = |error: &io::Error| error.raw_os_error() == Some(libc::ECANCELED);
        self.ended(result.as_ref().is_err_and(cancelled));
        result.map(drop)
    }

    fn orphaned(&mut self, result: i32) {
        self.ended(result == -libc::ECANCELED);
    }
}
