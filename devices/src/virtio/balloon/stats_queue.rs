//! The statistics queue (section 5.5.6.3): the driver's buffer stays with the device until it wants
//! new numbers.

use super::VirtioBalloon;
use super::stats::{BalloonStats, ENTRY, NAMES};
use crate::clock::ClockSleep;
use crate::signal::Watch;
use crate::virtio::chain::OneChain;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::ChainFault;
use crate::virtio::serve::{QueueWork, Ring};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

/// Entries of one buffer that are looked at: every statistic a few times over.
const ENTRIES_MAX: usize = 4 * NAMES.len();

/// See the module.
pub(super) struct Worker {
    device: Arc<VirtioBalloon>,
    chain: OneChain,
    /// The driver's buffer.
    held: Option<u16>,
    /// When it is to be given back.
    due: Option<ClockSleep>,
    interval_changed: Watch,
}

impl Worker {
    pub(super) fn new(device: Arc<VirtioBalloon>, setup: &QueueSetup) -> Self {
        let chain = OneChain::new(setup);
        let interval_changed = Watch::new(&device.poll_changed);
        Self { device, chain, held: None, due: None, interval_changed }
    }

    /// Takes the numbers out of the chain in hand.
    fn read(&mut self, readable: u64) {
        let mut list = self.chain.list();
        list.truncate(readable);
        let mut bytes = [0; ENTRIES_MAX * ENTRY];
        let n = list.copy_to(&mut bytes);
        let now = self.device.clock.wall().as_secs();
        let stats = BalloonStats::parse(&bytes[..n], now);
        *self.device.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn arm(&mut self) {
        let interval = self.device.stats_interval();
        let armed = self.held.is_some() && !interval.is_zero();
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let clock = &self.device.clock;
        self.due = armed.then(|| clock.sleep_until(clock.monotonic_ns().saturating_add(interval)));
    }
}

impl QueueWork for Worker {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(found) = self.chain.take(ring)? else { return Ok(false) };
        if !self.device.stats_known.swap(false, Ordering::AcqRel) {
            self.read(found.readable);
            ring.metrics.request(true);
        }
        // There is one buffer; a driver that adds another gets the first back.
        if let Some(before) = self.held.replace(found.head) {
            ring.queue.push_used(before, 0)?;
        }
        self.arm();
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        if self.interval_changed.look(cx) {
            self.arm();
        }
        let Some(due) = &mut self.due else { return };
        if due.as_mut().poll(cx).is_pending() {
            return;
        }
        self.due = None;
        if let Some(head) = self.held.take()
            && let Err(fault) = ring.queue.push_used(head, 0)
        {
            ring.fail(&fault);
        }
    }

    fn poll_paused(&mut self, ring: &mut Ring, _: &mut Context<'_>) -> Poll<()> {
        if self.held.take().is_some() {
            ring.queue.unpop();
            self.device.stats_known.store(true, Ordering::Release);
        }
        Poll::Ready(())
    }
}
