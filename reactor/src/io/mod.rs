//! File and socket operations through the ring of the current context.
//!
//! Every function is called from a task (it panics off reactors), never blocks its thread, answers with
//! the errors of the system call that it stands for, and may be dropped at any
//! `.await`: the operation is cancelled then, and its buffer lives until the kernel has let go.
//! What a dropped receive or read takes from a stream is lost with its buffer, and until its cancellation
//! has reached the kernel it may still take something, before an operation submitted later on another
//! ring: where bytes matter, [`within`] and [`cancellable`] end operations without losing them.
//! Buffers are passed by value and come back with the result, also on an error. An operation must
//! end, or be dropped, before its task hops.
//!
//! A descriptor with `O_NONBLOCK` is waited for like any other. A registered file
//! ([`Fd::register`]) and a registered buffer ([`FixedBuffer`](crate::FixedBuffer)) are used as such
//! where their context submits. [`within`] limits the time, [`cancellable`] ends operations on request.

pub(crate) mod limits;
mod multishot;

pub use limits::{Canceller, cancellable, within};
pub use multishot::{
    AcceptMulti, PollMulti, ReadMulti, accept_multishot, poll_multishot, read_multishot,
    recv_multishot,
};

pub use crate::op::buf::{IoBuf, IoBufMut, RingId, Tail};
pub use crate::op::message::Received;

use crate::fd::Fd;
use crate::op::message::{FDS_MAX, RecvMessage, SendMessage};
use crate::op::{Op, codes, paths};
use std::io;
use std::path::Path;

/// The offset that means "the current position": streams, pipes, eventfds.
const CURRENT: u64 = u64::MAX;

const POLLIN: u32 = libc::POLLIN as u32;
const POLLOUT: u32 = libc::POLLOUT as u32;

/// Whether a descriptor with `O_NONBLOCK`, of a kind that the ring cannot wait for by itself, has made
/// the operation give up; if so, waits for `events`.
async fn wait_instead<T>(fd: &Fd, result: &io::Result<T>, events: u32) -> bool {
    let would_block = matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    would_block && poll(fd, events).await.is_ok()
}

/// A file offset, which is not negative.
fn check_offset(offset: u64) -> io::Result<u64> {
    let negative = "a file offset is below 2^63";
    i64::try_from(offset)
        .map(|_| offset)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, negative))
}

/// Reads up to `buffer.len()` bytes from a stream or the current position. 0 at its end.
pub async fn read<B: IoBufMut>(fd: &Fd, mut buffer: B) -> (io::Result<usize>, B) {
    loop {
        let fd2 = fd.clone();
        let (result, back) = Op::new(codes::Read { fd: fd2, buffer, offset: CURRENT }).await;
        if !wait_instead(fd, &result, POLLIN).await {
            return (result, back);
        }
        buffer = back;
    }
}

/// Writes up to `buffer.len()` bytes to a stream or at the current position.
pub async fn write<B: IoBuf>(fd: &Fd, mut buffer: B) -> (io::Result<usize>, B) {
    loop {
        let fd2 = fd.clone();
        let (result, back) = Op::new(codes::Write { fd: fd2, buffer, offset: CURRENT }).await;
        if !wait_instead(fd, &result, POLLOUT).await {
            return (result, back);
        }
        buffer = back;
    }
}

/// Reads up to `buffer.len()` bytes at `offset` (below 2^63, or `InvalidInput`). A short count is no
/// error.
pub async fn read_at<B: IoBufMut>(fd: &Fd, buffer: B, offset: u64) -> (io::Result<usize>, B) {
    match check_offset(offset) {
        Ok(offset) => Op::new(codes::Read { fd: fd.clone(), buffer, offset }).await,
        Err(error) => (Err(error), buffer),
    }
}

/// Writes up to `buffer.len()` bytes at `offset` (below 2^63, or `InvalidInput`). A short count is no
/// error.
pub async fn write_at<B: IoBuf>(fd: &Fd, buffer: B, offset: u64) -> (io::Result<usize>, B) {
    match check_offset(offset) {
        Ok(offset) => Op::new(codes::Write { fd: fd.clone(), buffer, offset }).await,
        Err(error) => (Err(error), buffer),
    }
}

/// Reads into several buffers at `offset` (below 2^63, or `InvalidInput`; at most 1024 buffers).
pub async fn readv_at<B: IoBufMut>(
    fd: &Fd,
    buffers: Vec<B>,
    offset: u64,
) -> (io::Result<usize>, Vec<B>) {
    match check_offset(offset) {
        Ok(offset) => Op::new(codes::Vectored::read(fd.clone(), buffers, offset)).await,
        Err(error) => (Err(error), buffers),
    }
}

