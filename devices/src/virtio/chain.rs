//! Chains that are finished one at a time.

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
