//! Ethernet over a stream socket: before each frame its length, 4 bytes in network byte order.
//!
//! One task makes or accepts connections, one at a time; the data handles use the one that is
//! there. While there is none, nothing is received and what is sent is lost.

mod connect;
mod frames;
mod receive;
mod send;

use super::error::NetError;
use super::options::{SocketAddress, StreamOptions};
use super::table::{Made, NetEventSink, NetReactors};
use super::{NetBackend, NetReceiver, NetSender};
use crate::block::SegmentTable;
use crate::signal::{Signal, Watch};
use crate::virtio::Ram;
use frames::Decoder;
use reactor::{CancelOnDrop, Fd};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the control handle, its task and the data handles share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The connection, or being closed, has changed.
    changed: Arc<Signal>,
    /// For the task: the connection has ended.
    ended: reactor::sync::Notify,
}

#[derive(Default)]
struct State {
    connection: Option<Fd>,
    /// Counts connections.
    number: u64,
    info: String,
    closed: bool,
    /// What the receiver of connection `.0` had read and not delivered when it was dropped.
    received: Option<(u64, Decoder)>,
    /// What the sender of connection `.0` had taken and not sent when it was dropped.
    unsent: Option<(u64, Vec<u8>)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection and its number.
    fn connection(&self) -> (u64, Option<Fd>) {
        let state = self.lock();
        (state.number, state.connection.clone())
    }

    /// There is a connection, or none any more; returns its number.
    fn set_connection(&self, connection: Option<Fd>, info: String) -> u64 {
        let number = {
            let mut state = self.lock();
            if state.closed {
                return state.number;
            }
            state.number += 1;
            (state.connection, state.info) = (connection, info);
            state.number
        };
        self.changed.changed();
        number
    }

    /// A data handle has found connection `number` to have ended.
    fn lost(&self, number: u64) {
        let current = {
            let mut state = self.lock();
            let current = state.number == number && state.connection.take().is_some();
            state.number += u64::from(current);
            current
        };
        if current {
            self.changed.changed();
            self.ended.notify_one();
        }
    }
}

/// The control handle.
struct Stream {
    shared: Arc<Shared>,
    /// Makes connections.
    task: Mutex<Option<CancelOnDrop<()>>>,
}

/// Makes the back end of `options`.
pub(super) fn open(
    id: &str,
    kind: &'static str,
    options: StreamOptions,
    reactors: &NetReactors<'_>,
) -> Result<Made, NetError> {
    if let SocketAddress::Fd(name) = &options.address
        && !options.server
    {
        let fd = (reactors.descriptor)(name).map_err(NetError::Options)?;
        return on_socket(fd);
    }
    let shared = Arc::<Shared>::default();
    // Only `stream` tells of connections, as in QEMU.
    let events: NetEventSink =
        if kind == "stream" { Arc::clone(&reactors.events) } else { Arc::new(|_| {}) };
    let task = connect::start((id, kind), options, Arc::clone(&shared), reactors, events)?;
    Ok(Arc::new(Stream { shared, task: Mutex::new(Some(CancelOnDrop::new(task))) }))
}

/// A back end on a socket that is connected, of whatever type. Its `O_NONBLOCK` is cleared.
pub fn on_socket(fd: Fd) -> Result<Made, NetError> {
    use nix::sys::socket::{SockType, getsockopt, sockopt};
    let what = || "can't get socket option SO_TYPE".to_owned();
    let kind = getsockopt(&fd, sockopt::SockType)
        .map_err(|errno| NetError::system(what(), errno.into()))?;
    super::tap::sys::set_blocking(&fd).map_err(|error| NetError::system(what(), error))?;
    if kind == SockType::Datagram {
        return Ok(super::dgram::from_fd(fd));
    }
    Ok(from_connection(fd))
}

/// A back end on a connected stream socket.
fn from_connection(fd: Fd) -> Made {
    let shared = Arc::<Shared>::default();
    let info = format!("fd={}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    shared.set_connection(Some(fd), info);
    Arc::new(Stream { shared, task: Mutex::new(None) })
}

impl NetBackend for Stream {
    fn receiver(
        &self,
        _: u16,
        ram: &Arc<Ram>,
        segments: usize,
    ) -> io::Result<Box<dyn NetReceiver>> {
        let watch = Watch::new(&self.shared.changed);
        let table = SegmentTable::new(Arc::clone(ram), 1, segments);
        Ok(Box::new(receive::Receiver::new(Arc::clone(&self.shared), watch, table)))
    }

    fn sender(
        &self,
        _: u16,
        ram: &Arc<Ram>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn NetSender>> {
        let watch = Watch::new(&self.shared.changed);
        let table = SegmentTable::new(Arc::clone(ram), slots, segments);
        Ok(Box::new(send::Sender::new(Arc::clone(&self.shared), watch, table)))
    }

    fn info(&self) -> String {
        self.shared.lock().info.clone()
    }

    fn close(&self) {
        drop(self.task.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.set_connection(None, String::new());
        let mut state = self.shared.lock();
        (state.closed, state.received, state.unsent) = (true, None, None);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}
