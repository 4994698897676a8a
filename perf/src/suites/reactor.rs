//! The crate `reactor` beside bare rings: hops between contexts, bottom halves, tasks, timers.

use super::{NOT_FROM_OUTSIDE, Spot};
use crate::Error;
use crate::case::{Bench, Case, Side};
use crate::lab::Lab;
use crate::limit::bare;
use crate::samples::{Measured, Samples, sample_async};
use reactor::{Config, hop, sleep};
use std::time::{Duration, Instant};

#[path = "../../../reactor/benches/support/round.rs"]
mod round;

use round::bottom_half;

const SUITE: &str = "reactor";
const ROUNDS: u32 = 20_000;
const SLEEP: Duration = Duration::from_millis(1);

pub(super) fn benches() -> Vec<Bench> {
    let mut benches: Vec<Bench> = Spot::BOTH.map(round_trips).into();
    benches.push(timers());
    benches
}

/// The CPUs of two contexts.
fn pair(lab: &Lab, spot: Spot) -> [usize; 2] {
    let place = spot.place(lab);
    [place.client[0], place.server[0]]
}

fn round_trips(spot: Spot) -> Bench {
    let named = |what: &str| Case::time(SUITE, format!("{what}, {}", spot.name()), "us");
    let cases = vec![
        named("hop there and back"),
        named("bottom half there, wake-up back"),
        named("spawn there, join"),
    ];
    Bench::new(cases, move |lab, side| {
        let (cpus, rounds) = (pair(lab, spot), lab.scaled(ROUNDS));
        match side {
            Side::Ours => {
                let [hops, halves, joins] = ours(cpus, rounds)?;
                Ok([hops, halves, joins].map(Measured::Times).into())
            }
            Side::Peer => Ok(vec![Measured::cannot(NOT_FROM_OUTSIDE); 3]),
            Side::Limit => {
                let samples = bare::msg_ring(cpus, rounds);
                Ok(vec![Measured::Times(samples); 3])
            }
        }
    })
}

fn ours(cpus: [usize; 2], rounds: u32) -> Result<[Samples; 3], Error> {
    let config = Config::with_cores(cpus.to_vec());
    let result = reactor::run(config, move |reactors| async move {
        let (core, other) = (reactors.core(0).clone(), reactors.core(1).clone());
        let task = core.clone().spawn("bench", async move {
            let hops = sample_async(rounds, || async {
                hop(&other).await;
                hop(&core).await;
            });
            let hops = hops.await;
            let halves = sample_async(rounds, || bottom_half(other.clone())).await;
            let joins = sample_async(rounds, || other.spawn("round", async {})).await;
            [hops, halves, joins]
        });
        task.await
    });
    let joined = result.map_err(|e| Error::io("reactors", e))?;
    joined.map_err(|_| Error::unexpected("the bench was cancelled"))
}

fn timers() -> Bench {
    let case = Case::time(SUITE, "lateness of a timer of 1 ms", "us");
    Bench::new(vec![case], |lab, side| {
        let rounds = lab.scaled(500);
        let samples = match side {
            Side::Ours => lateness(lab.cpus()[0], rounds)?,
            Side::Peer => return Ok(vec![Measured::cannot(NOT_FROM_OUTSIDE)]),
            Side::Limit => bare::nanosleep(SLEEP, rounds),
        };
        Ok(vec![Measured::Times(samples)])
    })
}

fn lateness(cpu: usize, rounds: u32) -> Result<Samples, Error> {
    let result = reactor::run(Config::with_cores(vec![cpu]), move |reactors| async move {
        let task = reactors.core(0).spawn("timers", async move {
            let mut samples = Samples::new();
            for _ in 0..rounds {
                let begun = Instant::now();
                sleep(SLEEP).await;
                samples.add(begun.elapsed().saturating_sub(SLEEP));
            }
            samples
        });
        task.await
    });
    let joined = result.map_err(|e| Error::io("reactors", e))?;
    joined.map_err(|_| Error::unexpected("the bench was cancelled"))
}
