//! A tap interface of the kernel's.

mod receive;
mod send;
pub(super) mod sys;

use super::dgram::FrameReceiver;
use super::error::NetError;
use super::options::TapOptions;
use super::table::{Made, NetReactors};
use super::{HEADER, NetBackend, NetReceiver, NetSender, Offloads};
use crate::block::SegmentTable;
use crate::signal::{Signal, Watch};
use crate::virtio::Ram;
use reactor::Fd;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const QUEUES_MAX: u16 = 128;

/// The control handle.
struct Tap {
    /// One for each queue pair; none once closed.
    queues: Mutex<Vec<Fd>>,
    pairs: u16,
    active: AtomicU16,
    virtio_header: bool,
    closed: Arc<Signal>,
    info: String,
}

/// Makes the back end of `options`.
pub(super) fn open(options: &TapOptions, reactors: &NetReactors<'_>) -> Result<Made, NetError> {
    let (queues, info) =
        if options.fds.is_empty() { by_name(options)? } else { by_descriptor(options, reactors)? };
    let pairs = queues.len() as u16;
    let has_header = sys::has_virtio_header(&queues[0]).map_err(|error| {
        let number = std::os::fd::AsRawFd::as_raw_fd(&queues[0]);
        NetError::system(format!("Unable to query TUNGETIFF on FD {number}"), error)
    })?;
    let virtio_header = match options.virtio_header {
        Some(wanted) if wanted && !has_header => {
            let text = "vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available";
            return Err(NetError::Options(text.to_owned()));
        }
        _ => has_header,
    };
    for queue in &queues {
        let set = || {
            if virtio_header {
                sys::set_header_size(queue, HEADER)?;
                sys::set_offloads(queue, Offloads::default())?;
            }
            sys::set_sndbuf(queue, options.sndbuf.unwrap_or(u64::MAX))
        };
        set().map_err(|error| NetError::system("the tap interface cannot be set up", error))?;
    }
    let tap = Tap {
        queues: Mutex::new(queues),
        pairs,
        active: AtomicU16::new(pairs),
        virtio_header,
        closed: Arc::default(),
        info,
    };
    tap.set_active_pairs(1);
    Ok(Arc::new(tap))
}

fn by_name(options: &TapOptions) -> Result<(Vec<Fd>, String), NetError> {
    let count = options.queues.unwrap_or(1);
    if !(1..=QUEUES_MAX).contains(&count) {
        return Err(NetError::Options(format!(
            "queues={count} is out of range; use 1 to {QUEUES_MAX}"
        )));
    }
    let mut name = options.ifname.clone().unwrap_or_else(|| "tap%d".to_owned());
    let header = options.virtio_header.unwrap_or(true);
    let mut queues = Vec::new();
    for _ in 0..count {
        let what = format!("could not configure /dev/net/tun ({name})");
        let (fd, found) =
            sys::open(&name, header, count > 1).map_err(|error| NetError::system(what, error))?;
        name = found;
        queues.push(fd);
    }
    Ok((queues, format!("ifname={name},script=no,downscript=no")))
}

fn by_descriptor(
    options: &TapOptions,
    reactors: &NetReactors<'_>,
) -> Result<(Vec<Fd>, String), NetError> {
    let mut queues = Vec::new();
    for name in &options.fds {
        let fd = (reactors.descriptor)(name).map_err(NetError::Options)?;
        sys::set_blocking(&fd).map_err(|error| NetError::system(format!("fd={name}"), error))?;
        queues.push(fd);
    }
    Ok((queues, format!("fd={}", options.fds.join(":"))))
}

impl Tap {
    fn lock(&self) -> MutexGuard<'_, Vec<Fd>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, pair: u16) -> Option<Fd> {
        self.lock().get(usize::from(pair)).cloned()
    }
}

impl NetBackend for Tap {
    fn virtio_header(&self) -> bool {
        self.virtio_header
    }

    fn pairs(&self) -> u16 {
        self.pairs
    }

    fn receiver(
        &self,
        pair: u16,
        ram: &Arc<Ram>,
        segments: usize,
    ) -> io::Result<Box<dyn NetReceiver>> {
        let closed = Watch::new(&self.closed);
        let queue = self.queue(pair);
        if self.virtio_header {
            Ok(Box::new(receive::Receiver::new(queue, closed, ram, segments)))
        } else {
            Ok(Box::new(FrameReceiver::new(queue, closed, ram, segments)))
        }
    }

    fn sender(
        &self,
        pair: u16,
        ram: &Arc<Ram>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn NetSender>> {
        let table = SegmentTable::new(Arc::clone(ram), slots, segments);
        let closed = Watch::new(&self.closed);
        let skip = if self.virtio_header { 0 } else { HEADER as u64 };
        Ok(Box::new(send::Sender::new(self.queue(pair), skip, closed, table, slots)))
    }

    fn set_offloads(&self, offloads: Offloads) {
        if !self.virtio_header {
            return;
        }
        for queue in self.lock().iter() {
            if let Err(error) = sys::set_offloads(queue, offloads) {
                tracing::warn!(%error, "the offloads of a tap interface cannot be changed");
            }
        }
    }

    fn set_active_pairs(&self, pairs: u16) {
        let queues = self.lock();
        let before = self.active.swap(pairs, Ordering::AcqRel);
        let (low, high) = (before.min(pairs), before.max(pairs));
        for index in low..high {
            let Some(queue) = queues.get(usize::from(index)) else { return };
            if let Err(error) = sys::attach_queue(queue, pairs > before) {
                tracing::warn!(%error, index, "a queue of a tap interface cannot be switched");
            }
        }
    }

    fn info(&self) -> String {
        self.info.clone()
    }

    fn close(&self) {
        self.lock().clear();
        self.closed.changed();
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close();
    }
}
