//! Pages that the driver gives, takes back, or does not use just now.

use super::VirtioBalloon;
use super::discard::{PAGE, discard};
use crate::virtio::Ram;
use crate::virtio::chain::OneChain;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::ChainFault;
use crate::virtio::serve::{QueueWork, Ring};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Page numbers of one chain that are looked at; drivers send 256.
const NUMBERS_MAX: u64 = 64 * 1024;
/// Page numbers that are read in one go.
const PART: usize = 256;

impl VirtioBalloon {
    fn discard(&self, ram: &Ram, address: u64, len: u64) {
        match discard(ram, address, len) {
            Ok(freed) => {
                self.freed.fetch_add(freed, Ordering::Relaxed);
            }
            // Memory that is locked, for example; the guest does without it all the same.
            Err(error) => tracing::debug!(%error, address, len, "memory cannot be given back"),
        }
    }
}

/// Queues of page numbers (section 5.5.6): the inflate and the deflate queue.
pub(super) struct Numbers {
    device: Arc<VirtioBalloon>,
    chain: OneChain,
    inflate: bool,
}

impl Numbers {
    pub(super) fn new(device: Arc<VirtioBalloon>, setup: &QueueSetup, inflate: bool) -> Self {
        let chain = OneChain::new(setup);
        Self { device, chain, inflate }
    }

    /// Frees the pages of the chain's numbers, neighbours together.
    fn inflate(&mut self, ram: &Ram, bytes: u64) {
        let list = self.chain.list();
        let bytes = bytes.min(4 * NUMBERS_MAX);
        let (mut at, mut run) = (0, 0..0);
        while at < bytes {
            let mut part = [0; 4 * PART];
            let want = (bytes - at).min(part.len() as u64) as usize;
            let n = list.read_at(at, &mut part[..want]);
            let (numbers, _) = part[..n].as_chunks::<4>();
            for number in numbers {
                let page = u64::from(u32::from_le_bytes(*number));
                if page == run.end && !run.is_empty() {
                    run.end += 1;
                } else if page + 1 == run.start {
                    run.start = page;
                } else {
                    self.device.discard(ram, run.start * PAGE, (run.end - run.start) * PAGE);
                    run = page..page + 1;
                }
            }
            at += part.len() as u64;
        }
        self.device.discard(ram, run.start * PAGE, (run.end - run.start) * PAGE);
    }
}

impl QueueWork for Numbers {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(found) = self.chain.take(ring)? else { return Ok(false) };
        // A page that is taken back is there again when it is touched.
        if self.inflate {
            let ram = Arc::clone(ring.queue.ram());
            self.inflate(&ram, found.readable);
        }
        ring.metrics.request(true);
        ring.queue.push_used(found.head, 0)?;
        Ok(true)
    }
}

/// The reporting queue (section 5.5.6.7): its buffers are the pages.
pub(super) struct Ranges {
    device: Arc<VirtioBalloon>,
}

impl Ranges {
    pub(super) fn new(device: Arc<VirtioBalloon>) -> Self {
        Self { device }
    }
}

impl QueueWork for Ranges {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let max = ring.queue.chain_max();
        let ram = Arc::clone(ring.queue.ram());
        // A page that reads as zero again is not what a driver expects that fills its free pages.
        let free = self.device.poison.load(Ordering::Acquire) == 0;
        let found = ring.queue.pop(|chain| {
            let head = chain.head_index();
            let (mut count, mut ended) = (0, false);
            for descriptor in chain {
                count += 1;
                ended = !descriptor.has_next();
                if count > max {
                    return Err(ChainFault::Chain);
                }
                if descriptor.is_write_only() && free {
                    self.device.discard(&ram, descriptor.addr().0, descriptor.len().into());
                }
            }
            if ended { Ok(head) } else { Err(ChainFault::Chain) }
        })?;
        let Some(head) = found.transpose()? else { return Ok(false) };
        ring.metrics.request(true);
        ring.queue.push_used(head, 0)?;
        Ok(true)
    }
}
