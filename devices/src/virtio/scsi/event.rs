//! The event queue: units that come, go and change (section 5.6.6.3).

use super::request::encoded;
use super::{VirtioScsi, config};
use crate::pci::signal;
use crate::scsi::{Address, Sense};
use crate::virtio::chain::OneChain;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::ChainFault;
use crate::virtio::serve::{QueueWork, Ring};
use reactor::Fd;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of an event.
pub(super) const EVENT_BYTES: usize = 16;

const NO_EVENT: u32 = 0;
const TRANSPORT_RESET: u32 = 1;
const PARAM_CHANGE: u32 = 3;
/// Added to the next event when one was lost.
const MISSED: u32 = 1 << 31;

const RESCAN: u32 = 1;
const REMOVED: u32 = 2;

/// What the driver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A unit has come.
    Added(Address),
    /// A unit has gone.
    Removed(Address),
    /// A unit has changed, as this sense says.
    Changed(Address, Sense),
}

impl Event {
    /// The feature that says that the driver wants it.
    fn feature(self) -> u64 {
        match self {
            Self::Added(_) | Self::Removed(_) => config::HOTPLUG,
            Self::Changed(..) => config::CHANGE,
        }
    }

    fn bytes(event: Option<Self>, missed: bool) -> [u8; EVENT_BYTES] {
        let (number, lun, reason) = match event {
            None => (NO_EVENT, [0; 8], 0),
            Some(Self::Added(address)) => (TRANSPORT_RESET, encoded(address), RESCAN),
            Some(Self::Removed(address)) => (TRANSPORT_RESET, encoded(address), REMOVED),
            Some(Self::Changed(address, sense)) => {
                let reason = u32::from(sense.asc) | u32::from(sense.ascq) << 8;
                (PARAM_CHANGE, encoded(address), reason)
            }
        };
        let number = number | if missed { MISSED } else { 0 };
        let mut bytes = [0; EVENT_BYTES];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        bytes[4..12].copy_from_slice(&lun);
        bytes[12..].copy_from_slice(&reason.to_le_bytes());
        bytes
    }
}

/// Events that wait for a driver without buffers.
const WAITING_MAX: usize = 4096;

#[derive(Default)]
struct Waiting {
    /// The features of the driver, once it is ready to hear.
    driver: Option<u64>,
    events: VecDeque<Event>,
    /// An event has found no buffer.
    missed: bool,
    /// Wakes the queue's task.
    doorbell: Option<Fd>,
}

/// What the driver is to be told. Any thread; the lock is held for moments.
#[derive(Default)]
pub(super) struct EventBox(Mutex<Waiting>);

impl EventBox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A driver with these features listens from now on: also while its queue's task is not there yet.
    pub(super) fn open(&self, features: u64) {
        self.lock().driver = Some(features);
    }

    /// No driver listens, and nothing waits.
    pub(super) fn close(&self) {
        *self.lock() = Waiting::default();
    }

    /// Something has happened. Nobody is told who was not there then.
    pub(super) fn post(&self, event: Event) {
        let mut waiting = self.lock();
        if waiting.driver.is_none_or(|features| event.feature() & features == 0) {
            return;
        }
        if waiting.events.len() < WAITING_MAX {
            waiting.events.push_back(event);
        } else {
            waiting.missed = true;
        }
        if let Some(doorbell) = &waiting.doorbell {
            signal(doorbell);
        }
    }

    fn any(&self) -> bool {
        let waiting = self.lock();
        waiting.missed || !waiting.events.is_empty()
    }

    /// There is no buffer for any of them.
    fn miss(&self) {
        let mut waiting = self.lock();
        waiting.events.clear();
        waiting.missed = true;
    }

    /// The next one, and whether others were missed before it.
    fn take(&self) -> (Option<Event>, bool) {
        let mut waiting = self.lock();
        (waiting.events.pop_front(), std::mem::take(&mut waiting.missed))
    }
}

/// See the module.
pub(super) struct Events {
    device: Arc<VirtioScsi>,
    chain: OneChain,
}

impl Events {
    pub(super) fn new(device: Arc<VirtioScsi>, setup: &QueueSetup) -> Self {
        device.events.lock().doorbell = Some(setup.doorbell.clone());
        Self { device, chain: OneChain::new(setup) }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.device.events.lock().doorbell = None;
    }
}

impl QueueWork for Events {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        if !self.device.events.any() {
            return Ok(false);
        }
        let found = loop {
            if let Some(found) = self.chain.take(ring)? {
                break found;
            }
            // The doorbell rings when there is a buffer for what was missed.
            if !ring.queue.enable_notification()? {
                self.device.events.miss();
                return Ok(false);
            }
        };
        if found.writable < EVENT_BYTES as u64 || found.overflow {
            return Err(ChainFault::Incomplete);
        }
        let (event, missed) = self.device.events.take();
        self.chain.list().write_at(found.readable, &Event::bytes(event, missed));
        ring.metrics.request(true);
        ring.queue.push_used(found.head, EVENT_BYTES as u32)?;
        Ok(true)
    }
}
