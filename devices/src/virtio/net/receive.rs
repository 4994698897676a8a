//! One receive queue: from the back end into the driver's buffers.
//!
//! The buffers of the next packet are a window on the available ring: one chain, or with
//! MRG_RXBUF as many as the largest packet may need. A packet takes chains from the front of the
//! window and leaves the others where they are.

use super::filter::HEAD;
use super::{VirtioNet, config};
use crate::net::{FRAME_MAX, HEADER, NetReceiver};
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::{ChainFault, gather_more};
use crate::virtio::serve::{QueueWork, Ring};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Segments of a window: the kernel takes 1024 a call (`IOV_MAX`), and a back end adds one.
const SEGMENTS_MAX: usize = 1023;
/// Where `num_buffers` is in the header.
const NUM_BUFFERS: u64 = 10;

/// A chain in the window.
#[derive(Clone, Copy)]
struct Chain {
    head: u16,
    len: u64,
}

/// See the module.
pub(super) struct Worker {
    device: Arc<VirtioNet>,
    /// `None`: the device has no back end.
    receiver: Option<Box<dyn NetReceiver>>,
    window: VecDeque<Chain>,
    /// Bytes of the window.
    bytes: u64,
    /// Bytes that the window shall have.
    wanted: u64,
    mergeable: bool,
    /// The next chain has more segments than there is room for.
    full: bool,
    /// Receiving was cancelled to make the window larger.
    cancelling: bool,
    aborted: bool,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioNet>, pair: u16, setup: &QueueSetup) -> io::Result<Self> {
        let receiver = device
            .backend()
            .map(|backend| backend.receiver(pair, setup.queue.ram(), SEGMENTS_MAX))
            .transpose()?;
        let mergeable = setup.features & config::MRG_RXBUF != 0;
        Ok(Self {
            device,
            receiver,
            window: VecDeque::new(),
            bytes: 0,
            wanted: if mergeable { (HEADER + FRAME_MAX) as u64 } else { 1 },
            mergeable,
            full: false,
            cancelling: false,
            aborted: false,
        })
    }

    /// Whether a packet can be received into the window now.
    fn ready(&self, ring: &mut Ring) -> Result<bool, ChainFault> {
        if self.window.is_empty() {
            return Ok(false);
        }
        Ok(self.bytes >= self.wanted || self.full || !waiting(ring)?)
    }

    /// A packet of `len` bytes, header included, is in the window.
    fn received(&mut self, ring: &mut Ring, len: u64) -> Result<(), ChainFault> {
        let Some(chains) = self.chains_for(len).filter(|_| self.device.link_up()) else {
            return Ok(());
        };
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        let mut buffers = receiver.buffers();
        let mut head = [0; HEAD];
        let known = buffers.read_at(HEADER as u64, &mut head).min(len as usize - HEADER);
        head[known..].fill(0);
        if !self.device.filter.read(&rcu::read()).passes(&head) {
            return Ok(());
        }
        buffers.write_at(NUM_BUFFERS, &(chains as u16).to_le_bytes());
        ring.metrics.request(true);
        ring.metrics.read(len - HEADER as u64);
        let mut left = len;
        let used = self.window.range(..chains).map(|chain| {
            let here = left.min(chain.len);
            left -= here;
            (chain.head, here as u32)
        });
        ring.queue.push_used_all(used)?;
        let taken: u64 = self.window.drain(..chains).map(|chain| chain.len).sum();
        buffers.advance(taken);
        self.bytes -= taken;
        self.full = false;
        Ok(())
    }

    /// How many chains of the window a packet of `len` bytes takes; `None` where it does not fit.
    fn chains_for(&self, len: u64) -> Option<usize> {
        let mut left = len;
        let count = self.window.iter().position(|chain| {
            left = left.saturating_sub(chain.len);
            left == 0
        })?;
        (self.mergeable || count == 0).then_some(count + 1)
    }

    fn poll_receiver(&mut self, ring: &mut Ring, cx: &mut Context<'_>) -> Result<(), ChainFault> {
        loop {
            let Some(receiver) = &mut self.receiver else { return Ok(()) };
            // Polled while idle as well: it may have to let go of what it has.
            let polled = receiver.poll_received(cx);
            if receiver.receiving() {
                return Ok(());
            }
            if let Poll::Ready(packet) = polled {
                self.cancelling = false;
                if let Some(len) = packet {
                    self.received(ring, len)?;
                }
            }
            if !self.ready(ring)? {
                return Ok(());
            }
            if let Some(receiver) = &mut self.receiver {
                receiver.start();
                if !receiver.receiving() {
                    // There is nothing to receive from any more.
                    return Ok(());
                }
            }
        }
    }
}

/// Whether the driver has offered another chain.
fn waiting(ring: &mut Ring) -> Result<bool, ChainFault> {
    let found = ring.queue.pop(|_| ())?.is_some();
    if found {
        ring.queue.unpop();
    }
    Ok(found)
}

impl QueueWork for Worker {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(receiver) = &mut self.receiver else { return Ok(false) };
        if self.bytes >= self.wanted || self.full {
            return Ok(false);
        }
        if receiver.receiving() {
            if !self.cancelling && waiting(ring)? {
                self.cancelling = true;
                receiver.cancel();
            }
            return Ok(false);
        }
        let max = ring.queue.chain_max();
        let mut buffers = receiver.buffers();
        if self.window.is_empty() {
            buffers.clear();
        }
        let found = ring.queue.pop(|chain| gather_more(chain, max, &mut buffers))?;
        let Some(found) = found.transpose()? else { return Ok(false) };
        if found.overflow {
            if self.window.is_empty() {
                return Err(ChainFault::Chain);
            }
            buffers.truncate(self.bytes);
            ring.queue.unpop();
            self.full = true;
            return Ok(false);
        }
        if found.readable > 0 || found.writable < HEADER as u64 {
            return Err(ChainFault::Incomplete);
        }
        self.bytes += found.writable;
        self.window.push_back(Chain { head: found.head, len: found.writable });
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        if let Err(fault) = self.poll_receiver(ring, cx) {
            ring.fail(&fault);
        }
    }

    fn poll_paused(&mut self, ring: &mut Ring, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(receiver) = &mut self.receiver
            && receiver.receiving()
        {
            if !self.cancelling {
                self.cancelling = true;
                receiver.cancel();
            }
            let polled = receiver.poll_received(cx);
            if receiver.receiving() {
                return Poll::Pending;
            }
            self.cancelling = false;
            // A packet was faster.
            if let Poll::Ready(Some(len)) = polled
                && let Err(fault) = self.received(ring, len)
            {
                ring.fail(&fault);
            }
        }
        // They are the ones that were taken last.
        ring.queue.unpop_all(self.window.len());
        self.window.clear();
        (self.bytes, self.full) = (0, false);
        Poll::Ready(())
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(receiver) = &mut self.receiver else { return Poll::Ready(()) };
        if !self.aborted {
            self.aborted = true;
            receiver.cancel();
        }
        while receiver.receiving() {
            if receiver.poll_received(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}
