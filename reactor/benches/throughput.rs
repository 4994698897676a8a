//! What things cost that need no other thread, and what a runtime costs in memory; beside their rivals.
//!
//! `cargo bench -p reactor --bench throughput`; a tenth of the samples with `-- --quick`. Times are for one of
//! many, everything is bound to one CPU.

mod support;

use reactor::sync::{Mutex, bounded};
use reactor::{DrainToken, OpGroup, io, sleep, spawn_local, yield_now};
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use support::{Samples, Table, bare, bind, inside, on_reactors, rivals, rounds};

const SAMPLES: u32 = 300;
const BATCH: u32 = 100;

fn main() {
    let cpus = reactor::allowed_cpus().expect("the affinity mask can be read");
    // First, while nothing else has touched memory.
    memory([cpus[0], cpus[cpus.len() - 1]]);
    bind(&cpus[..1]);
    let pair = [cpus[0]; 2];
    tasks(pair);
    ring(pair);
    timers(pair);
    primitives(pair);
    senders(pair);
}

/// Times batches of `BATCH` awaited rounds.
async fn batches<F: Future>(mut batch: impl FnMut() -> F) -> Samples {
    let mut samples = Samples::new();
    for n in 0..rounds(SAMPLES) + rounds(SAMPLES) / 10 {
        let begun = Instant::now();
        batch().await;
        if n >= rounds(SAMPLES) / 10 {
            samples.add_shared(begun.elapsed(), BATCH);
        }
    }
    samples
}

async fn repeat<F: Future>(mut one: impl FnMut() -> F) {
    for _ in 0..BATCH {
        black_box(one().await);
    }
}

fn here<F>(cpus: [usize; 2], bench: fn() -> F) -> Samples
where
    F: Future<Output = Samples> + Send + 'static,
{
    on_reactors(cpus, 0, move |r| async move { inside(r.core(0), bench()).await })
}

fn tasks(cpus: [usize; 2]) {
    let mut table = Table::new("tasks, each");
    let [tokio_one, tokio_many, tokio_yield] = tokio_tasks();
    let [monoio_one, monoio_many] = monoio_tasks();
    let one = || batches(|| repeat(|| reactor::current().spawn("one", async { 1 })));
    table.ours("spawn, join: one after the other", &here(cpus, one));
    table.rival("tokio", &tokio_one);
    table.rival("monoio", &monoio_one);
    let many = || {
        batches(|| async {
            let here = reactor::current();
            let tasks: Vec<_> = (0..BATCH).map(|n| here.spawn("many", async move { n })).collect();
            for task in tasks {
                black_box(task.await.expect("it ends"));
            }
        })
    };
    table.ours("spawn, join: 100 at once", &here(cpus, many));
    table.rival("tokio", &tokio_many);
    table.rival("monoio, whose tasks stay on their thread", &monoio_many);
    let local = on_reactors(cpus, 0, |r| async move {
        let task = r.core(0).spawn_local_with("bench", || {
            batches(|| async {
                let tasks: Vec<_> =
                    (0..BATCH).map(|n| spawn_local("many", async move { n })).collect();
                for task in tasks {
                    black_box(task.await.expect("it ends"));
                }
            })
        });
        task.await.expect("the bench ends")
    });
    table.ours("spawn_local, join: 100 at once", &local);
    table.rival("monoio", &monoio_many);
    table.ours("yield_now", &here(cpus, || batches(|| repeat(yield_now))));
    table.rival("tokio", &tokio_yield);
}

/// One after the other, 100 at once, and yielding.
fn tokio_tasks() -> [Samples; 3] {
    let runtime = rivals::tokio_runtime();
    let one = runtime.block_on(batches(|| repeat(|| tokio::spawn(async { 1 }))));
    let many = runtime.block_on(batches(|| async {
        let tasks: Vec<_> = (0..BATCH).map(|n| tokio::spawn(async move { n })).collect();
        for task in tasks {
            black_box(task.await.expect("it ends"));
        }
    }));
    let yields = runtime.block_on(batches(|| repeat(tokio::task::yield_now)));
    [one, many, yields]
}

