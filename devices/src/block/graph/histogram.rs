//! Histograms of latencies: counted by each queue on its own core, added up when asked for.

use super::backend::Backend;
use super::stats::{Counter, Kind};
use std::sync::Arc;

/// Nanoseconds at which a next bin begins, rising. The first bin is below all of them.
pub type Boundaries = Arc<[u64]>;

/// Which kinds of requests have histograms, by [`Kind`].
pub type Shapes = [Option<Boundaries>; 4];

/// How many requests took how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Where bins begin.
    pub boundaries: Boundaries,
    /// Requests by bin: one more than there are boundaries.
    pub bins: Vec<u64>,
}

impl Histogram {
    fn new(boundaries: &Boundaries) -> Self {
        Self { boundaries: Arc::clone(boundaries), bins: vec![0; boundaries.len() + 1] }
    }
}

/// Whether `boundaries` are above 0 and rise.
pub fn are_boundaries(boundaries: &[u64]) -> bool {
    let mut below = 0;
    boundaries.iter().all(|at| std::mem::replace(&mut below, *at) < *at)
}

/// The histograms of one queue.
pub(super) struct QueueHistograms([Option<(Boundaries, Box<[Counter]>)>; 4]);

impl QueueHistograms {
    pub(super) fn new(shapes: &Shapes) -> Self {
        let bins = |boundaries: &Boundaries| (0..=boundaries.len()).map(|_| Counter::default());
        Self(shapes.clone().map(|one| one.map(|at| (Arc::clone(&at), bins(&at).collect()))))
    }

    /// A request has ended. On the queue's core.
    pub(super) fn count(&self, kind: Kind, took_ns: u64) {
        if let Some((boundaries, bins)) = &self.0[kind as usize] {
            bins[boundaries.partition_point(|at| *at <= took_ns)].add(1);
        }
    }

    /// Adds what it has counted to those of `all` that have the same bins.
    pub(super) fn add_to(&self, all: &mut [Option<Histogram>; 4]) {
        for (all, one) in all.iter_mut().zip(&self.0) {
            let (Some(all), Some((boundaries, bins))) = (all, one) else { continue };
            // Another one's bins mean something else.
            if Arc::ptr_eq(&all.boundaries, boundaries) {
                let sums = all.bins.iter_mut().zip(bins);
                sums.for_each(|(sum, bin)| *sum += bin.get());
            }
        }
    }
}

impl Backend {
    /// Begins histograms of these shapes anew; where there is none, that kind has none. In `main`.
    pub fn set_histograms(&self, shapes: &Shapes) {
        let mut state = self.state();
        for queue in &state.queues {
            queue.set_histograms(shapes);
        }
        state.histograms = shapes.clone().map(|one| one.as_ref().map(Histogram::new));
    }

    /// The shapes of the histograms there are.
    pub fn histogram_shapes(&self) -> Shapes {
        let shape = |one: &Option<Histogram>| one.as_ref().map(|all| Arc::clone(&all.boundaries));
        self.state().histograms.each_ref().map(shape)
    }

    /// The histograms by [`Kind`]. Any thread.
    pub fn histograms(&self) -> [Option<Histogram>; 4] {
        let state = self.state();
        let mut all = state.histograms.clone();
        for queue in &state.queues {
            queue.add_histograms(&mut all);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, QueueHistograms, are_boundaries};
    use crate::block::graph::Kind;
    use std::sync::Arc;

    #[test]
    fn a_boundary_begins_its_bin() {
        let shapes = [Some(Arc::from([10, 20])), None, None, Some(Arc::from([]))];
        let histograms = QueueHistograms::new(&shapes);
        for took in [0, 9, 10, 19, 20, u64::MAX] {
            for kind in Kind::ALL {
                histograms.count(kind, took);
            }
        }
        let empty = |n: usize| shapes[n].as_ref().map(Histogram::new);
        let mut all = [empty(0), empty(1), empty(2), empty(3)];
        histograms.add_to(&mut all);
        histograms.add_to(&mut all);
        let bins = |n: usize| all[n].as_ref().map(|one| one.bins.clone());
        assert_eq!(bins(0), Some(vec![4, 4, 4]));
        assert_eq!((bins(1), bins(3)), (None, Some(vec![12])));
        // The same numbers, set again later, are not the same histogram.
        let later = [Some(Arc::from([10, 20])), None, None, None];
        QueueHistograms::new(&later).add_to(&mut all);
        assert!(are_boundaries(&[1, 2]) && are_boundaries(&[]));
        assert!(!are_boundaries(&[0, 1]) && !are_boundaries(&[2, 2]) && !are_boundaries(&[2, 1]));
    }
}
