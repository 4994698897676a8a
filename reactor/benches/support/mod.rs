//! What the benches share: pinning, sampling, and a table of results.

#![allow(dead_code, reason = "each bench uses a part")]

pub mod rivals;

use hdrhistogram::Histogram;
use reactor::{Config, Context, Reactors, run};
use std::future::Future;
use std::time::{Duration, Instant};

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

/// Runs `root` with two core contexts on the given CPUs.
pub fn on_reactors<F, Fut, T>(cpus: [usize; 2], poll_ns_max: u64, root: F) -> T
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut config = Config::with_cores(cpus.to_vec());
    config.poll_ns_max = poll_ns_max;
    run(config, root).expect("the reactors start")
}

/// Runs `task` in `context` and waits for it.
pub async fn inside<F>(context: &Context, task: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    context.spawn("bench", task).await.expect("the bench ends")
}

/// Times in nanoseconds.
pub struct Samples(Histogram<u64>);

impl Samples {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Self(histogram.expect("a valid range"))
    }

    pub fn add(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos() as u64);
    }

    /// So much for each of `n`.
    pub fn add_shared(&mut self, time: Duration, n: u32) {
        self.0.saturating_record((time.as_nanos() / u128::from(n)) as u64);
    }

    pub fn median(&self) -> u64 {
        self.0.value_at_quantile(0.5)
    }

    pub fn print(&self, name: &str) {
        let [p50, p99] = [0.5, 0.99].map(|q| self.0.value_at_quantile(q));
        let (min, max) = (self.0.min(), self.0.max());
        println!("{name:58} {p50:>9} {p99:>9} {min:>9} {max:>10}");
    }
}

pub fn print_head(what: &str) {
    println!("\n{what:58} {:>9} {:>9} {:>9} {:>10}", "p50", "p99", "min", "max");
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
