//! What things cost that need no other thread, and what a runtime costs in memory; beside their rivals.
//!
//! `cargo bench -p reactor --bench throughput`. Nanoseconds for one of many. Everything is bound to one CPU.

mod support;

use reactor::sync::{Mutex, bounded};
use reactor::{DrainToken, OpGroup, io, sleep, spawn_local, yield_now};
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use support::{Samples, bind, inside, on_reactors, print_head, rivals};

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
    for n in 0..SAMPLES + SAMPLES / 10 {
        let begun = Instant::now();
        batch().await;
        if n >= SAMPLES / 10 {
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
    print_head("tasks, ns each");
    let one = || batches(|| repeat(|| reactor::current().spawn("one", async { 1 })));
    here(cpus, one).print("spawn, join: one after the other");
    let many = || {
        batches(|| async {
            let here = reactor::current();
            let tasks: Vec<_> = (0..BATCH).map(|n| here.spawn("many", async move { n })).collect();
            for task in tasks {
                black_box(task.await.expect("it ends"));
            }
        })
    };
    here(cpus, many).print("spawn, join: 100 at once");
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
    local.print("spawn_local, join: 100 at once");
    here(cpus, || batches(|| repeat(yield_now))).print("yield_now");
    tokio_tasks();
    monoio_tasks();
}

fn tokio_tasks() {
    let runtime = rivals::tokio_runtime();
    let one = batches(|| repeat(|| tokio::spawn(async { 1 })));
    runtime.block_on(one).print("  rival: tokio, one after the other");
    let many = batches(|| async {
        let tasks: Vec<_> = (0..BATCH).map(|n| tokio::spawn(async move { n })).collect();
        for task in tasks {
            black_box(task.await.expect("it ends"));
        }
    });
    runtime.block_on(many).print("  rival: tokio, 100 at once");
    let yields = batches(|| repeat(tokio::task::yield_now));
    runtime.block_on(yields).print("  rival: tokio, yield_now");
}

fn monoio_tasks() {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    let mut runtime = builder.build().expect("a runtime");
    let one = batches(|| repeat(|| monoio::spawn(async { 1 })));
    runtime.block_on(one).print("  rival: monoio, one after the other");
    let many = batches(|| async {
        let tasks: Vec<_> = (0..BATCH).map(|n| monoio::spawn(async move { n })).collect();
        for task in tasks {
            black_box(task.await);
        }
    });
    runtime.block_on(many).print("  rival: monoio, 100 at once");
}

fn ring(cpus: [usize; 2]) {
    print_head("NOPs through the ring, ns each");
    here(cpus, || batches(|| repeat(io::nop))).print("one after the other");
    let many = || {
        batches(|| async {
            let all: Vec<_> = (0..BATCH).map(|_| io::nop()).collect();
            futures_util::future::join_all(all).await;
        })
    };
    here(cpus, many).print("100 at once");
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
    group.print("100 at once, in a group");
    let mut bare = rivals::ring(128);
    bare_nops(&mut bare, 1).print("  rival: bare ring, one an enter");
    bare_nops(&mut bare, BATCH).print("  rival: bare ring, 100 an enter");
}

fn bare_nops(ring: &mut io_uring::IoUring, at_once: u32) -> Samples {
    let mut samples = Samples::new();
    for _ in 0..SAMPLES {
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
    print_head("a timer set and cancelled, ns each");
    here(cpus, || batches(|| repeat(|| poll_and_drop(sleep(FAR))))).print("alone");
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
    crowd.print("among 1000");
    let tokio = batches(|| repeat(|| poll_and_drop(tokio::time::sleep(FAR))));
    rivals::tokio_runtime().block_on(tokio).print("  rival: tokio");
}

fn primitives(cpus: [usize; 2]) {
    print_head("primitives without contention, ns each");
    let mutex = || async {
        let mutex = Mutex::new(0u64);
        let mut samples = Samples::new();
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            for _ in 0..BATCH {
                *mutex.lock().await += 1;
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    };
    here(cpus, mutex).print("mutex: lock, unlock");
    let channel = || async {
        let (sender, mut receiver) = bounded(BATCH as usize);
        let mut samples = Samples::new();
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            for n in 0..BATCH {
                sender.send(n).await.expect("room");
                black_box(receiver.recv().await);
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    };
    here(cpus, channel).print("channel: send, receive");
    let token = || async {
        let token = DrainToken::new();
        batches(|| repeat(|| token.tag(async {}))).await
    };
    here(cpus, token).print("drain token: begin, end");
    let runtime = rivals::tokio_runtime();
    let (mutex, (sender, mut receiver)) =
        (tokio::sync::Mutex::new(0u64), tokio::sync::mpsc::channel(BATCH as usize));
    let tokio_mutex = runtime.block_on(async {
        let mut samples = Samples::new();
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            for _ in 0..BATCH {
                *mutex.lock().await += 1;
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    });
    tokio_mutex.print("  rival: tokio, mutex");
    let tokio_channel = runtime.block_on(async {
        let mut samples = Samples::new();
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            for n in 0..BATCH {
                sender.send(n).await.expect("room");
                black_box(receiver.recv().await);
            }
            samples.add_shared(begun.elapsed(), BATCH);
        }
        samples
    });
    tokio_channel.print("  rival: tokio, channel");
}

/// What sending costs the sender while the context is awake or about to be.
fn senders(cpus: [usize; 2]) {
    print_head("sending to a context, cost for the sender, ns each");
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
    from_reactor.print("100 bottom halves from a reactor, one message");
    let (done, is_done) = std::sync::mpsc::channel();
    on_reactors(cpus, 0, move |r| async move {
        let core = r.core(0).clone();
        let (ended, end) = reactor::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut samples = Samples::new();
            for _ in 0..SAMPLES {
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
    is_done.recv().expect("sent").print("100 bottom halves from a thread");
    let (sender, receiver) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let mut samples = Samples::new();
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        for _ in 0..BATCH {
            sender.send(Box::new(|| {})).expect("received below");
        }
        for f in receiver.try_iter() {
            f();
        }
        samples.add_shared(begun.elapsed(), BATCH);
    }
    samples.print("  rival: std channel, sent and run");
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
