//! How long reclamation takes, and how much of it there is in a second; beside crossbeam-epoch alone.
//!
//! `cargo bench -p rcu --bench latency`; a tenth of the rounds with `-- --quick`. "one CPU": everything is
//! bound to one, as a wake-up of another CPU costs 30 us on the development machines and would hide the rest.

#[path = "../../reactor/benches/support/table.rs"]
#[expect(dead_code, reason = "this bench uses a part")]
mod table;
#[path = "support/waits.rs"]
mod waits;

use crossbeam_epoch::Collector;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use table::{Samples, Table, bind, rounds, sample};
use waits::{callback, crossbeam, drain, repeat, synchronize};

const ROUNDS: u32 = 20_000;

fn main() {
    let cpus = reactor::allowed_cpus().expect("the affinity mask can be read");
    for (what, cpus) in [("one CPU", &cpus[..1]), ("all CPUs", &cpus[..])] {
        bind(cpus);
        idle(what, cpus);
    }
    readers(&cpus);
    under_load(&cpus);
    throughput(&cpus);
}

fn on_reactors<F, Fut, T>(cpus: &[usize], root: F) -> T
where
    F: FnOnce(reactor::Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut config = reactor::Config::with_cores(cpus.to_vec());
    config.hooks.push(rcu::turn_hook());
    reactor::run(config, root).expect("the reactors start")
}

/// Nobody reads, one thing at a time.
fn idle(what: &str, cpus: &[usize]) {
    let mut table = Table::new(&format!("reclamation, nobody reads, {what}"));
    let crossbeam = crossbeam(rounds(ROUNDS));
    let [callbacks, drains, grace_periods] = on_reactors(cpus, |_| async {
        let rounds = rounds(ROUNDS);
        [
            repeat(rounds, callback).await,
            repeat(rounds, drain).await,
            repeat(rounds, synchronize).await,
        ]
    });
    let rival = "crossbeam-epoch: defer, pin, flush until run";
    table.ours("call_rcu to callback, on a reactor", &callbacks);
    table.rival(rival, &crossbeam);
    table.ours("drain_call_rcu_co, one callback pending", &drains);
    table.rival(rival, &crossbeam);
    table.ours("synchronize_rcu_co", &grace_periods);
    table.rival(rival, &crossbeam);
    let (callbacks, drains) = plain_thread(cpus);
    let hand_over = hand_over(cpus);
    table.ours("call_rcu to callback, from a plain thread", &callbacks);
    table.rival("std channel to a thread and back", &hand_over);
    table.ours("drain_call_rcu, from a plain thread", &drains);
    table.rival("std channel to a thread and back", &hand_over);
}

/// From the last CPU; the thread `rcu` was started while all was bound to the first one, and stays there.
fn plain_thread(cpus: &[usize]) -> (Samples, Samples) {
    bind(&cpus[cpus.len() - 1..]);
    let (mut callbacks, mut drains) = (Samples::new(), Samples::new());
    for _ in 0..rounds(ROUNDS / 10) {
        let (ran, has_run) = std::sync::mpsc::channel();
        let begun = Instant::now();
        rcu::call_rcu(move || {
            let _ = ran.send(Instant::now());
        });
        callbacks.add(has_run.recv().expect("it runs") - begun);
        rcu::call_rcu(|| ());
        let begun = Instant::now();
        rcu::drain_call_rcu();
        drains.add(begun.elapsed());
    }
    bind(cpus);
    (callbacks, drains)
}

/// What waking a thread on the first CPU and being woken by it costs alone.
fn hand_over(cpus: &[usize]) -> Samples {
    let (ask, asked) = std::sync::mpsc::channel();
    let (answer, answered) = std::sync::mpsc::channel();
    let first = cpus[0];
    let thread = thread::spawn(move || {
        bind(&[first]);
        while let Ok(()) = asked.recv() {
            let _ = answer.send(());
        }
    });
    bind(&cpus[cpus.len() - 1..]);
    let samples = sample(rounds(ROUNDS / 10), || {
        ask.send(()).expect("the thread waits");
        answered.recv().expect("the thread answers");
    });
    drop(ask);
    thread.join().expect("the thread ends");
    bind(cpus);
    samples
}

