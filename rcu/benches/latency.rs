//! How long reclamation takes, and how much of it there is in a second; beside crossbeam-epoch alone.
//!
//! `cargo bench -p rcu --bench latency`. Percentiles in microseconds. "one CPU": everything is bound to one, as a
//! wake-up of another CPU costs 30 us on the development machines and would hide the rest.

use crossbeam_epoch::Collector;
use hdrhistogram::Histogram;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 20_000;

fn main() {
    let cpus = reactor::allowed_cpus().expect("the affinity mask can be read");
    println!("{:58} {:>8} {:>8} {:>8} {:>8}", "microseconds", "p50", "p99", "max", "min");
    for (what, cpus) in [("one CPU", &cpus[..1]), ("all CPUs", &cpus[..])] {
        bind(cpus);
        println!("-- {what}");
        on_reactors(cpus, idle(cpus.to_vec()));
        crossbeam();
    }
    readers(&cpus);
    under_load(&cpus);
    throughput(&cpus);
}

/// Binds this thread, and those it starts, to `cpus`.
fn bind(cpus: &[usize]) {
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

fn on_reactors<F, Fut>(cpus: &[usize], root: F)
where
    F: FnOnce(reactor::Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut config = reactor::Config::with_cores(cpus.to_vec());
    config.hooks.push(rcu::turn_hook());
    reactor::run(config, root).expect("the reactors start");
}

struct Figure {
    name: String,
    histogram: Histogram<u64>,
}

impl Figure {
    fn new(name: impl Into<String>) -> Self {
        let histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("a valid range");
        Self { name: name.into(), histogram }
    }

    fn record(&mut self, took: Duration) {
        self.histogram.saturating_record(took.as_nanos() as u64);
    }
}

impl Drop for Figure {
    #[expect(clippy::cast_precision_loss, reason = "for reading")]
    fn drop(&mut self) {
        let us = |ns: u64| ns as f64 / 1000.0;
        let h = &self.histogram;
        println!(
            "{:58} {:8.2} {:8.2} {:8.1} {:8.2}",
            self.name,
            us(h.value_at_quantile(0.5)),
            us(h.value_at_quantile(0.99)),
            us(h.max()),
            us(h.min())
        );
    }
}

/// Queues one callback and tells when it ran.
async fn callback() -> Duration {
    let (ran, has_run) = reactor::sync::oneshot::channel();
    let begun = Instant::now();
    rcu::call_rcu(move || {
        let _ = ran.send(Instant::now());
    });
    has_run.await.map_or(Duration::ZERO, |at| at - begun)
}

async fn drain() -> Duration {
    rcu::call_rcu(|| ());
    let begun = Instant::now();
    rcu::drain_call_rcu_co().await;
    begun.elapsed()
}

async fn repeat<Fut: Future<Output = Duration>>(
    name: &str,
    rounds: u64,
    mut f: impl FnMut() -> Fut,
) {
    let mut figure = Figure::new(name);
    for _ in 0..rounds / 10 {
        f().await;
    }
    for _ in 0..rounds {
        figure.record(f().await);
    }
}

/// Nobody reads, one thing at a time.
fn idle(
    cpus: Vec<usize>,
) -> impl FnOnce(reactor::Reactors) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send {
    move |reactors| {
        Box::pin(async move {
            repeat("call_rcu to callback, on a reactor", ROUNDS, callback).await;
            repeat("drain_call_rcu_co, one callback pending", ROUNDS, drain).await;
            repeat("synchronize_rcu_co", ROUNDS, || async {
                let begun = Instant::now();
                rcu::synchronize_rcu_co().await;
                begun.elapsed()
            })
            .await;
            let core = reactors.core(cpus.len() - 1).clone();
            repeat("drain in main, the callback is another context's", ROUNDS / 10, || {
                let core = core.clone();
                async move {
                    let asked = core.spawn("ask", async { rcu::call_rcu(|| ()) });
                    asked.await.expect("the task runs");
                    let begun = Instant::now();
                    rcu::drain_call_rcu_co().await;
                    begun.elapsed()
                }
            })
            .await;
            let outside = thread::spawn(move || {
                // The thread `rcu` was started while all was bound to the first CPU, and stays there.
                bind(&cpus[cpus.len() - 1..]);
                let mut to_callback = Figure::new("call_rcu to callback, from a plain thread");
                let mut to_drain = Figure::new("drain_call_rcu, from a plain thread");
                for _ in 0..ROUNDS / 10 {
                    let (ran, has_run) = std::sync::mpsc::channel();
                    let begun = Instant::now();
                    rcu::call_rcu(move || {
                        let _ = ran.send(Instant::now());
                    });
                    to_callback.record(has_run.recv().expect("it runs") - begun);
                    rcu::call_rcu(|| ());
                    let begun = Instant::now();
                    rcu::drain_call_rcu();
                    to_drain.record(begun.elapsed());
                }
            });
            while !outside.is_finished() {
                reactor::sleep(Duration::from_millis(1)).await;
            }
        })
    }
}

/// The rival: the same thread defers, then pins and flushes until the closure has run.
fn crossbeam() {
    let collector = Collector::new();
    let handle = collector.register();
    let mut figure = Figure::new("crossbeam-epoch: defer, then pin and flush until run");
    for _ in 0..ROUNDS {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let begun = Instant::now();
        handle.pin().defer(move || flag.store(true, Ordering::Relaxed));
        while !ran.load(Ordering::Relaxed) {
            handle.pin().flush();
        }
        figure.record(begun.elapsed());
    }
}

/// Threads that read without a break, the first on the second CPU and so on round: sections of `section`, then `gap` without.
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
    println!("-- drain_call_rcu_co in main, on the first CPU, while plain threads read");
    bind(&cpus[..1]);
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
        let all = cpus.to_vec();
        on_reactors(cpus, move |_| async move {
            let cpus = all;
            let (stop, threads) = start_readers(&cpus, count, section, gap);
            let name = format!("{count} readers, sections of {section:?}, {gap:?} between");
            repeat(&name, ROUNDS, drain).await;
            stop_readers(&stop, threads);
        });
    }
}

