//! What is waited for in reclamation, and crossbeam-epoch beside it. The perf suite compiles this file as well.

use super::{Samples, sample};
use crossbeam_epoch::Collector;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Queues one callback and tells when it ran.
pub async fn callback() -> Duration {
    let (ran, has_run) = reactor::sync::oneshot::channel();
    let begun = Instant::now();
    rcu::call_rcu(move || {
        let _ = ran.send(Instant::now());
    });
    has_run.await.map_or(Duration::ZERO, |at| at - begun)
}

/// Waits for one callback.
pub async fn drain() -> Duration {
    rcu::call_rcu(|| ());
    let begun = Instant::now();
    rcu::drain_call_rcu_co().await;
    begun.elapsed()
}

/// Waits for a grace period.
pub async fn synchronize() -> Duration {
    let begun = Instant::now();
    rcu::synchronize_rcu_co().await;
    begun.elapsed()
}

/// What `f` measures, so often, after a tenth as many that do not count.
pub async fn repeat<Fut: Future<Output = Duration>>(
    rounds: u32,
    mut f: impl FnMut() -> Fut,
) -> Samples {
    let mut samples = Samples::new();
    for n in 0..rounds + rounds / 10 {
        let took = f().await;
        if n >= rounds / 10 {
            samples.add(took);
        }
    }
    samples
}

/// The same thread defers, then pins and flushes until the closure has run.
pub fn crossbeam(rounds: u32) -> Samples {
    let handle = Collector::new().register();
    sample(rounds, || {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        handle.pin().defer(move || flag.store(true, Ordering::Relaxed));
        while !ran.load(Ordering::Relaxed) {
            handle.pin().flush();
        }
    })
}
