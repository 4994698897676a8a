//! One transmit queue: from the driver's buffers to the back end.

use super::VirtioNet;
use crate::net::{FRAME_MAX, HEADER, NetSender};
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::{ChainFault, gather};
use crate::virtio::serve::{QueueWork, Ring};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Segments of a packet: the kernel takes no more a call (`IOV_MAX`).
const SEGMENTS_MAX: usize = 1024;

/// See the module.
pub(super) struct Worker {
    device: Arc<VirtioNet>,
    /// `None`: the device has no back end.
    sender: Option<Box<dyn NetSender>>,
    /// The chain of each slot, and its bytes.
    packets: Box<[(u16, u64)]>,
    /// Idle slots, the last used one on top: its memory is warm.
    free: Vec<usize>,
    aborted: bool,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioNet>, pair: u16, setup: &QueueSetup) -> io::Result<Self> {
        let slots = usize::from(setup.queue.size());
        let segments = usize::from(setup.queue.chain_max()).min(SEGMENTS_MAX);
        let sender = device
            .backend()
            .map(|backend| backend.sender(pair, setup.queue.ram(), slots, segments))
            .transpose()?;
        let packets = vec![(0, 0); slots].into();
        Ok(Self { device, sender, packets, free: (0..slots).rev().collect(), aborted: false })
    }

    /// Every packet is answered, sent or not (section 5.1.6.2).
    fn answer(ring: &mut Ring, head: u16, bytes: u64, sent: bool) -> Result<(), ChainFault> {
        ring.metrics.request(sent);
        if sent {
            ring.metrics.written(bytes);
        }
        ring.queue.push_used(head, 0)
    }
}

impl QueueWork for Worker {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(sender) = &mut self.sender else {
            let head = ring.queue.pop(|chain| chain.head_index())?;
            return match head {
                Some(head) => Self::answer(ring, head, 0, false).map(|()| true),
                None => Ok(false),
            };
        };
        let Some(&slot) = self.free.last() else {
            return ring.queue.pop_none();
        };
        let max = ring.queue.chain_max();
        let mut packet = sender.packet(slot);
        let found = ring.queue.pop(|chain| gather(chain, max, &mut packet))?;
        let Some(found) = found.transpose()? else { return Ok(false) };
        if found.readable < HEADER as u64 {
            return Err(ChainFault::Incomplete);
        }
        let frame = found.readable - HEADER as u64;
        let sound = !found.overflow && frame > 0 && frame <= FRAME_MAX as u64;
        if !sound || !self.device.link_up() {
            return Self::answer(ring, found.head, frame, false).map(|()| true);
        }
        // What a driver adds for writing is not for us.
        packet.truncate(found.readable);
        self.free.pop();
        self.packets[slot] = (found.head, frame);
        sender.submit(slot);
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        let Some(sender) = &mut self.sender else { return };
        while let Poll::Ready(slot) = sender.poll_sent(cx) {
            self.free.push(slot);
            let (head, bytes) = self.packets[slot];
            if let Err(fault) = Self::answer(ring, head, bytes, true) {
                ring.fail(&fault);
            }
        }
    }

    fn poll_paused(&mut self, ring: &mut Ring, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_finished(ring, cx);
        let busy = self.sender.as_ref().is_some_and(|sender| sender.in_flight() > 0);
        if busy { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sender) = &mut self.sender else { return Poll::Ready(()) };
        if !self.aborted {
            self.aborted = true;
            sender.cancel();
        }
        while sender.in_flight() > 0 {
            // The last of what is in flight need not be a slot.
            if sender.poll_sent(cx).is_pending() && sender.in_flight() > 0 {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}
