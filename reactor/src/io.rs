//! File and socket operations through the ring of the current context.
//!
//! Every function is called from a task, never blocks its thread, and may be dropped at any
//! `.await`: the operation is cancelled then, and its buffer lives until the kernel has let go.
//! Buffers are passed by value and come back with the result, also on an error. An operation must
//! end, or be dropped, before its task hops.

use crate::fd::Fd;
use crate::op::Op;
pub use crate::op::buf::{IoBuf, IoBufMut, Tail};
use crate::op::codes;
use std::ffi::CString;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The offset that means "the current position": streams, pipes, eventfds.
const CURRENT: u64 = u64::MAX;

/// Reads up to `buffer.len()` bytes from a stream or the current position. 0 at its end.
pub async fn read<B: IoBufMut>(fd: &Fd, buffer: B) -> (io::Result<usize>, B) {
    read_at(fd, buffer, CURRENT).await
}

/// Writes up to `buffer.len()` bytes to a stream or at the current position.
pub async fn write<B: IoBuf>(fd: &Fd, buffer: B) -> (io::Result<usize>, B) {
    write_at(fd, buffer, CURRENT).await
}

/// Reads up to `buffer.len()` bytes at `offset`. A short count is no error.
pub async fn read_at<B: IoBufMut>(fd: &Fd, buffer: B, offset: u64) -> (io::Result<usize>, B) {
    Op::new(codes::Read { fd: fd.clone(), buffer, offset }).await
}

/// Writes up to `buffer.len()` bytes at `offset`. A short count is no error.
pub async fn write_at<B: IoBuf>(fd: &Fd, buffer: B, offset: u64) -> (io::Result<usize>, B) {
    Op::new(codes::Write { fd: fd.clone(), buffer, offset }).await
}

/// Reads into several buffers at `offset`.
pub async fn readv_at<B: IoBufMut>(
    fd: &Fd,
    buffers: Vec<B>,
    offset: u64,
) -> (io::Result<usize>, Vec<B>) {
    Op::new(codes::Vectored::read(fd.clone(), buffers, offset)).await
}

/// Writes several buffers at `offset`.
pub async fn writev_at<B: IoBuf>(
    fd: &Fd,
    buffers: Vec<B>,
    offset: u64,
) -> (io::Result<usize>, Vec<B>) {
    Op::new(codes::Vectored::write(fd.clone(), buffers, offset)).await
}

/// Writes the whole buffer to a stream, going on after short counts and EINTR.
pub async fn write_all<B: IoBuf>(fd: &Fd, buffer: B) -> (io::Result<()>, B) {
    write_all_from(fd, buffer, None).await
}

/// Writes the whole buffer at `offset`, going on after short counts and EINTR.
pub async fn write_all_at<B: IoBuf>(fd: &Fd, buffer: B, offset: u64) -> (io::Result<()>, B) {
    write_all_from(fd, buffer, Some(offset)).await
}

async fn write_all_from<B: IoBuf>(
    fd: &Fd,
    mut buffer: B,
    offset: Option<u64>,
) -> (io::Result<()>, B) {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset.map_or(CURRENT, |offset| offset + done as u64);
        let (result, tail) = write_at(fd, Tail::new(buffer, done), at).await;
        buffer = tail.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

/// Fills the whole buffer from `offset`, going on after short counts and EINTR.
/// `UnexpectedEof` where the file ends before.
pub async fn read_exact_at<B: IoBufMut>(
    fd: &Fd,
    mut buffer: B,
    offset: u64,
) -> (io::Result<()>, B) {
    let mut done = 0;
    while done < buffer.len() {
        let (result, tail) = read_at(fd, Tail::new(buffer, done), offset + done as u64).await;
        buffer = tail.into_inner();
        match result {
            Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buffer),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
}

/// Receives up to `buffer.len()` bytes from a socket. 0 when the peer has closed.
pub async fn recv<B: IoBufMut>(fd: &Fd, buffer: B) -> (io::Result<usize>, B) {
    Op::new(codes::Recv { fd: fd.clone(), buffer }).await
}

/// Sends up to `buffer.len()` bytes; a closed peer is `BrokenPipe`, never a signal.
pub async fn send<B: IoBuf>(fd: &Fd, buffer: B) -> (io::Result<usize>, B) {
    Op::new(codes::Send { fd: fd.clone(), buffer }).await
}

/// Sends the whole buffer, going on after short counts and EINTR.
pub async fn send_all<B: IoBuf>(fd: &Fd, mut buffer: B) -> (io::Result<()>, B) {
    let mut done = 0;
    while done < buffer.len() {
        let (result, tail) = send(fd, Tail::new(buffer, done)).await;
        buffer = tail.into_inner();
        match result {
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer),
        }
    }
    (Ok(()), buffer)
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

/// Waits for one of `events` (`POLLIN` and so on of poll(2)); returns those that are there.
pub async fn poll(fd: &Fd, events: u32) -> io::Result<u32> {
    Op::new(codes::PollFd { fd: fd.clone(), events }).await
}

/// Accepts a connection on a listening socket.
pub async fn accept(fd: &Fd) -> io::Result<Fd> {
    Op::new(codes::Accept { fd: fd.clone() }).await
}

/// Closes a descriptor when this is its last clone; with other clones alive it only drops this one.
pub async fn close(fd: Fd) -> io::Result<()> {
    match fd.into_owned() {
        Ok(owned) => Op::new(codes::Close { fd: owned.into_raw_fd() }).await,
        Err(_shared) => Ok(()),
    }
}

/// Opens `path` with the `O_*` flags of open(2); new files get `mode`.
pub async fn openat(path: &Path, flags: i32, mode: u32) -> io::Result<Fd> {
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path has a NUL byte"))?;
    Op::new(codes::OpenAt { path, flags, mode }).await
}

/// The attributes in `mask` (`STATX_*` of statx(2)) of an open file.
pub async fn statx(fd: &Fd, mask: u32) -> io::Result<Box<libc::statx>> {
    Op::new(codes::Statx { fd: fd.clone(), mask, answer: Box::new(codes::empty_statx()) }).await
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
