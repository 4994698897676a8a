//! One queue's requests: from the available ring to the disk, from the disk to the used ring.
//!
//! Nothing here locks, allocates or copies data. Guest memory is read and written through the
//! queue's rings, the request headers and the status bytes; data goes between it and the disk by
//! the kernel's hand.

use super::request::{Action, Parsed, Rules, Status, parse};
use super::{VirtioBlk, config};
use crate::block::{DiskQueue, Done, Request};
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::{ChainFault, gather};
use crate::virtio::serve::{QueueWork, Ring};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use vm_memory::{Bytes, GuestAddress};

/// A request in flight.
#[derive(Clone, Copy)]
struct Entry {
    head: u16,
    status: GuestAddress,
    /// Bytes of the device-writable part without the status.
    room: u64,
    read: u64,
    written: u64,
}

impl Entry {
    const IDLE: Self = Self { head: 0, status: GuestAddress(0), room: 0, read: 0, written: 0 };
}

/// See the module.
pub(super) struct Worker {
    device: Arc<VirtioBlk>,
    disk: Box<dyn DiskQueue>,
    /// What holds for the requests of this batch.
    rules: Rules,
    /// By slot of `disk`.
    entries: Box<[Entry]>,
    /// Idle slots, the last used one on top: its memory is warm.
    free: Vec<usize>,
    aborted: bool,
    flush_known: bool,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioBlk>, setup: &QueueSetup) -> io::Result<Self> {
        let slots = usize::from(setup.queue.size());
        let segments = usize::from(setup.queue.chain_max());
        let disk = device.disk.queue(setup.queue.ram(), slots, segments)?;
        let flush_known = setup.features & config::FLUSH != 0;
        Ok(Self {
            disk,
            rules: rules(&device, flush_known),
            entries: vec![Entry::IDLE; slots].into(),
            free: (0..slots).rev().collect(),
            aborted: false,
            flush_known,
            device,
        })
    }

    fn start(&mut self, ring: &mut Ring, slot: usize, parsed: Parsed) -> Result<(), ChainFault> {
        let Parsed { head, status, room, action } = parsed;
        let mut entry = Entry { head, status, room, ..Entry::IDLE };
        match action {
            Action::Submit(request) => {
                let bytes = self.disk.segments(slot).bytes();
                match request {
                    Request::Read { .. } => entry.read = bytes,
                    Request::Write { .. } => entry.written = bytes,
                    _ => {}
                }
                self.free.pop();
                self.entries[slot] = entry;
                self.disk.submit(slot, request);
                Ok(())
            }
            Action::GetId => {
                self.disk.segments(slot).copy_from(&self.device.id);
                answer(ring, &entry, Status::Ok)
            }
            Action::Refuse(status) => answer(ring, &entry, status),
        }
    }

    fn completed(&mut self, ring: &mut Ring, done: Done) {
        let entry = self.entries[done.slot];
        self.free.push(done.slot);
        let status = if done.result.is_ok() { Status::Ok } else { Status::IoError };
        if let Err(errno) = done.result {
            let error = io::Error::from_raw_os_error(errno);
            tracing::debug!(disk = self.device.disk.name(), %error, "a request failed");
        } else {
            ring.metrics.read(entry.read);
            ring.metrics.written(entry.written);
        }
        if let Err(fault) = answer(ring, &entry, status) {
            ring.fail(&fault);
        }
    }
}

impl QueueWork for Worker {
    fn begin_batch(&mut self) {
        self.rules = rules(&self.device, self.flush_known);
    }

    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(&slot) = self.free.last() else {
            return ring.queue.pop_none();
        };
        let max = ring.queue.chain_max();
        let mut segments = self.disk.segments(slot);
        let parsed = ring.queue.pop(|chain| {
            let found = gather(chain, max, &mut segments)?;
            parse(&found, &mut segments, &self.rules)
        })?;
        let Some(parsed) = parsed else { return Ok(false) };
        self.start(ring, slot, parsed?)?;
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        while let Poll::Ready(done) = self.disk.poll_done(cx) {
            self.completed(ring, done);
        }
    }

    fn poll_paused(&mut self, ring: &mut Ring, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_finished(ring, cx);
        if self.disk.in_flight() > 0 { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.aborted {
            self.aborted = true;
            self.disk.abort();
        }
        while self.disk.in_flight() > 0 {
            match self.disk.poll_done(cx) {
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

fn rules(device: &VirtioBlk, flush_known: bool) -> Rules {
    Rules {
        capacity: device.capacity(),
        read_only: device.limits.info.read_only,
        logical_block: device.limits.logical_block,
        // A driver that cannot flush must not have to (section 5.2.6.2).
        stable: !flush_known || !device.writeback(),
        unmap_sectors_max: config::UNMAP_SECTORS_MAX,
    }
}

/// The status byte first, then the used ring: an entry there says that all else is written.
fn answer(ring: &mut Ring, entry: &Entry, status: Status) -> Result<(), ChainFault> {
    ring.metrics.request(status == Status::Ok);
    let address = entry.status;
    ring.queue
        .ram()
        .write_obj(status as u8, address)
        .map_err(|_| ChainFault::NotRam { address: address.0, len: 1 })?;
    // The count covers what is written from the start of the writable part without a gap
    // (section 2.7.8.2): a read that failed has nothing there to vouch for.
    let whole = status == Status::Ok || entry.room == 0;
    let len = if whole { u32::try_from(entry.room + 1).unwrap_or(u32::MAX) } else { 0 };
    ring.queue.push_used(entry.head, len)
}