/// Every context queues and waits at once.
fn under_load(cpus: &[usize]) {
    println!("-- every context queues callbacks, one plain thread reads");
    bind(cpus);
    let all = cpus.to_vec();
    on_reactors(cpus, |reactors| async move {
        let cpus = all;
        let (stop, threads) =
            start_readers(&cpus, 1, Duration::from_micros(1), Duration::from_micros(5));
        let tasks: Vec<_> = reactors
            .all()
            .iter()
            .map(|context| {
                let name = format!("call_rcu to callback, on {}", context.name());
                context.spawn("load", async move { repeat(&name, ROUNDS / 10, callback).await })
            })
            .collect();
        for task in tasks {
            task.await.expect("it runs");
        }
        stop_readers(&stop, threads);
    });
    let stats = rcu::stats();
    println!(
        "grace periods: {}, p50 below {} ns, p99 below {} ns; slept {} times, {} membarriers",
        stats.grace_period.count(),
        stats.grace_period.quantile_ns(0.5),
        stats.grace_period.quantile_ns(0.99),
        stats.sleeps,
        stats.membarriers
    );
}

/// Callbacks a second, queued and run.
fn throughput(cpus: &[usize]) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    const TOTAL: u64 = 4_000_000;
    let count = || {
        RUN.fetch_add(1, Ordering::Relaxed);
    };
    println!("-- callbacks a second, queued and run");
    for batch in [1u64, 100, 1000, 10_000] {
        on_reactors(&cpus[..1], move |_| async move {
            let total = if batch == 1 { TOTAL / 20 } else { TOTAL };
            let begun = Instant::now();
            for _ in 0..total / batch {
                for _ in 0..batch {
                    rcu::call_rcu(count);
                }
                rcu::drain_call_rcu_co().await;
            }
            print_rate(&format!("on a reactor, {batch} between drains"), total, begun.elapsed());
        });
    }
    let begun = Instant::now();
    for _ in 0..TOTAL / 10_000 {
        for _ in 0..10_000 {
            rcu::call_rcu(count);
        }
        rcu::drain_call_rcu();
    }
    print_rate("from a plain thread, 10000 between drains", TOTAL, begun.elapsed());
    let handle = Collector::new().register();
    let begun = Instant::now();
    for _ in 0..TOTAL {
        handle.pin().defer(count);
    }
    print_rate("crossbeam-epoch: pin and defer", TOTAL, begun.elapsed());
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn print_rate(name: &str, count: u64, took: Duration) {
    println!("{name:58} {:8.2} million", count as f64 / took.as_secs_f64() / 1e6);
}
