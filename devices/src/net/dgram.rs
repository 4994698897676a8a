//! Ethernet over a datagram socket, one frame each.

use super::buffer::BufferOp;
use super::error::NetError;
use super::options::{DgramOptions, SocketAddress};
use super::table::{Made, NetReactors};
use super::{FRAME_MAX, HEADER, NetBackend, NetReceiver, NetSender};
use crate::block::{SegmentTable, Segments};
use crate::signal::{Signal, Watch};
use crate::virtio::Ram;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, bind, setsockopt,
    socket, sockopt,
};
use reactor::{Fd, OpGroup, Target};
use std::any::Any;
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// The control handle.
struct Dgram {
    /// `None` once closed.
    socket: Mutex<Option<Fd>>,
    remote: Option<SockaddrStorage>,
    closed: Arc<Signal>,
    info: String,
    /// The file of a UNIX socket, to be removed at the end.
    path: Option<PathBuf>,
}

/// Makes the back end of `options`.
pub(super) fn open(
    kind: &'static str,
    options: DgramOptions,
    reactors: &NetReactors<'_>,
) -> Result<Made, NetError> {
    let DgramOptions { local, remote } = options;
    let missing = |text: &str| NetError::Options(text.to_owned());
    let (local, remote) = match (local, remote) {
        (Some(SocketAddress::Fd(_)), Some(_)) => {
            return Err(missing("don't set remote with local.fd"));
        }
        (Some(SocketAddress::Fd(fd)), None) => {
            let fd = (reactors.descriptor)(&fd).map_err(NetError::Options)?;
            return Ok(from_fd(fd));
        }
        (None, _) => return Err(missing("dgram requires local= parameter")),
        (Some(_), None) => return Err(missing("type=inet or type=unix requires remote parameter")),
        (Some(local), Some(remote)) => (local, remote),
    };
    if std::mem::discriminant(&local) != std::mem::discriminant(&remote) {
        return Err(missing("remote and local types must be the same"));
    }
    let (here, there) = (kernel_address(&local)?, kernel_address(&remote)?);
    let family = here.family().unwrap_or(AddressFamily::Unix);
    let bound = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .and_then(|fd| {
            if family != AddressFamily::Unix {
                setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            }
            bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &here).map(|()| fd)
        })
        .map_err(|errno| {
            let what = match &local {
                SocketAddress::Inet(_) => format!("can't bind ip={} to socket", host(&here)),
                SocketAddress::Unix(_) | SocketAddress::Fd(_) => {
                    format!("can't bind unix={} to socket", text(&local))
                }
            };
            NetError::system(what, errno.into())
        })?;
    let path = if let SocketAddress::Unix(path) = &local { Some(path.clone()) } else { None };
    let between = if path.is_some() { ':' } else { '/' };
    let info = if kind == "socket" {
        format!("socket: udp={}", text(&remote))
    } else {
        format!("udp={}{between}{}", text(&local), text(&remote))
    };
    Ok(Arc::new(Dgram {
        socket: Mutex::new(Some(Fd::from(bound))),
        remote: Some(there),
        info,
        path,
        closed: Arc::default(),
    }))
}

/// A back end on a connected socket.
pub(super) fn from_fd(fd: Fd) -> Made {
    let info = format!("fd={} (connected)", std::os::fd::AsRawFd::as_raw_fd(&fd));
    Arc::new(Dgram {
        socket: Mutex::new(Some(fd)),
        remote: None,
        info,
        path: None,
        closed: Arc::default(),
    })
}

fn kernel_address(address: &SocketAddress) -> Result<SockaddrStorage, NetError> {
    let wrong =
        || NetError::Options(format!("{} is no address of a datagram socket", text(address)));
    match address {
        SocketAddress::Unix(path) => {
            let address = UnixAddr::new(path)
                .map_err(|errno| NetError::system(path.display().to_string(), errno.into()))?;
            // SAFETY: pointer and length are those of a whole address, which lives on.
            unsafe { SockaddrStorage::from_raw(address.as_ptr().cast(), Some(address.len())) }
                .ok_or_else(wrong)
        }
        SocketAddress::Inet(inet) => inet.resolve().map(SockaddrStorage::from).ok_or_else(|| {
            NetError::Options(format!("can't resolve host address '{}'", inet.host))
        }),
        SocketAddress::Fd(_) => Err(wrong()),
    }
}

fn host(address: &SockaddrStorage) -> String {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().to_string());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().to_string())).unwrap_or_default()
}

fn text(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Unix(path) => path.display().to_string(),
        SocketAddress::Inet(inet) => format!("{}:{}", inet.host, inet.port),
        SocketAddress::Fd(fd) => format!("fd {fd}"),
    }
}

