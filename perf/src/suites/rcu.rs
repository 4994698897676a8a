//! The crate `rcu` beside crossbeam-epoch alone: sections, callbacks, drains, grace periods.

use super::NOT_FROM_OUTSIDE;
use crate::case::{Bench, Case, Side};
use crate::lab::Lab;
use crate::samples::{Measured, Samples, sample, sample_short};
use crate::{Error, host};
use crossbeam_epoch::Collector;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[path = "../../../rcu/benches/support/waits.rs"]
mod waits;

use waits::{callback, crossbeam, drain, repeat, synchronize};

const SUITE: &str = "rcu";
const ROUNDS: u32 = 20_000;
const SERIES: u32 = 200;
/// Callbacks queued between two drains.
const BATCH: u32 = 1000;

pub(super) fn benches() -> Vec<Bench> {
    vec![sections(), reclamation(), beside_a_reader(), throughput()]
}

/// Nothing, or why not, for so many cases of the peer.
fn no_peer(cases: usize) -> Vec<Measured> {
    vec![Measured::cannot(NOT_FROM_OUTSIDE); cases]
}

/// A read-side section: begin and end.
fn sections() -> Bench {
    let cases = vec![
        Case::time(SUITE, "read-side section, outermost", "ns"),
        Case::time(SUITE, "read-side section, nested", "ns"),
        Case::time(SUITE, "read-side section, inside a reactor's turn", "ns"),
    ];
    Bench::new(cases, |lab, side| {
        host::bind_thread(0, &lab.cpus()[..1])?;
        let series = lab.scaled(SERIES);
        let section = || {
            let guard = rcu::read();
            black_box(&guard);
        };
        let samples = match side {
            Side::Peer => return Ok(no_peer(3)),
            Side::Limit => {
                let handle = Collector::new().register();
                let pin = || {
                    let guard = handle.pin();
                    black_box(&guard);
                };
                let outermost = sample_short(series, pin);
                let pinned = handle.pin();
                let nested = sample_short(series, pin);
                drop(pinned);
                [outermost, nested.clone(), nested]
            }
            Side::Ours => {
                let outermost = sample_short(series, section);
                let outer = rcu::read();
                let nested = sample_short(series, section);
                drop(outer);
                let hook = rcu::turn_hook();
                hook.turn_begin();
                let inside = sample_short(series, section);
                hook.turn_end();
                [outermost, nested, inside]
            }
        };
        Ok(samples.map(Measured::Times).into())
    })
}

/// Runs `root` in `main`, with one core context on each CPU.
fn on_reactors<F, T>(cpus: &[usize], root: F) -> Result<T, Error>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut config = reactor::Config::with_cores(cpus.to_vec());
    config.hooks.push(rcu::turn_hook());
    reactor::run(config, |_| root).map_err(|e| Error::io("reactors", e))
}

/// Nobody reads, one thing at a time, on one CPU.
fn reclamation() -> Bench {
    let cases = vec![
        Case::time(SUITE, "call_rcu to callback, on a reactor", "us"),
        Case::time(SUITE, "drain_call_rcu_co, one callback pending", "us"),
        Case::time(SUITE, "synchronize_rcu_co", "us"),
    ];
    Bench::new(cases, |lab, side| {
        let one = lab.one_cpu().server;
        host::bind_thread(0, &one)?;
        let rounds = lab.scaled(ROUNDS);
        match side {
            Side::Peer => Ok(no_peer(3)),
            Side::Limit => Ok(vec![Measured::Times(crossbeam(rounds)); 3]),
            Side::Ours => {
                let samples = on_reactors(&one, async move {
                    [
                        repeat(rounds, callback).await,
                        repeat(rounds, drain).await,
                        repeat(rounds, synchronize).await,
                    ]
                })?;
                Ok(samples.map(Measured::Times).into())
            }
        }
    })
}

/// A thread that reads without a break in sections of a microsecond, on the last CPU.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Reader {
    fn start(lab: &Lab) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Arc::new(Barrier::new(2));
        let (ours, cpus) = (Arc::clone(&stop), lab.two_cpus().server);
        let ready = Arc::clone(&started);
        let thread = std::thread::spawn(move || {
            let bound = host::bind_thread(0, &cpus);
            drop(rcu::read());
            ready.wait();
            while !ours.load(Ordering::Relaxed) {
                let guard = rcu::read();
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_micros(1) {
                    std::hint::spin_loop();
                }
                drop(guard);
            }
            bound
        });
        started.wait();
        Self { stop, thread }
    }

    fn stop(self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::unexpected("the reader panicked"))?
    }
}

fn beside_a_reader() -> Bench {
    let case = Case::time(SUITE, "drain_call_rcu_co beside a reader, two CPUs", "us");
    Bench::new(vec![case], |lab, side| match side {
        Side::Peer => Ok(no_peer(1)),
        Side::Limit => Ok(Vec::new()),
        Side::Ours => {
            let first = lab.two_cpus().client;
            host::bind_thread(0, &first)?;
            let rounds = lab.scaled(ROUNDS / 10);
            let reader = Reader::start(lab);
            let samples = on_reactors(&first, repeat(rounds, drain))?;
            reader.stop()?;
            Ok(vec![Measured::Times(samples)])
        }
    })
}

fn throughput() -> Bench {
    let name = format!("callback queued and run, {BATCH} between drains");
    let case = Case::time(SUITE, name, "ns");
    Bench::new(vec![case], |lab, side| {
        static RUN: AtomicU64 = AtomicU64::new(0);
        let count = || {
            RUN.fetch_add(1, Ordering::Relaxed);
        };
        let one = lab.one_cpu().server;
        host::bind_thread(0, &one)?;
        let series = lab.scaled(1000);
        let samples = match side {
            Side::Peer => return Ok(no_peer(1)),
            Side::Limit => {
                let handle = Collector::new().register();
                let mut samples = Samples::new();
                for _ in 0..series {
                    let begun = Instant::now();
                    for _ in 0..BATCH {
                        handle.pin().defer(count);
                    }
                    samples.add_shared(begun.elapsed(), BATCH);
                }
                samples
            }
            Side::Ours => on_reactors(&one, async move {
                let mut samples = Samples::new();
                for _ in 0..series {
                    let begun = Instant::now();
                    for _ in 0..BATCH {
                        rcu::call_rcu(count);
                    }
                    rcu::drain_call_rcu_co().await;
                    samples.add_shared(begun.elapsed(), BATCH);
                }
                samples
            })?,
        };
        Ok(vec![Measured::Times(samples)])
    })
}