/// One after the other, and 100 at once.
fn monoio_tasks() -> [Samples; 2] {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    let mut runtime = builder.build().expect("a runtime");
    let one = runtime.block_on(batches(|| repeat(|| monoio::spawn(async { 1 }))));
    let many = runtime.block_on(batches(|| async {
        let tasks: Vec<_> = (0..BATCH).map(|n| monoio::spawn(async move { n })).collect();
        for task in tasks {
            black_box(task.await);
        }
    }));
    [one, many]
}

fn ring(cpus: [usize; 2]) {
    let mut table = Table::new("NOPs through the ring, each");
    let mut bare = bare::ring(128);
    let (bare_one, bare_many) = (bare_nops(&mut bare, 1), bare_nops(&mut bare, BATCH));
    table.ours("one after the other", &here(cpus, || batches(|| repeat(io::nop))));
    table.rival("bare ring, one an enter", &bare_one);
    let many = || {
        batches(|| async {
            let all: Vec<_> = (0..BATCH).map(|_| io::nop()).collect();
            futures_util::future::join_all(all).await;
        })
    };
    table.ours("100 at once", &here(cpus, many));
    table.rival("bare ring, 100 an enter", &bare_many);
    let group = on_reactors(cpus, 0, |r| async move {
        let task = r.core(0).spawn_local_with("group", || async {
            let group = OpGroup::new(BATCH as usize, Rc::new(()));
            batches(|| async {
                for n in 0..BATCH {
                    group.nop(u64::from(n));
                }
                for _ in 0..BATCH {
                    black_box(group.next().await);
                }
            })
            .await
        });
        task.await.expect("the bench ends")
    });
    table.ours("100 at once, in a group", &group);
    table.rival("bare ring, 100 an enter", &bare_many);
}

fn bare_nops(ring: &mut io_uring::IoUring, at_once: u32) -> Samples {
    let mut samples = Samples::new();
    for _ in 0..rounds(SAMPLES) {
        let begun = Instant::now();
        for _ in 0..BATCH / at_once {
            for _ in 0..at_once {
                let nop = io_uring::opcode::Nop::new().build();
                // SAFETY: a NOP points to nothing.
                unsafe { ring.submission().push(&nop) }.expect("room");
            }
            ring.submit_and_wait(at_once as usize).expect("a submission");
            assert_eq!(ring.completion().count(), at_once as usize);
        }
        samples.add_shared(begun.elapsed(), BATCH);
    }
    samples
}

