//! The flat view: what answers each address once priorities are settled.

use crate::bus::BusDevice;
use std::sync::Arc;

/// A region as its writer knows it; `last` is inclusive, so that a region may end at the top.
#[derive(Clone)]
pub(super) struct Region {
    pub id: u64,
    pub start: u64,
    pub last: u64,
    pub priority: i32,
    pub device: Arc<dyn BusDevice>,
}

/// A run of addresses that one region answers.
#[derive(Clone)]
pub(super) struct Segment {
    pub start: u64,
    pub last: u64,
    /// Start of the region, which offsets count from.
    pub base: u64,
    pub device: Arc<dyn BusDevice>,
}

/// An immutable, sorted table of segments that do not overlap.
pub(super) struct FlatView {
    segments: Vec<Segment>,
    /// Every region, also one that is hidden by others: the last reference to a device must go
    /// with a view, after its grace period, never with the writer's list.
    _regions: Vec<Region>,
}

impl FlatView {
    /// Settles `regions`: the higher priority wins, then the higher id (mapped later).
    pub fn new(regions: &[Region]) -> Self {
        let mut order: Vec<&Region> = regions.iter().collect();
        order.sort_by_key(|r| std::cmp::Reverse((r.priority, r.id)));
        let mut segments: Vec<Segment> = Vec::new();
        for region in order {
            let gaps = gaps(&segments, region.start, region.last);
            segments.extend(gaps.into_iter().map(|(start, last)| Segment {
                start,
                last,
                base: region.start,
                device: Arc::clone(&region.device),
            }));
            segments.sort_by_key(|s| s.start);
        }
        Self { segments, _regions: regions.to_vec() }
    }

    /// What answers `address`.
    pub fn find(&self, address: u64) -> Option<&Segment> {
        let after = self.segments.partition_point(|s| s.start <= address);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        (address <= segment.last).then_some(segment)
    }

    /// The first address above `address` where a segment starts.
    pub fn next_start(&self, address: u64) -> Option<u64> {
        let after = self.segments.partition_point(|s| s.start <= address);
        self.segments.get(after).map(|s| s.start)
    }
}

/// The parts of `start..=last` that no segment covers.
fn gaps(segments: &[Segment], start: u64, last: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut at = start;
    let first = segments.partition_point(|s| s.last < start);
    for segment in segments.iter().skip(first).take_while(|s| s.start <= last) {
        if at < segment.start {
            gaps.push((at, segment.start - 1));
        }
        match segment.last.checked_add(1) {
            Some(next) if next <= last => at = next,
            _ => return gaps,
        }
    }
    gaps.push((at, last));
    gaps
}
