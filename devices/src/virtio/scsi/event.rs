//! The event queue: units that come, go and change (section 5.6.6.3).

use super::config;
use super::mailbox::Listener;
use super::request::encoded;
use crate::block::SegmentTable;
use crate::scsi::{Address, Sense};
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::{ChainFault, gather};
use crate::virtio::serve::{QueueWork, Ring};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

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

/// See the module.
pub(super) struct Events {
    arriving: Listener<Event>,
    waiting: VecDeque<Event>,
    /// An event found no buffer.
    missed: bool,
    features: u64,
    /// The chain in hand.
    list: SegmentTable,
}

impl Events {
    pub(super) fn new(arriving: Listener<Event>, setup: &QueueSetup) -> Self {
        let segments = usize::from(setup.queue.chain_max());
        Self {
            arriving,
            waiting: VecDeque::new(),
            missed: false,
            features: setup.features,
            list: SegmentTable::new(Arc::clone(setup.queue.ram()), 1, segments),
        }
    }

    /// Takes a buffer and puts an event into it; false when there is no buffer.
    fn tell(&mut self, ring: &mut Ring, event: Option<Event>) -> Result<bool, ChainFault> {
        let max = ring.queue.chain_max();
        let mut list = self.list.slot(0);
        let found = loop {
            if let Some(found) = ring.queue.pop(|chain| gather(chain, max, &mut list))? {
                break found?;
            }
            // The doorbell rings when there is a buffer for what was missed.
            if !ring.queue.enable_notification()? {
                return Ok(false);
            }
        };
        if found.writable < EVENT_BYTES as u64 || found.overflow {
            return Err(ChainFault::Incomplete);
        }
        list.write_at(found.readable, &Event::bytes(event, self.missed));
        self.missed = false;
        ring.metrics.request(true);
        ring.queue.push_used(found.head, EVENT_BYTES as u32)?;
        Ok(true)
    }
}

impl QueueWork for Events {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        if let Some(events) = self.arriving.take() {
            let wanted = events.into_iter().filter(|event| event.feature() & self.features != 0);
            self.waiting.extend(wanted);
        }
        let Some(event) = self.waiting.pop_front() else {
            return if self.missed { self.tell(ring, None) } else { Ok(false) };
        };
        let told = self.tell(ring, Some(event))?;
        if !told {
            // Without buffers, none of the others finds one either.
            self.waiting.clear();
            self.missed = true;
        }
        Ok(told)
    }

    fn poll_finished(&mut self, _: &mut Ring, _: &mut Context<'_>) {}

    fn poll_stopped(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
