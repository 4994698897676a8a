//! What one measurement yields, and how several of them become one result.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Longest time that is told apart from longer ones: 100 s, in picoseconds.
const LONGEST: u64 = 100_000_000_000_000;

/// Times, kept in picoseconds so that single nanoseconds can be shared out.
#[derive(Clone, Debug)]
pub struct Samples(Histogram<u64>);

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}

impl Samples {
    /// None yet.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("a valid range"))
    }

    /// One time.
    pub fn add(&mut self, time: Duration) {
        self.add_shared(time, 1);
    }

    /// So much for each of `n`, recorded once.
    pub fn add_shared(&mut self, time: Duration, n: u32) {
        let each = time.as_nanos() * 1000 / u128::from(n.max(1));
        self.0.saturating_record(u64::try_from(each).unwrap_or(LONGEST));
    }

    /// A time in picoseconds that was seen `count` times.
    pub fn add_counted(&mut self, picoseconds: u64, count: u64) {
        self.0.saturating_record_n(picoseconds, count);
    }

    /// All of another's.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The histogram itself, in picoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// The time in picoseconds that a share of `quantile` (0 to 1) does not exceed.
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    pub fn quantile(&self, quantile: f64) -> f64 {
        if quantile >= 1.0 {
            self.0.max() as f64
        } else {
            self.0.value_at_quantile(quantile) as f64
        }
    }
}

/// Times `round` so often, after a tenth as many that do not count.
pub fn sample(rounds: u32, mut round: impl FnMut()) -> Samples {
    let mut samples = Samples::new();
    for n in 0..rounds + rounds / 10 {
        let begun = Instant::now();
        round();
        if n >= rounds / 10 {
            samples.add(begun.elapsed());
        }
    }
    samples
}

/// As [`sample`], ended by the first error.
pub fn try_sample<E>(rounds: u32, mut round: impl FnMut() -> Result<(), E>) -> Result<Samples, E> {
    let mut samples = Samples::new();
    for n in 0..rounds + rounds / 10 {
        let begun = Instant::now();
        round()?;
        if n >= rounds / 10 {
            samples.add(begun.elapsed());
        }
    }
    Ok(samples)
}

/// As [`sample`], for a round that is awaited.
pub async fn sample_async<F: Future>(rounds: u32, mut round: impl FnMut() -> F) -> Samples {
    let mut samples = Samples::new();
    for n in 0..rounds + rounds / 10 {
        let begun = Instant::now();
        round().await;
        if n >= rounds / 10 {
            samples.add(begun.elapsed());
        }
    }
    samples
}

/// What one costs of many that are too short for the clock.
pub fn sample_short<T>(series: u32, mut round: impl FnMut() -> T) -> Samples {
    const LENGTH: u32 = 10_000;
    let mut samples = Samples::new();
    for n in 0..series + series / 10 {
        let begun = Instant::now();
        for _ in 0..LENGTH {
            std::hint::black_box(round());
        }
        if n >= series / 10 {
            samples.add_shared(begun.elapsed(), LENGTH);
        }
    }
    samples
}

/// The outcome of one case in one round, on one side.
#[derive(Clone, Debug)]
pub enum Measured {
    /// Times.
    Times(Samples),
    /// One figure, in the case's unit.
    Value(f64),
    /// This side cannot do it, for that reason.
    Cannot(String),
}

impl Measured {
    /// That this side cannot do it.
    pub fn cannot(reason: &str) -> Self {
        Self::Cannot(reason.to_owned())
    }
}

/// Middle, least and greatest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these figures; `None` without any. Figures that are no numbers are left out.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.iter().copied().filter(|f| f.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_times() {
        let mut samples = Samples::new();
        for us in 1..=1000 {
            samples.add(Duration::from_micros(us));
        }
        for (quantile, us) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = samples.quantile(quantile) / 1e6;
            assert!((found / us - 1.0_f64).abs() < 0.002, "{quantile}: {found}");
        }
        let mut more = Samples::new();
        more.add_shared(Duration::from_nanos(10), 100);
        more.merge(&samples);
        assert_eq!(more.count(), 1001);
        assert!((more.quantile(0.0) - 100.0).abs() < 1.0, "picoseconds of one in a hundred");
    }

    #[test]
    fn rounds_before_the_measurement_do_not_count() {
        let mut calls = 0;
        let samples = sample(100, || calls += 1);
        assert_eq!((samples.count(), calls), (100, 110));
        let failed: Result<Samples, &str> = try_sample(10, || Err("broken"));
        assert_eq!(failed.unwrap_err(), "broken");
    }

    #[test]
    fn a_spread_is_median_and_ends() {
        let spread = |figures: &[f64]| Spread::of(figures);
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN, f64::INFINITY]), None);
        assert_eq!(spread(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        let even = Spread { median: 3.0, min: 1.0, max: 9.0 };
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some(even));
    }
}