/// Polls a future once and drops it.
async fn poll_and_drop<F: Future>(future: F) {
    let mut future = pin!(future);
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

fn timers(cpus: [usize; 2]) {
    const FAR: Duration = Duration::from_secs(60);
    let mut table = Table::new("a timer set and cancelled, each");
    let tokio = batches(|| repeat(|| poll_and_drop(tokio::time::sleep(FAR))));
    let tokio = rivals::tokio_runtime().block_on(tokio);
    let alone = || batches(|| repeat(|| poll_and_drop(sleep(FAR))));
    table.ours("alone", &here(cpus, alone));
    table.rival("tokio", &tokio);
    let crowd = on_reactors(cpus, 0, |r| async move {
        let task = r.core(0).spawn_local_with("crowd", || async {
            let others: Vec<_> = (0..1000)
                .map(|n| spawn_local("other", sleep(Duration::from_millis(50_000 + n * 37))))
                .collect();
            yield_now().await;
            let samples = batches(|| repeat(|| poll_and_drop(sleep(FAR)))).await;
            others.iter().for_each(reactor::JoinHandle::cancel);
            samples
        });
        task.await.expect("the bench ends")
    });
    table.ours("among 1000", &crowd);
    table.rival("tokio, alone", &tokio);
}

fn primitives(cpus: [usize; 2]) {
    let mut table = Table::new("primitives without contention, each");
    let (tokio_mutex, tokio_channel) = tokio_primitives();
    let mutex = || async {
        let mutex = Mutex::new(0u64);
        let mut samples = Samples::new();
        for _ in 0..rounds(SAMPLES) {
            let begun = Instant::now();
            for _ in 0..BATCH {
                *mutex.lock().await += 1;
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    };
    table.ours("mutex: lock, unlock", &here(cpus, mutex));
    table.rival("tokio", &tokio_mutex);
    let channel = || async {
        let (sender, mut receiver) = bounded(BATCH as usize);
        let mut samples = Samples::new();
        for _ in 0..rounds(SAMPLES) {
            let begun = Instant::now();
            for n in 0..BATCH {
                sender.send(n).await.expect("room");
                black_box(receiver.recv().await);
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    };
    table.ours("channel: send, receive", &here(cpus, channel));
    table.rival("tokio", &tokio_channel);
    let token = || async {
        let token = DrainToken::new();
        batches(|| repeat(|| token.tag(async {}))).await
    };
    table.ours("drain token: begin, end", &here(cpus, token));
}

fn tokio_primitives() -> (Samples, Samples) {
    let runtime = rivals::tokio_runtime();
    let (mutex, (sender, mut receiver)) =
        (tokio::sync::Mutex::new(0u64), tokio::sync::mpsc::channel(BATCH as usize));
    let mutex = runtime.block_on(async {
        let mut samples = Samples::new();
        for _ in 0..rounds(SAMPLES) {
            let begun = Instant::now();
            for _ in 0..BATCH {
                *mutex.lock().await += 1;
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    });
    let channel = runtime.block_on(async {
        let mut samples = Samples::new();
        for _ in 0..rounds(SAMPLES) {
            let begun = Instant::now();
            for n in 0..BATCH {
                sender.send(n).await.expect("room");
                black_box(receiver.recv().await);
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    });
    (mutex, channel)
}

/// What sending costs the sender while the context is awake or about to be.
fn senders(cpus: [usize; 2]) {
    let mut table = Table::new("sending to a context, cost for the sender, each");
    let std_channel = std_channel();
    let from_reactor = on_reactors(cpus, 0, |r| async move {
        let other = r.core(1).clone();
        let bench = batches(move || {
            let other = other.clone();
            async move {
                for _ in 0..BATCH {
                    other.schedule_bh(|| {});
                }
                yield_now().await;
            }
        });
        inside(r.core(0), bench).await
    });
    table.ours("100 bottom halves from a reactor, one message", &from_reactor);
    table.rival("std channel, sent and run", &std_channel);
    let (done, is_done) = std::sync::mpsc::channel();
    on_reactors(cpus, 0, move |r| async move {
        let core = r.core(0).clone();
        let (ended, end) = reactor::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut samples = Samples::new();
            for _ in 0..rounds(SAMPLES) {
                let begun = Instant::now();
                for _ in 0..BATCH {
                    core.schedule_bh(|| {});
                }
                samples.add_shared(begun.elapsed(), BATCH);
            }
            done.send(samples).expect("main waits");
            ended.send(()).expect("the root waits");
        });
        end.await.expect("the thread ends");
        thread.join().expect("the thread ends");
    });
    table.ours("100 bottom halves from a thread", &is_done.recv().expect("sent"));
    table.rival("std channel, sent and run", &std_channel);
}

fn std_channel() -> Samples {
    let (sender, receiver) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let mut samples = Samples::new();
    for _ in 0..rounds(SAMPLES) {
        let begun = Instant::now();
        for _ in 0..BATCH {
            sender.send(Box::new(|| {})).expect("received below");
        }
        for f in receiver.try_iter() {
            f();
        }
        samples.add_shared(begun.elapsed(), BATCH);
    }
    samples
}

/// What a runtime adds to the process.
fn memory(cpus: [usize; 2]) {
    let before = resident();
    let after = on_reactors(cpus, 0, move |r| async move {
        for context in r.all() {
            context.spawn("touch", io::nop()).await.expect("it ends").expect("a NOP");
        }
        resident()
    });
    println!(
        "a runtime with two cores (five contexts, five threads): +{} KiB of anonymous memory, \
         +{} KiB of rings",
        after.0.saturating_sub(before.0),
        after.1
    );
}

/// Resident KiB: anonymous memory, and io_uring's own pages.
fn resident() -> (u64, u64) {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("procfs");
    let (mut anonymous, mut rings, mut in_ring) = (0, 0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let kib = second.parse::<u64>().unwrap_or(0);
        match first {
            "Anonymous:" => anonymous += kib,
            "Rss:" if in_ring => rings += kib,
            _ if !first.ends_with(':') => in_ring = line.ends_with("[io_uring]"),
            _ => {}
        }
    }
    (anonymous, rings)
}
