//! Samples of times, and the tables in which a bench prints them: each figure of ours, then its rivals with
//! the ratio of the medians. The rows are Markdown, as the READMEs have them.

use hdrhistogram::Histogram;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// `rounds`, or a tenth of it when the bench was started with `--quick`.
pub fn rounds(rounds: u32) -> u32 {
    if std::env::args().any(|arg| arg == "--quick") { rounds.div_ceil(10) } else { rounds }
}

/// Binds this thread, and those it starts, to `cpus`.
pub fn bind(cpus: &[usize]) {
    // SAFETY: an all-zero set is a valid empty one; the call reads it and keeps nothing.
    let bound = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET(*cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(bound, 0, "the process may run on its own CPUs");
}

/// Times, kept in picoseconds.
pub struct Samples(Histogram<u64>);

impl Samples {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000_000, 3);
        Self(histogram.expect("a valid range"))
    }

    pub fn add(&mut self, time: Duration) {
        self.add_shared(time, 1);
    }

    /// So much for each of `n`.
    pub fn add_shared(&mut self, time: Duration, n: u32) {
        self.0.saturating_record((time.as_nanos() * 1000 / u128::from(n)) as u64);
    }

    /// In picoseconds.
    pub fn median(&self) -> u64 {
        self.0.value_at_quantile(0.5).max(1)
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
pub fn sample_short<T>(mut round: impl FnMut() -> T) -> Samples {
    const SERIES: u32 = 10_000;
    let mut samples = Samples::new();
    let series = rounds(200);
    for n in 0..series + series / 10 {
        let begun = Instant::now();
        for _ in 0..SERIES {
            black_box(round());
        }
        if n >= series / 10 {
            samples.add_shared(begun.elapsed(), SERIES);
        }
    }
    samples
}

/// A table that is printed row by row.
pub struct Table {
    ours: Option<u64>,
}

impl Table {
    pub fn new(title: &str) -> Self {
        let line = |name: &str, cells: [&str; 4]| print_row(name, &cells.map(String::from));
        println!();
        line(title, ["p50", "p99", "least", "ours : rival"]);
        line(&"-".repeat(WIDTH), ["-------:", "-------:", "-------:", "-----------:"]);
        Self { ours: None }
    }

    pub fn ours(&mut self, name: &str, samples: &Samples) {
        self.ours = Some(samples.median());
        row(name, samples, String::new());
    }

    /// Of the row of ours that was printed last.
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    pub fn rival(&self, name: &str, samples: &Samples) {
        let ratio = self.ours.map_or(0.0, |ours| ours as f64 / samples.median() as f64);
        row(&format!("rival: {name}"), samples, digits(ratio));
    }
}

const WIDTH: usize = 52;

fn row(name: &str, samples: &Samples, ratio: String) {
    let [p50, p99] = [0.5, 0.99].map(|q| show(samples.0.value_at_quantile(q)));
    print_row(name, &[p50, p99, show(samples.0.min()), ratio]);
}

fn print_row(name: &str, [p50, p99, least, ratio]: &[String; 4]) {
    println!("| {name:WIDTH$} | {p50:>8} | {p99:>8} | {least:>8} | {ratio:>12} |");
}

/// Picoseconds with their unit.
#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn show(ps: u64) -> String {
    let ns = ps as f64 / 1e3;
    match ns {
        ..1e3 => format!("{} ns", digits(ns)),
        ..1e6 => format!("{} us", digits(ns / 1e3)),
        _ => format!("{} ms", digits(ns / 1e6)),
    }
}

/// Three of them.
fn digits(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
