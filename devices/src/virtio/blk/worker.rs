//! One queue's task: doorbell, requests, completions, used ring, one interrupt.
//!
//! Nothing here locks, allocates or copies data. Guest memory is read and written through the
//! queue's rings, the request headers and the status bytes; data goes between it and the disk by
//! the kernel's hand.

use super::request::{Action, Parsed, Rules, Status, parse};
use super::{VirtioBlk, config};
use crate::block::{DiskQueue, Done, Request};
use crate::virtio::device::{QueueSetup, Stop};
use crate::virtio::interrupt::{Fault, QueueInterrupt};
use crate::virtio::metrics::QueueMetrics;
use crate::virtio::queue::{ChainFault, Virtqueue, gather};
use reactor::{Fd, OpGroup};
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use vm_memory::{Bytes, GuestAddress};

/// The only operation of the worker's own group.
const DOORBELL: u64 = 0;

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
    queue: Virtqueue,
    disk: Box<dyn DiskQueue>,
    /// By slot of `disk`.
    entries: Box<[Entry]>,
    /// Idle slots, the last used one on top: its memory is warm.
    free: Vec<usize>,
    doorbell: Fd,
    events: OpGroup,
    listening: bool,
    stop: Stop,
    aborted: bool,
    flush_known: bool,
    interrupt: QueueInterrupt,
    fault: Fault,
    metrics: Arc<QueueMetrics>,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioBlk>, mut setup: QueueSetup) -> io::Result<Self> {
        // Requests may be there already: the first poll looks.
        setup.queue.enable_notification().map_err(io::Error::other)?;
        let events = OpGroup::new(1, Rc::new(setup.doorbell.clone()));
        events.wait_eventfd(setup.doorbell.as_raw_fd(), DOORBELL);
        let slots = usize::from(setup.queue.size());
        let segments = usize::from(setup.queue.chain_max());
        let disk = device.disk.queue(setup.queue.ram(), slots, segments)?;
        let metrics = Arc::clone(&device.metrics[usize::from(setup.index)]);
        Ok(Self {
            disk,
            entries: vec![Entry::IDLE; slots].into(),
            free: (0..slots).rev().collect(),
            events,
            listening: true,
            doorbell: setup.doorbell,
            queue: setup.queue,
            stop: setup.stop,
            aborted: false,
            flush_known: setup.features & config::FLUSH != 0,
            interrupt: setup.interrupt,
            fault: setup.fault,
            metrics,
            device,
        })
    }

    /// Does all there is to do; ready when the queue has been stopped and nothing is in flight.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The driver may add requests as fast as they are taken: after a queue full of them, it
        // is the turn of others.
        let mut budget = usize::from(self.queue.size());
        self.poll_doorbell(cx);
        if self.stop.requested() {
            return self.poll_stopped(cx);
        }
        loop {
            while let Poll::Ready(done) = self.disk.poll_done(cx) {
                self.completed(done);
            }
            let taken = self.take_requests(budget);
            budget -= taken;
            if budget == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            // What was just taken may be finished already.
            if taken == 0 {
                break;
            }
        }
        self.notify();
        Poll::Pending
    }

    /// Counts the doorbells heard and goes on listening.
    fn poll_doorbell(&mut self, cx: &mut Context<'_>) {
        while self.listening
            && let Poll::Ready(completion) = self.events.poll_next(cx)
        {
            match completion.into_result() {
                Ok(_) => self.metrics.doorbell(),
                Err(error) => tracing::debug!(%error, "listening for a doorbell"),
            }
            self.listening = !self.stop.requested();
            if self.listening {
                self.events.wait_eventfd(self.doorbell.as_raw_fd(), DOORBELL);
            }
        }
    }

    /// The device is being reset: nothing more is taken, and nothing reported.
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
        // Whoever asks for a stop rings afterwards. Listening on would take a ring from the task
        // that serves the queue next.
        if self.listening { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes up to `budget` requests from the available ring; returns how many.
    fn take_requests(&mut self, budget: usize) -> usize {
        if self.fault.raised() {
            return 0;
        }
        let mut taken = 0;
        if let Err(fault) = self.try_take(budget, &mut taken) {
            self.fault.raise(&fault);
        }
        if taken > 0 {
            self.metrics.batch();
        }
        taken
    }

    fn try_take(&mut self, budget: usize, taken: &mut usize) -> Result<(), ChainFault> {
        let rules = self.rules();
        loop {
            let before = *taken;
            while *taken < budget && self.take_one(&rules)? {
                if *taken == 0 {
                    self.queue.disable_notification()?;
                }
                *taken += 1;
            }
            // With the budget used up the task comes back by itself, and asks then.
            if *taken == budget || *taken == before || !self.queue.enable_notification()? {
                return Ok(());
            }
        }
    }

    /// What holds for the requests of this batch.
    fn rules(&self) -> Rules {
        let device = &*self.device;
        Rules {
            capacity: device.capacity(),
            read_only: device.limits.info.read_only,
            logical_block: device.limits.logical_block,
            // A driver that cannot flush must not have to (section 5.2.6.2).
            stable: !self.flush_known || !device.writeback(),
            unmap_sectors_max: config::UNMAP_SECTORS_MAX,
        }
    }

    /// Takes one request and starts it; false when there is none.
    fn take_one(&mut self, rules: &Rules) -> Result<bool, ChainFault> {
        let Some(&slot) = self.free.last() else {
            return match self.queue.pop(|_| ())? {
                Some(()) => Err(ChainFault::TooMany),
                None => Ok(false),
            };
        };
        let max = self.queue.chain_max();
        let mut segments = self.disk.segments(slot);
        let parsed = self.queue.pop(|chain| {
            let found = gather(chain, max, &mut segments)?;
            parse(&found, &mut segments, rules)
        })?;
        let Some(parsed) = parsed else { return Ok(false) };
        self.start(slot, parsed?)?;
        Ok(true)
    }

    fn start(&mut self, slot: usize, parsed: Parsed) -> Result<(), ChainFault> {
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
                self.answer(&entry, Status::Ok)
            }
            Action::Refuse(status) => self.answer(&entry, status),
        }
    }

    fn completed(&mut self, done: Done) {
        let entry = self.entries[done.slot];
        self.free.push(done.slot);
        let status = if done.result.is_ok() { Status::Ok } else { Status::IoError };
        if let Err(errno) = done.result {
            let error = io::Error::from_raw_os_error(errno);
            tracing::debug!(disk = self.device.disk.name(), %error, "a request failed");
        } else {
            self.metrics.read(entry.read);
            self.metrics.written(entry.written);
        }
        if let Err(fault) = self.answer(&entry, status) {
            self.fault.raise(&fault);
        }
    }

    /// The status byte first, then the used ring: an entry there says that all else is written.
    fn answer(&mut self, entry: &Entry, status: Status) -> Result<(), ChainFault> {
        self.metrics.request(status == Status::Ok);
        let address = entry.status;
        self.queue
            .ram()
            .write_obj(status as u8, address)
            .map_err(|_| ChainFault::NotRam { address: address.0, len: 1 })?;
        // The count covers what is written from the start of the writable part without a gap
        // (section 2.7.8.2): a read that failed has nothing there to vouch for.
        let whole = status == Status::Ok || entry.room == 0;
        let len = if whole { u32::try_from(entry.room + 1).unwrap_or(u32::MAX) } else { 0 };
        self.queue.push_used(entry.head, len)
    }

    /// One interrupt for all that has been answered, if the driver wants it.
    fn notify(&mut self) {
        if let Some(wanted) = self.queue.announce() {
            self.metrics.notified(wanted);
            if wanted {
                self.interrupt.raise();
            }
        }
    }
}
