//! A latency histogram with buckets of about 1.6 % of their value.

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
const GROUPS: usize = 36;
const BUCKETS: usize = SUB * GROUPS;

/// Counts values up to 2^41; larger ones fall into the last bucket.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [u32; BUCKETS],
    count: u64,
    max: u64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, max: 0 }
    }

    /// Counts `value`.
    pub fn record(&mut self, value: u64) {
        let bucket = &mut self.buckets[bucket_of(value)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Middle and count of each bucket that is not empty, in order.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let all = self.buckets.iter().enumerate();
        all.filter(|(_, count)| **count > 0).map(|(index, count)| (middle_of(index), *count))
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that `percent` of all are not above, as the middle of its bucket.
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, &bucket) in self.buckets.iter().enumerate() {
            seen += u64::from(bucket);
            if seen >= wanted {
                return middle_of(index).min(self.max);
            }
        }
        self.max
    }
}

/// Values below `SUB` have their own bucket; above, each power of two has `SUB` of them.
fn bucket_of(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let exponent = value.ilog2();
    let group = (exponent - SUB_BITS + 1) as usize;
    let within = (value >> (exponent - SUB_BITS)) as usize & (SUB - 1);
    (group * SUB + within).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> u64 {
    let (group, within) = (bucket / SUB, (bucket % SUB) as u64);
    if group == 0 {
        return within;
    }
    let shift = group as u32 - 1;
    let low = (SUB as u64 + within) << shift;
    low + (1u64 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_own_middle_and_are_in_order() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(middle_of(bucket)), bucket);
        }
        let mut last = 0;
        for shift in 0..40 {
            for value in [(1u64 << shift), (1u64 << shift) + 1, (3u64 << shift) / 2] {
                assert!(bucket_of(value) >= last || value < 4);
                last = bucket_of(1 << shift);
            }
        }
    }

    #[test]
    fn percentiles_are_within_two_percent() {
        let mut histogram = Histogram::new();
        for value in 1..=10_000u64 {
            histogram.record(value * 10);
        }
        for (percent, exact) in [(50, 50_000u64), (90, 90_000), (99, 99_000)] {
            let found = histogram.percentile(percent);
            assert!(found.abs_diff(exact) * 50 < exact, "p{percent}: {found}");
        }
        assert_eq!((histogram.count(), histogram.max()), (10_000, 100_000));
        assert_eq!(histogram.percentile(100).abs_diff(100_000) / 2000, 0);
    }

    #[test]
    fn buckets_that_counted_are_listed_in_order() {
        let mut histogram = Histogram::new();
        for value in [5000, 3, 5000, 7] {
            histogram.record(value);
        }
        let listed: Vec<_> = histogram.buckets().collect();
        assert_eq!(listed[..2], [(3, 1), (7, 1)]);
        assert!(listed.len() == 3 && listed[2].1 == 2 && listed[2].0.abs_diff(5000) < 80);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(50), 0);
        histogram.record(u64::MAX);
        histogram.record(0);
        assert_eq!(histogram.max(), u64::MAX);
        assert_eq!(histogram.percentile(1), 0);
    }
}