impl Dgram {
    fn socket(&self) -> Option<Fd> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl NetBackend for Dgram {
    fn receiver(
        &self,
        _: u16,
        ram: &Arc<Ram>,
        segments: usize,
    ) -> io::Result<Box<dyn NetReceiver>> {
        let closed = Watch::new(&self.closed);
        Ok(Box::new(FrameReceiver::new(self.socket(), closed, ram, segments)))
    }

    fn sender(
        &self,
        _: u16,
        ram: &Arc<Ram>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn NetSender>> {
        let table = SegmentTable::new(Arc::clone(ram), slots, segments);
        let closed = Watch::new(&self.closed);
        Ok(Box::new(Sender::new(self.socket(), self.remote, closed, table)))
    }

    fn info(&self) -> String {
        self.info.clone()
    }

    fn close(&self) {
        drop(self.socket.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.closed.changed();
        if let Some(path) = &self.path {
            // Somebody else may have removed it, or put another one there; that is theirs then.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Dgram {
    fn drop(&mut self) {
        self.close();
    }
}

/// Receives what comes frame by frame, without a virtio header, by way of a buffer.
pub(super) struct FrameReceiver {
    op: BufferOp,
    table: SegmentTable,
    closed: Watch,
    gone: bool,
}

impl FrameReceiver {
    /// Receives from `fd` until `closed` changes.
    pub(super) fn new(fd: Option<Fd>, closed: Watch, ram: &Arc<Ram>, segments: usize) -> Self {
        let mut op = BufferOp::new(vec![0; FRAME_MAX + 1].into());
        op.attach(fd);
        let table = SegmentTable::new(Arc::clone(ram), 1, segments);
        Self { op, table, closed, gone: false }
    }
}

impl NetReceiver for FrameReceiver {
    fn buffers(&mut self) -> Segments<'_> {
        self.table.slot(0)
    }

    fn start(&mut self) {
        self.op.read(0..FRAME_MAX + 1);
    }

    fn receiving(&self) -> bool {
        self.op.in_flight()
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.gone |= self.closed.look(cx);
        if self.gone {
            self.op.cancel();
        }
        let Poll::Ready(result) = self.op.poll(cx) else { return Poll::Pending };
        if self.gone {
            self.op.attach(None);
            return Poll::Ready(None);
        }
        if let Err(error) = &result
            && !super::passes_by(error)
        {
            tracing::warn!(%error, "a network back end brings no more frames");
            self.op.attach(None);
            return Poll::Ready(None);
        }
        let n = result.unwrap_or(0);
        if n == 0 || n > FRAME_MAX {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(deliver(&mut self.table.slot(0), &self.op.bytes()[..n])))
    }

    fn cancel(&mut self) {
        self.op.cancel();
    }
}

/// Puts a frame and an empty header into `buffers`, as far as there is room; returns their length.
pub(super) fn deliver(buffers: &mut Segments<'_>, frame: &[u8]) -> u64 {
    buffers.copy_from(&[0; HEADER]);
    buffers.write_at(HEADER as u64, frame);
    (HEADER + frame.len()) as u64
}

/// The address and the message header, at addresses that stay.
struct Message {
    remote: Option<SockaddrStorage>,
    header: UnsafeCell<libc::msghdr>,
}

struct Socket {
    fd: Fd,
    group: OpGroup,
    message: Rc<Message>,
}

/// Sends one frame at a time, so that none overtakes another.
struct Sender {
    socket: Option<Socket>,
    table: SegmentTable,
    waiting: VecDeque<usize>,
    sending: Option<usize>,
    sent: VecDeque<usize>,
    closed: Watch,
    gone: bool,
    cancelled: bool,
}

impl Sender {
    fn new(
        fd: Option<Fd>,
        remote: Option<SockaddrStorage>,
        closed: Watch,
        table: SegmentTable,
    ) -> Self {
        let socket = fd.map(|fd| {
            let fd = fd.register().unwrap_or(fd);
            // SAFETY: `msghdr` consists of pointers and integers, for which zero is a value.
            let header = UnsafeCell::new(unsafe { std::mem::zeroed() });
            let message = Rc::new(Message { remote, header });
            let group = OpGroup::new(1, table.keep());
            group.keep(Rc::clone(&message) as Rc<dyn Any>);
            group.keep(Rc::new(fd.clone()));
            Socket { fd, group, message }
        });
        let (waiting, sent) = (VecDeque::new(), VecDeque::new());
        Self { socket, table, waiting, sending: None, sent, closed, gone: false, cancelled: false }
    }

    /// Sends the next frame, if none is on its way.
    fn next(&mut self) {
        if self.sending.is_some() {
            return;
        }
        let Some(slot) = self.waiting.pop_front() else { return };
        let (Some(socket), false) = (&self.socket, self.cancelled) else {
            self.sent.push_back(slot);
            return self.next();
        };
        let mut frame = self.table.slot(slot);
        frame.advance(HEADER as u64);
        let (iovecs, n) = frame.as_iovecs();
        let message = socket.message.header.get();
        // SAFETY: nothing is in flight, so nobody else looks at the header.
        unsafe {
            (*message).msg_iov = iovecs.cast_mut();
            (*message).msg_iovlen = n as _;
            if let Some(remote) = &socket.message.remote {
                (*message).msg_name = remote.as_ptr().cast_mut().cast();
                (*message).msg_namelen = remote.len();
            }
        }
        self.sending = Some(slot);
        // SAFETY: header and address are in `message`, the iovecs and what they name in the table's
        // storage; the group keeps both, and the slot is not idle before the completion.
        unsafe { socket.group.sendmsg(Target::Fd(&socket.fd), message, 0) };
    }
}

impl NetSender for Sender {
    fn packet(&mut self, slot: usize) -> Segments<'_> {
        self.table.slot(slot)
    }

    fn submit(&mut self, slot: usize) {
        self.waiting.push_back(slot);
        self.next();
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.gone |= self.closed.look(cx);
        if self.gone && !self.cancelled {
            self.cancel();
        }
        loop {
            if let Some(slot) = self.sent.pop_front() {
                return Poll::Ready(slot);
            }
            let (Some(slot), Some(socket)) = (self.sending, &self.socket) else {
                return Poll::Pending;
            };
            // Nobody listens, or the frame is too long: it is lost.
            let Poll::Ready(_) = socket.group.poll_next(cx) else { return Poll::Pending };
            self.sending = None;
            self.sent.push_back(slot);
            if self.gone {
                self.socket = None;
            }
            self.next();
        }
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.sent.len() + usize::from(self.sending.is_some())
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        if let (Some(_), Some(socket)) = (self.sending, &self.socket) {
            socket.group.cancel_all();
        }
        if self.sending.is_none() {
            self.next();
        }
    }
}
