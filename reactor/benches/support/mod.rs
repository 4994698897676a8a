//! What the benches share: tables of results, and contexts to measure in.

#![allow(dead_code, reason = "each bench uses a part")]

pub mod bare;
pub mod rivals;
pub mod round;
pub mod table;

pub use table::{Samples, Table, bind, rounds, sample};

use reactor::{Config, Context, Reactors, run};
use std::future::Future;

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