/// Writes several buffers at `offset` (below 2^63, or `InvalidInput`; at most 1024 buffers).
pub async fn writev_at<B: IoBuf>(
    fd: &Fd,
    buffers: Vec<B>,
    offset: u64,
) -> (io::Result<usize>, Vec<B>) {
    match check_offset(offset) {
        Ok(offset) => Op::new(codes::Vectored::write(fd.clone(), buffers, offset)).await,
        Err(error) => (Err(error), buffers),
    }
}

/// Goes on with the rest of `buffer` after short counts and EINTR until all of it is done; a count of 0
/// is the error `at_zero`. `operation` gets the rest and how much has been done.
async fn whole<B, F, Fut>(
    mut buffer: B,
    at_zero: io::ErrorKind,
    mut operation: F,
) -> (io::Result<()>, B)
where
    B: IoBuf,
    F: FnMut(Tail<B>, u64) -> Fut,
    Fut: Future<Output = (io::Result<usize>, Tail<B>)>,
{
    let mut done = 0;
    while done < buffer.len() {
        let (result, tail) = operation(Tail::new(buffer, done), done as u64).await;
        buffer = tail.into_inner();
        match result {
            Ok(0) => return (Err(at_zero.into()), buffer),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

/// Writes the whole buffer to a stream, going on after short counts and EINTR.
pub async fn write_all<B: IoBuf>(fd: &Fd, buffer: B) -> (io::Result<()>, B) {
    whole(buffer, io::ErrorKind::WriteZero, |tail, _| write(fd, tail)).await
}

/// Writes the whole buffer at `offset`, going on after short counts and EINTR.
pub async fn write_all_at<B: IoBuf>(fd: &Fd, buffer: B, offset: u64) -> (io::Result<()>, B) {
    let write = |tail, done| write_at(fd, tail, offset.saturating_add(done));
    whole(buffer, io::ErrorKind::WriteZero, write).await
}

/// Fills the whole buffer from `offset`, going on after short counts and EINTR.
/// `UnexpectedEof` where the file ends before.
pub async fn read_exact_at<B: IoBufMut>(fd: &Fd, buffer: B, offset: u64) -> (io::Result<()>, B) {
    let read = |tail, done| read_at(fd, tail, offset.saturating_add(done));
    whole(buffer, io::ErrorKind::UnexpectedEof, read).await
}

/// Receives up to `buffer.len()` bytes from a socket. 0 when the peer has closed.
pub async fn recv<B: IoBufMut>(fd: &Fd, mut buffer: B) -> (io::Result<usize>, B) {
    loop {
        let (result, back) = Op::new(codes::Recv { fd: fd.clone(), buffer }).await;
        if !wait_instead(fd, &result, POLLIN).await {
            return (result, back);
        }
        buffer = back;
    }
}

/// Sends up to `buffer.len()` bytes; a closed peer is `BrokenPipe`, never a signal.
pub async fn send<B: IoBuf>(fd: &Fd, mut buffer: B) -> (io::Result<usize>, B) {
    loop {
        let (result, back) = Op::new(codes::Send { fd: fd.clone(), buffer }).await;
        if !wait_instead(fd, &result, POLLOUT).await {
            return (result, back);
        }
        buffer = back;
    }
}

/// Sends the whole buffer, going on after short counts and EINTR.
pub async fn send_all<B: IoBuf>(fd: &Fd, buffer: B) -> (io::Result<()>, B) {
    whole(buffer, io::ErrorKind::WriteZero, |tail, _| send(fd, tail)).await
}

/// Sends up to `buffer.len()` bytes, at least one, over a UNIX socket, and `fds` along with the first
/// (`SCM_RIGHTS`, unix(7)). `InvalidInput` for more than 253 descriptors, or none to send bytes with.
pub async fn send_with_fds<B: IoBuf>(
    fd: &Fd,
    mut buffer: B,
    fds: Vec<Fd>,
) -> (io::Result<usize>, B) {
    if fds.len() > FDS_MAX || buffer.is_empty() {
        let text = "a message carries at least 1 byte and at most 253 descriptors";
        return (Err(io::Error::new(io::ErrorKind::InvalidInput, text)), buffer);
    }
    loop {
        let message = SendMessage::new(fd.clone(), buffer, fds.clone());
        let (result, back) = Op::new(message).await;
        if !wait_instead(fd, &result, POLLOUT).await {
            return (result, back);
        }
        buffer = back;
    }
}

/// Receives up to `buffer.len()` bytes from a UNIX socket, and up to `fds_max` (253 at most) descriptors
/// that came with them; see [`Received`].
pub async fn recv_with_fds<B: IoBufMut>(
    fd: &Fd,
    mut buffer: B,
    fds_max: usize,
) -> (io::Result<Received>, B) {
    loop {
        let message = RecvMessage::new(fd.clone(), buffer, fds_max);
        let (result, back) = Op::new(message).await;
        if !wait_instead(fd, &result, POLLIN).await {
            return (result, back);
        }
        buffer = back;
    }
}

/// Shuts a socket down for reading, writing or both (shutdown(2)).
pub async fn shutdown(fd: &Fd, how: std::net::Shutdown) -> io::Result<()> {
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    Op::new(codes::Shutdown { fd: fd.clone(), how }).await
}

/// Writes data and metadata of the file to its device (fsync(2)).
pub async fn fsync(fd: &Fd) -> io::Result<()> {
    Op::new(codes::Fsync { fd: fd.clone(), data_only: false }).await
}

/// As [`fsync`], without metadata that reading the data does not need (fdatasync(2)).
pub async fn fdatasync(fd: &Fd) -> io::Result<()> {
    Op::new(codes::Fsync { fd: fd.clone(), data_only: true }).await
}

/// Allocates, zeroes or punches out `len` bytes at `offset`; `mode` as in fallocate(2).
pub async fn fallocate(fd: &Fd, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    Op::new(codes::Fallocate { fd: fd.clone(), mode, offset, len }).await
}

/// Makes the file `len` bytes long (ftruncate(2)). `Unsupported` before Linux 6.9.
pub async fn ftruncate(fd: &Fd, len: u64) -> io::Result<()> {
    if !crate::local::with(|local| local.ring.borrow().features.ftruncate) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Op::new(codes::Ftruncate { fd: fd.clone(), len }).await
}

/// Waits for one of `events` (`POLLIN` and so on of poll(2)); returns those that are there. It is
/// level-triggered: what is there already ends it at once.
pub async fn poll(fd: &Fd, events: u32) -> io::Result<u32> {
    Op::new(codes::PollFd { fd: fd.clone(), events }).await
}

/// Accepts a connection on a listening socket; the new one is close-on-exec.
pub async fn accept(fd: &Fd) -> io::Result<Fd> {
    loop {
        let result = Op::new(codes::Accept { fd: fd.clone() }).await;
        if !wait_instead(fd, &result, POLLIN).await {
            return result;
        }
    }
}

/// Closes a descriptor when this is its last clone; with other clones alive it only drops this one.
pub async fn close(fd: Fd) -> io::Result<()> {
    match fd.into_owned() {
        Ok(owned) => Op::new(codes::Close::new(owned)).await,
        Err(_shared) => Ok(()),
    }
}

/// Opens `path` with the `O_*` flags of open(2), close-on-exec; new files get `mode`.
pub async fn openat(path: &Path, flags: i32, mode: u32) -> io::Result<Fd> {
    Op::new(paths::OpenAt { path: paths::c_path(path)?, flags, mode }).await
}

/// Removes a file's name (unlink(2)).
pub async fn unlink(path: &Path) -> io::Result<()> {
    Op::new(paths::UnlinkAt { path: paths::c_path(path)? }).await
}

/// Renames a file, replacing what is at `to` (rename(2)).
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Op::new(paths::RenameAt { from: paths::c_path(from)?, to: paths::c_path(to)? }).await
}

/// Makes a directory (mkdir(2)).
pub async fn mkdir(path: &Path, mode: u32) -> io::Result<()> {
    Op::new(paths::MkDirAt { path: paths::c_path(path)?, mode }).await
}

/// The attributes in `mask` (`STATX_*` of statx(2)) of an open file.
pub async fn statx(fd: &Fd, mask: u32) -> io::Result<Box<libc::statx>> {
    let answer = Box::new(paths::empty_statx());
    Op::new(paths::Statx { fd: fd.clone(), mask, answer }).await
}

/// Waits until the eventfd's count is not zero, resets it and returns it.
pub async fn read_eventfd(fd: &Fd) -> io::Result<u64> {
    let (result, bytes) = read(fd, vec![0u8; 8]).await;
    let bytes = <[u8; 8]>::try_from(&bytes[..]).unwrap_or_default();
    match result? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Does nothing, by way of the ring (`IORING_OP_NOP`): what the least operation costs.
pub async fn nop() -> io::Result<()> {
    Op::new(codes::Nop).await
}
