//! Chains that a queue works on: one at a time, or each in a slot of its own.

use super::device::QueueSetup;
use super::queue::{ChainFault, Gathered, gather};
use super::serve::Ring;
use crate::block::{SegmentTable, Segments};
use std::sync::Arc;

/// The buffers of one chain, for queues that finish a chain before they take the next.
pub(super) struct OneChain(SegmentTable);

impl OneChain {
    pub(super) fn new(setup: &QueueSetup) -> Self {
        let segments = usize::from(setup.queue.chain_max());
        Self(SegmentTable::new(Arc::clone(setup.queue.ram()), 1, segments))
    }

    /// Takes the next chain, if there is one: its buffers are in [`list`](Self::list) then.
    pub(super) fn take(&mut self, ring: &mut Ring) -> Result<Option<Gathered>, ChainFault> {
        let max = ring.queue.chain_max();
        let mut list = self.0.slot(0);
        ring.queue.pop(|chain| gather(chain, max, &mut list))?.transpose()
    }

    /// The buffers of the chain that was taken last.
    pub(super) fn list(&mut self) -> Segments<'_> {
        self.0.slot(0)
    }
}

/// The buffers of chains in slots, for queues that finish chains in any order.
pub(super) struct Chains {
    lists: SegmentTable,
    free: Vec<usize>,
}

impl Chains {
    /// As many slots as the queue has entries.
    pub(super) fn new(setup: &QueueSetup) -> Self {
        let slots = usize::from(setup.queue.size());
        let segments = usize::from(setup.queue.chain_max());
        Self {
            lists: SegmentTable::new(Arc::clone(setup.queue.ram()), slots, segments),
            free: (0..slots).rev().collect(),
        }
    }

    /// Takes the next chain, if there is one; its slot is the caller's until it is
    /// [given back](Self::free).
    pub(super) fn take(
        &mut self,
        ring: &mut Ring,
    ) -> Result<Option<(usize, Gathered)>, ChainFault> {
        let Some(&slot) = self.free.last() else {
            ring.queue.pop_none()?;
            return Ok(None);
        };
        let max = ring.queue.chain_max();
        let mut list = self.lists.slot(slot);
        let Some(found) = ring.queue.pop(|chain| gather(chain, max, &mut list))? else {
            return Ok(None);
        };
        let found = found?;
        self.free.pop();
        Ok(Some((slot, found)))
    }

    /// The buffers of the chain in `slot`.
    pub(super) fn list(&mut self, slot: usize) -> Segments<'_> {
        self.lists.slot(slot)
    }

    /// The chain in `slot` is finished.
    pub(super) fn free(&mut self, slot: usize) {
        self.free.push(slot);
    }
}
