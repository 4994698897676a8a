//! Multishot operations: submitted once, they complete again and again.
//!
//! Each is a stream of its own type with `next()`. It is submitted at the first call of `next` or
//! `poll_next`, on the ring of the context that calls, and belongs to that ring: what came with
//! completions that nobody takes is closed or given back when the stream is dropped. Once the kernel
//! has ended the operation (its reasons are a full completion queue, no free buffer, an error) the
//! next call submits it anew.

use crate::buffers::{BufRing, Pool, RingBuf};
use crate::fd::Fd;
use crate::local;
use crate::mailbox::Shared;
use crate::op::codes::adopt;
use crate::op::multi::{Multi, MultiCode};
use crate::op::table::Backlog;
use crate::op::to_result;
use crate::ring::Cqe;
use io_uring::{opcode, squeue};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Accepted connections that wait to be taken; with more, accepting pauses and the socket's own backlog
/// fills up. A flood of connections costs no more than so many descriptors.
const ACCEPTED_MAX: usize = 16;

struct AcceptCode {
    fd: Fd,
}

// SAFETY: no address is asked for, so it points to nothing; the descriptor is owned.
unsafe impl MultiCode for AcceptCode {
    type Item = io::Result<Fd>;
    const BACKLOG: Backlog = Backlog::Keep(ACCEPTED_MAX);

    fn entry(&mut self, home: &Arc<Shared>) -> io::Result<squeue::Entry> {
        let (fd, fixed) = self.fd.target(home);
        Ok(opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build().flags(fixed))
    }

    fn item(&mut self, cqe: Cqe) -> Self::Item {
        to_result(cqe.result).map(|fd| Fd::from(adopt(fd)))
    }

    fn refused(&mut self, error: io::Error) -> Self::Item {
        Err(error)
    }
}

/// See [`accept_multishot`].
pub struct AcceptMulti(Multi<AcceptCode>);

/// Accepts connections on a listening socket, one after the other (`IORING_ACCEPT_MULTISHOT`); the new
/// sockets are close-on-exec. At most 16 wait to be taken.
pub fn accept_multishot(fd: &Fd) -> AcceptMulti {
    AcceptMulti(Multi::new(AcceptCode { fd: fd.clone() }))
}

impl AcceptMulti {
    /// The next connection. An error, such as too many open files, is no end: call again, perhaps later.
    pub async fn next(&mut self) -> io::Result<Fd> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for a future written by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fd>> {
        self.0.poll_next(cx)
    }
}

struct PollCode {
    fd: Fd,
    events: u32,
}

// SAFETY: points to nothing; the descriptor is owned.
unsafe impl MultiCode for PollCode {
    type Item = io::Result<u32>;
    const BACKLOG: Backlog = Backlog::Unite;

    fn entry(&mut self, home: &Arc<Shared>) -> io::Result<squeue::Entry> {
        let (fd, fixed) = self.fd.target(home);
        Ok(opcode::PollAdd::new(fd, self.events).multi(true).build().flags(fixed))
    }

    fn item(&mut self, cqe: Cqe) -> Self::Item {
        to_result(cqe.result)
    }

    fn refused(&mut self, error: io::Error) -> Self::Item {
        Err(error)
    }
}

/// See [`poll_multishot`].
pub struct PollMulti(Multi<PollCode>);

/// Reports each time that one of `events` (`POLLIN` and so on of poll(2)) happens on the descriptor.
///
/// It is edge-triggered: data that was there at the first look is reported, and then each arrival, but
/// not that some is left; read until there is no more before calling `next` again. Events that come
/// faster than they are taken are united. For level-triggered waiting call [`poll`](super::poll) again.
pub fn poll_multishot(fd: &Fd, events: u32) -> PollMulti {
    PollMulti(Multi::new(PollCode { fd: fd.clone(), events }))
}

impl PollMulti {
    /// The events that have happened since the last call.
    pub async fn next(&mut self) -> io::Result<u32> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for a future written by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u32>> {
        self.0.poll_next(cx)
    }
}

struct ReadCode {
    fd: Fd,
    pool: Arc<Pool>,
    socket: bool,
}

// SAFETY: points to nothing but the pool's buffers, which the pool keeps; the descriptor is owned.
unsafe impl MultiCode for ReadCode {
    /// `Ok(None)`: the end of the stream.
    type Item = io::Result<Option<RingBuf>>;
    /// Bounded by the buffers.
    const BACKLOG: Backlog = Backlog::Keep(usize::MAX);

    fn entry(&mut self, home: &Arc<Shared>) -> io::Result<squeue::Entry> {
        let (fd, fixed) = self.fd.target(home);
        let group = self.pool.group();
        if !Arc::ptr_eq(self.pool.home(), home) {
            let text = "a buffer ring is used in its own context only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if self.socket {
            return Ok(opcode::RecvMulti::new(fd, group).build().flags(fixed));
        }
        if !local::with(|local| local.ring.borrow().features.read_multishot) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let entry = opcode::ReadMulti::new(fd, 0, group).offset(super::CURRENT).build();
        Ok(entry.flags(fixed))
    }

    fn item(&mut self, cqe: Cqe) -> Self::Item {
        let len = usize::try_from(cqe.result).unwrap_or(0);
        // Whatever else it says, a completion that names a buffer hands it over.
        let buffer = cqe.buffer().map(|id| self.pool.filled(id, len));
        match to_result(cqe.result)? {
            0 => Ok(None),
            _ => buffer.map(Some).ok_or_else(|| io::Error::other("data without a buffer")),
        }
    }

    fn refused(&mut self, error: io::Error) -> Self::Item {
        Err(error)
    }
}

/// See [`recv_multishot`] and [`read_multishot`].
pub struct ReadMulti {
    multi: Multi<ReadCode>,
    /// The kernel found no free buffer.
    starved: bool,
}

/// Receives from a socket into buffers of `buffers` (`IORING_RECV_MULTISHOT`).
pub fn recv_multishot(fd: &Fd, buffers: &BufRing) -> ReadMulti {
    ReadMulti::new(fd, buffers, true)
}

/// Reads from a descriptor that can be waited for, such as a pipe, an eventfd or a tap device, into
/// buffers of `buffers` (`IORING_OP_READ_MULTISHOT`). `Unsupported` before Linux 6.7; what is no such
/// descriptor, a regular file for example, is refused by the kernel (`EBADFD`).
pub fn read_multishot(fd: &Fd, buffers: &BufRing) -> ReadMulti {
    ReadMulti::new(fd, buffers, false)
}

impl ReadMulti {
    fn new(fd: &Fd, buffers: &BufRing, socket: bool) -> Self {
        let code = ReadCode { fd: fd.clone(), pool: Arc::clone(buffers.pool()), socket };
        Self { multi: Multi::new(code), starved: false }
    }

    /// The next data; `None` at the end of the stream. While all buffers are in use it waits for one
    /// to be dropped, and the kernel keeps the data.
    pub async fn next(&mut self) -> io::Result<Option<RingBuf>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for a future written by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<RingBuf>>> {
        loop {
            if self.starved {
                if !self.multi.code().pool.has_free(cx.waker()) {
                    return Poll::Pending;
                }
                self.starved = false;
            }
            match self.multi.poll_next(cx) {
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.starved = true;
                }
                other => return other,
            }
        }
    }
}