/// Threads that read without a break, the first on the second CPU and so on round: sections of `section`,
/// then `gap` without.
fn start_readers(
    cpus: &[usize],
    count: usize,
    section: Duration,
    gap: Duration,
) -> (Arc<AtomicBool>, Vec<thread::JoinHandle<()>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let spin = |time: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < time {
            std::hint::spin_loop();
        }
    };
    let started = Arc::new(Barrier::new(count + 1));
    let threads = (0..count)
        .map(|n| {
            let (stop, started) = (Arc::clone(&stop), Arc::clone(&started));
            let cpu = cpus[(n + 1) % cpus.len()];
            thread::spawn(move || {
                bind(&[cpu]);
                drop(rcu::read());
                started.wait();
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..100 {
                        let guard = rcu::read();
                        spin(section);
                        drop(guard);
                        spin(gap);
                    }
                }
            })
        })
        .collect();
    started.wait();
    (stop, threads)
}

fn stop_readers(stop: &AtomicBool, threads: Vec<thread::JoinHandle<()>>) {
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("it reads");
    }
}

fn readers(cpus: &[usize]) {
    let mut table = Table::new("drain_call_rcu_co on the first CPU, by readers");
    let us = Duration::from_micros;
    for (count, section, gap) in [
        (0, us(0), us(0)),
        (1, us(0), us(0)),
        (1, us(1), us(1)),
        (1, us(10), us(10)),
        (2, us(1), us(1)),
        (4, us(1), us(1)),
        (4, us(10), us(10)),
    ] {
        bind(&cpus[..1]);
        let all = cpus.to_vec();
        let samples = on_reactors(cpus, move |_| async move {
            let (stop, threads) = start_readers(&all, count, section, gap);
            let samples = repeat(rounds(ROUNDS), drain).await;
            stop_readers(&stop, threads);
            samples
        });
        table.ours(&format!("{count} readers, sections of {section:?}, {gap:?} between"), &samples);
    }
}

/// Every context queues and waits at once.
fn under_load(cpus: &[usize]) {
    let mut table = Table::new("call_rcu to callback, all contexts at once, 1 reader");
    bind(cpus);
    let all = cpus.to_vec();
    let measured = on_reactors(cpus, |reactors| async move {
        let (stop, threads) =
            start_readers(&all, 1, Duration::from_micros(1), Duration::from_micros(5));
        let mut tasks = Vec::new();
        for context in reactors.all() {
            let task = context.spawn("load", repeat(rounds(ROUNDS / 10), callback));
            tasks.push((context.name().to_owned(), task));
        }
        let mut measured = Vec::new();
        for (name, task) in tasks {
            measured.push((name, task.await.expect("it runs")));
        }
        stop_readers(&stop, threads);
        measured
    });
    for (name, samples) in measured {
        table.ours(&format!("in {name}"), &samples);
    }
    let stats = rcu::stats();
    println!(
        "\n{} grace periods so far, p50 below {} ns, p99 below {} ns; slept in {}, {} membarriers",
        stats.grace_period.count(),
        stats.grace_period.quantile_ns(0.5),
        stats.grace_period.quantile_ns(0.99),
        stats.sleeps,
        stats.membarriers
    );
}

/// Callbacks queued and run, the time for each.
fn throughput(cpus: &[usize]) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let count = || {
        RUN.fetch_add(1, Ordering::Relaxed);
    };
    let mut table = Table::new("callbacks queued and run, each (aim: 200 ns at most)");
    let handle = Collector::new().register();
    let mut crossbeam = Samples::new();
    for _ in 0..rounds(400) {
        let begun = Instant::now();
        for _ in 0..10_000 {
            handle.pin().defer(count);
        }
        crossbeam.add_shared(begun.elapsed(), 10_000);
    }
    for batch in [1u32, 100, 1000, 10_000] {
        let samples = on_reactors(&cpus[..1], move |_| async move {
            let mut samples = Samples::new();
            for _ in 0..rounds((4_000_000 / batch).min(ROUNDS)) {
                let begun = Instant::now();
                for _ in 0..batch {
                    rcu::call_rcu(count);
                }
                rcu::drain_call_rcu_co().await;
                samples.add_shared(begun.elapsed(), batch);
            }
            samples
        });
        table.ours(&format!("on a reactor, {batch} between drains"), &samples);
        table.rival("crossbeam-epoch: pin and defer", &crossbeam);
    }
    let mut samples = Samples::new();
    for _ in 0..rounds(400) {
        let begun = Instant::now();
        for _ in 0..10_000 {
            rcu::call_rcu(count);
        }
        rcu::drain_call_rcu();
        samples.add_shared(begun.elapsed(), 10_000);
    }
    table.ours("from a plain thread, 10000 between drains", &samples);
    table.rival("crossbeam-epoch: pin and defer", &crossbeam);
}
