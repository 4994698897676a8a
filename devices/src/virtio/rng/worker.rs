//! The queue: one buffer at a time is filled, as far as the period's rest of bytes allows.

use super::{RateLimit, VirtioRng};
use crate::clock::{Clock, ClockSleep};
use crate::virtio::chain::Chains;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::ChainFault;
use crate::virtio::serve::{QueueWork, Ring};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes that one buffer gets at most: a driver that offers gigabytes asks again.
const READ_MAX: u64 = 64 << 10;

/// A buffer to be filled.
struct Waiting {
    slot: usize,
    head: u16,
    room: u64,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>>>>;

/// What the task waits for.
enum Wait {
    /// Bytes, of which so many were asked for.
    Bytes(u64, Reading),
    /// The end of the period.
    Period(ClockSleep),
}

/// The bytes that are left in a period, and when it ends.
#[derive(Clone, Copy, Default)]
pub(super) struct Period {
    left: u64,
    ends_ns: u64,
}

/// The bytes that are left in this period.
struct Quota {
    limit: RateLimit,
    clock: Arc<dyn Clock>,
    period: Period,
}

/// See the module.
pub(super) struct Worker {
    device: Arc<VirtioRng>,
    quota: Option<Quota>,
    chains: Chains,
    queued: VecDeque<Waiting>,
    wait: Option<Wait>,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioRng>, setup: &QueueSetup) -> Self {
        let slots = usize::from(setup.queue.size());
        let period = device.kept_period().take().unwrap_or_default();
        let quota = |limit| Quota { limit, clock: Arc::clone(&device.clock), period };
        Self {
            quota: device.limit.map(quota),
            device,
            chains: Chains::new(setup),
            queued: VecDeque::with_capacity(slots),
            wait: None,
        }
    }

    /// Begins to wait for what the first buffer in the queue needs.
    fn begin(&self, room: u64) -> (Wait, u64) {
        let wanted = room.min(READ_MAX);
        let granted = self.quota.as_ref().map_or(wanted, |quota| wanted.min(quota.period.left));
        if let (0, Some(quota)) = (granted, &self.quota) {
            return (Wait::Period(quota.clock.sleep_until(quota.period.ends_ns)), 0);
        }
        let entropy = Arc::clone(&self.device.entropy);
        let reading = async move { entropy.read(granted as usize).await };
        (Wait::Bytes(granted, Box::pin(reading)), granted)
    }

    /// Gives the first buffer back with `bytes` in it.
    fn deliver(&mut self, ring: &mut Ring, bytes: &[u8]) {
        let Some(Waiting { slot, head, .. }) = self.queued.pop_front() else { return };
        let n = self.chains.list(slot).copy_from(bytes);
        self.chains.free(slot);
        ring.metrics.read(n as u64);
        ring.metrics.request(true);
        if let Err(fault) = ring.queue.push_used(head, n as u32) {
            ring.fail(&fault);
        }
    }
}

impl Quota {
    fn renew(&mut self) {
        let now = self.clock.monotonic_ns();
        if now >= self.period.ends_ns {
            let length = u64::try_from(self.limit.period.as_nanos()).unwrap_or(u64::MAX);
            self.period = Period { left: self.limit.bytes, ends_ns: now.saturating_add(length) };
        }
    }
}

impl QueueWork for Worker {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some((slot, found)) = self.chains.take(ring)? else { return Ok(false) };
        if found.writable == 0 || found.overflow {
            return Err(ChainFault::Incomplete);
        }
        // Buffers for the device to read mean nothing here (section 5.4.6.1).
        self.chains.list(slot).advance(found.readable);
        self.queued.push_back(Waiting { slot, head: found.head, room: found.writable });
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        while let Some(first) = self.queued.front() {
            let room = first.room;
            if let Some(quota) = &mut self.quota {
                quota.renew();
            }
            if self.wait.is_none() {
                let (wait, granted) = self.begin(room);
                self.wait = Some(wait);
                if let Some(quota) = &mut self.quota {
                    quota.period.left -= granted;
                }
            }
            let (granted, result) = match &mut self.wait {
                Some(Wait::Bytes(granted, reading)) => match reading.as_mut().poll(cx) {
                    Poll::Ready(result) => (*granted, Some(result)),
                    Poll::Pending => return,
                },
                Some(Wait::Period(period)) => match period.as_mut().poll(cx) {
                    Poll::Ready(()) => (0, None),
                    Poll::Pending => return,
                },
                None => return,
            };
            self.wait = None;
            match result {
                None => {}
                Some(Ok(bytes)) => {
                    if let Some(quota) = &mut self.quota {
                        let unused = granted.saturating_sub(bytes.len() as u64);
                        let left = &mut quota.period.left;
                        *left = (*left + unused).min(quota.limit.bytes);
                    }
                    self.deliver(ring, &bytes);
                }
                Some(Err(error)) => {
                    self.queued.clear();
                    ring.fail(&format_args!("the source of entropy cannot be read: {error}"));
                }
            }
        }
    }

    fn poll_paused(&mut self, ring: &mut Ring, _: &mut Context<'_>) -> Poll<()> {
        // What is being read for the first one goes to memory of its own, and is read again.
        if let (Some(Wait::Bytes(granted, _)), Some(quota)) = (self.wait.take(), &mut self.quota) {
            quota.period.left += granted;
        }
        *self.device.kept_period() = self.quota.as_ref().map(|quota| quota.period);
        ring.queue.unpop_all(self.queued.len());
        self.queued.clear();
        Poll::Ready(())
    }

    fn poll_stopped(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // A read in flight goes to memory of its own.
        self.wait = None;
        self.queued.clear();
        Poll::Ready(())
    }
}
