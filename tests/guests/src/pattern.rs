//! Data that names its place: each aligned eight bytes of a disk hold a function of their byte
//! offset and of a seed, so that data that is old, shifted or from elsewhere shows.

use core::fmt;

use crate::mem::Region;

/// What buffers hold before a read, so that bytes the device leaves out show.
pub(crate) const POISON: u64 = 0xdead_0b5e_55ed_0bad;

/// The eight bytes at byte `offset` (a multiple of eight) of a disk written with `seed`.
pub(crate) fn word(offset: u64, seed: u64) -> u64 {
    let mixed = (offset ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Byte offset on the disk.
    pub offset: u64,
    /// What should be there.
    pub expected: u64,
    /// What is.
    pub found: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.found == POISON { " (not transferred)" } else { "" };
        write!(f, "at byte {:#x} expected {:#018x}", self.offset, self.expected)?;
        write!(f, " found {:#018x}{note}", self.found)
    }
}

/// Fills `buffer` as the disk from byte `offset` on.
pub(crate) fn fill(buffer: Region, offset: u64, seed: u64) {
    for at in (0..buffer.len()).step_by(8) {
        buffer.store(at, word(offset + at as u64, seed));
    }
}

/// Fills `buffer` with one value.
pub(crate) fn fill_with(buffer: Region, value: u64) {
    for at in (0..buffer.len()).step_by(8) {
        buffer.store(at, value);
    }
}

/// The first difference between `buffer`, read from byte `offset`, and what was written there.
pub(crate) fn compare(buffer: Region, offset: u64, seed: u64) -> Result<(), Mismatch> {
    compare_with(buffer, offset, |at| word(at, seed))
}

/// The first difference between `buffer`, read from byte `offset`, and one value all over.
pub(crate) fn compare_value(buffer: Region, offset: u64, value: u64) -> Result<(), Mismatch> {
    compare_with(buffer, offset, |_| value)
}

fn compare_with(
    buffer: Region,
    offset: u64,
    expected: impl Fn(u64) -> u64,
) -> Result<(), Mismatch> {
    for at in (0..buffer.len()).step_by(8) {
        let (expected, found) = (expected(offset + at as u64), buffer.load(at));
        if expected != found {
            return Err(Mismatch { offset: offset + at as u64, expected, found });
        }
    }
    Ok(())
}

/// A small pseudo-random generator (xorshift64*): the same sequence for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator started with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::test_memory;

    #[test]
    fn what_was_filled_compares_and_any_flip_shows() {
        let buffer = test_memory::region(4096);
        fill(buffer, 0x1200, 7);
        assert_eq!(compare(buffer, 0x1200, 7), Ok(()));
        assert!(compare(buffer, 0x1400, 7).is_err(), "data from elsewhere");
        assert!(compare(buffer, 0x1200, 8).is_err(), "data of another pass");
        let byte: u8 = buffer.load(1003);
        buffer.store(1003, byte ^ 0x10);
        let mismatch = compare(buffer, 0x1200, 7).unwrap_err();
        assert_eq!(mismatch.offset, 0x1200 + 1000);
        assert_eq!(mismatch.expected ^ mismatch.found, 0x10 << 24);
    }

    #[test]
    fn poison_is_named_in_the_report() {
        let buffer = test_memory::region(64);
        fill_with(buffer, POISON);
        assert_eq!(compare_value(buffer, 0, POISON), Ok(()));
        let report = compare(buffer, 0x10, 1).unwrap_err().to_string();
        assert!(report.starts_with("at byte 0x10 expected 0x"), "{report}");
        assert!(report.ends_with("found 0xdead0b5e55ed0bad (not transferred)"), "{report}");
    }

    #[test]
    fn words_do_not_repeat_nearby() {
        let mut words: Vec<u64> = (0..4096).map(|index| word(index * 8, 3)).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 4096);
    }

    #[test]
    fn random_numbers_stay_below_their_bound_and_spread() {
        let mut random = Random::new(42);
        let mut counts = [0u32; 8];
        for _ in 0..8000 {
            counts[random.below(8) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
