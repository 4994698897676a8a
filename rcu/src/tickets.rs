//! The numbers of the batches: given out when a batch is closed, complete in that order.

use std::collections::VecDeque;

/// A batch that was closed and is not complete.
#[derive(Default)]
struct InFlight {
    /// Parts that have callbacks left, and the leader until it has sent them all.
    holds: usize,
    callbacks: usize,
}

#[derive(Default)]
pub(crate) struct Tickets {
    /// The number of the last batch closed.
    closed: u64,
    /// The last batch that somebody has asked to be closed.
    requested: u64,
    /// Those after the last complete one, in order.
    in_flight: VecDeque<InFlight>,
}

impl Tickets {
    /// Closes a batch and holds it; its callbacks are taken from their queues after this. Leader only.
    pub(crate) fn close(&mut self) -> u64 {
        self.closed += 1;
        self.in_flight.push_back(InFlight { holds: 1, callbacks: 0 });
        self.closed
    }

    /// Asks for a batch that will have run everything queued so far; returns its number. A leader
    /// closes it even where it is empty: what the caller waits for may be taken by the batch before it, whose
    /// number was given out already.
    pub(crate) fn request(&mut self) -> u64 {
        self.requested = self.closed + 1;
        self.requested
    }

    /// Whether a batch has been asked for that is not closed.
    pub(crate) fn is_requested(&self) -> bool {
        self.requested > self.closed
    }

    /// Every batch up to this number is complete.
    pub(crate) fn complete(&self) -> u64 {
        self.closed - self.in_flight.len() as u64
    }

    /// The last batch closed.
    pub(crate) fn closed(&self) -> u64 {
        self.closed
    }

    /// `parts` more hold the batch.
    pub(crate) fn hold(&mut self, batch: u64, parts: usize) {
        self.batch(batch).holds += parts;
    }

    /// `callbacks` of the batch have run.
    pub(crate) fn count(&mut self, batch: u64, callbacks: usize) {
        self.batch(batch).callbacks += callbacks;
    }

    /// One holder is done with the batch. Calls `completed` with the size of each batch that is complete now.
    pub(crate) fn release(&mut self, batch: u64, mut completed: impl FnMut(usize)) {
        self.batch(batch).holds -= 1;
        while let Some(first) = self.in_flight.front()
            && first.holds == 0
        {
            completed(first.callbacks);
            self.in_flight.pop_front();
        }
    }

    fn batch(&mut self, number: u64) -> &mut InFlight {
        let index = (number - self.complete() - 1) as usize;
        self.in_flight.get_mut(index).expect("a batch is in flight while somebody holds it")
    }
}

#[cfg(test)]
mod tests {
    use super::Tickets;

    #[test]
    fn a_batch_is_complete_when_all_before_it_are() {
        let mut tickets = Tickets::default();
        let (first, second) = (tickets.close(), tickets.close());
        tickets.hold(first, 2);
        tickets.hold(second, 1);
        tickets.count(second, 5);
        let mut sizes = Vec::new();
        for batch in [first, second, second] {
            tickets.release(batch, |size| sizes.push(size));
        }
        assert_eq!((tickets.complete(), sizes.len()), (0, 0));
        tickets.count(first, 7);
        tickets.release(first, |size| sizes.push(size));
        assert_eq!(tickets.complete(), 0);
        tickets.release(first, |size| sizes.push(size));
        assert_eq!((tickets.complete(), sizes), (second, vec![7, 5]));
    }

    #[test]
    fn a_request_stands_until_a_batch_is_closed_after_it() {
        let mut tickets = Tickets::default();
        let under_way = tickets.close();
        assert!(!tickets.is_requested());
        let ticket = tickets.request();
        assert!(ticket > under_way && tickets.is_requested());
        assert_eq!(tickets.request(), ticket);
        assert_eq!(tickets.close(), ticket);
        assert!(!tickets.is_requested());
    }
}
