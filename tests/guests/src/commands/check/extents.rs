//! Cutting a part of a disk into requests.

use crate::pattern::Random;

/// Request sizes, in bytes, that are drawn from.
pub(super) type Sizes = &'static [u32];

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u32,
}

/// Requests that cover a range once, without gaps or overlaps, in turns from its two halves so
/// that neighbours are not in flight alone.
#[derive(Clone, Debug)]
pub(super) struct Extents {
    halves: [(u64, u64); 2],
    turn: usize,
    sizes: Sizes,
    block: u32,
    random: Random,
}

impl Extents {
    /// Covers the bytes from `start` to `end`, both multiples of `block`.
    pub fn new(start: u64, end: u64, block: u32, sizes: Sizes, seed: u64) -> Self {
        let block_long = u64::from(block);
        let middle = start + (end - start) / 2 / block_long * block_long;
        let halves = [(start, middle), (middle, end)];
        Self { halves, turn: 0, sizes, block, random: Random::new(seed) }
    }
}

impl Iterator for Extents {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let turn = if self.halves[self.turn].0 < self.halves[self.turn].1 {
            self.turn
        } else {
            1 - self.turn
        };
        self.turn = 1 - self.turn;
        let (next, end) = &mut self.halves[turn];
        if next >= end {
            return None;
        }
        let draw = self.random.below(self.sizes.len() as u64) as usize;
        let size = self.sizes[draw].next_multiple_of(self.block);
        let bytes = u64::from(size).min(*end - *next) as u32;
        let extent = Extent { start: *next, bytes };
        *next += u64::from(bytes);
        Some(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cover_the_range_exactly_once() {
        for (start, end, block) in
            [(512, 1 << 20, 512), (0, 512, 512), (0, 1536, 512), (4096, 999 * 4096, 4096)]
        {
            let extents = Extents::new(start, end, block, &[512, 4096, 20_480], 3);
            let mut all: Vec<_> = extents.collect();
            assert!(all.iter().all(|it| it.bytes > 0 && it.bytes.is_multiple_of(block)));
            all.sort_by_key(|it| it.start);
            let mut next = start;
            for extent in all {
                assert_eq!(extent.start, next);
                next += u64::from(extent.bytes);
            }
            assert_eq!(next, end);
        }
    }

    #[test]
    fn both_halves_are_worked_on_and_an_empty_range_has_none() {
        let mut extents = Extents::new(0, 1 << 20, 512, &[512], 1);
        assert_eq!(extents.next(), Some(Extent { start: 0, bytes: 512 }));
        assert_eq!(extents.next(), Some(Extent { start: 1 << 19, bytes: 512 }));
        assert_eq!(extents.next(), Some(Extent { start: 512, bytes: 512 }));
        assert_eq!(Extents::new(512, 512, 512, &[512], 1).next(), None);
    }

    #[test]
    fn other_seeds_cut_differently() {
        let cut =
            |seed| Extents::new(0, 1 << 20, 512, &[512, 1024, 8192], seed).collect::<Vec<_>>();
        assert_ne!(cut(2), cut(5));
    }
}
