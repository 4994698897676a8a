//! Round trips between contexts, wake-ups from threads, and how late timers are; each beside its rivals.
//!
//! `cargo bench -p reactor --bench latency`. Nanoseconds. A wake-up of another, idle CPU costs some 30 us on
//! the development machines whoever does it: hence "one CPU" and "two CPUs".

mod support;

use reactor::sync::bounded;
use reactor::{Context, Fd, OpGroup, hop, io, sleep, spawn_local};
use std::future::poll_fn;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use support::{Samples, bind, inside, on_reactors, print_head, rivals, sample, sample_async};

const ROUNDS: u32 = 20_000;

fn main() {
    let cpus = reactor::allowed_cpus().expect("the affinity mask can be read");
    let last = cpus[cpus.len() - 1];
    for (what, pair) in [("one CPU", [cpus[0]; 2]), ("two CPUs", [cpus[0], last])] {
        bind(&cpus[..1]);
        round_trips(what, pair);
        bind(&cpus[..1]);
        eventfds(what, pair);
    }
    bind(&cpus);
    polling([cpus[0], last]);
    bind(&cpus);
    timers([cpus[0], last]);
}

fn round_trips(what: &str, cpus: [usize; 2]) {
    print_head(&format!("round trips, {what}, ns"));
    let bare = rivals::msg_ring(cpus, ROUNDS);
    let hops = on_reactors(cpus, 0, |r| async move {
        let (core, other) = (r.core(0).clone(), r.core(1).clone());
        inside(&core.clone(), hops(core, other)).await
    });
    hops.print("hop there and back");
    bare.print("  rival: bare MSG_RING ping-pong");
    let bhs = on_reactors(cpus, 0, |r| async move {
        let other = r.core(1).clone();
        inside(r.core(0), sample_rounds(move || bottom_half(other.clone()))).await
    });
    bhs.print("bottom half there, wake-up back");
    let joins = on_reactors(cpus, 0, |r| async move {
        let other = r.core(1).clone();
        let round = move || other.spawn("round", async {});
        inside(r.core(0), sample_rounds(round)).await
    });
    joins.print("spawn there, join");
    on_reactors(cpus, 0, |r| async move {
        let (echo, core) = (r.core(1).clone(), r.core(0).clone());
        inside(&core, channels(echo)).await
    })
    .print("two channels");
    rivals::std_channels(cpus, ROUNDS).print("  rival: two std channels");
    rivals::epoll_eventfd(cpus, ROUNDS).print("  rival: epoll and eventfds");
    rivals::tokio_channels(cpus, ROUNDS).print("  rival: two tokio runtimes, two channels");
    let percent = hops.median() * 100 / bare.median();
    println!("a hop takes {percent} % of a bare MSG_RING ping-pong (aim: 150 % at most)");
}

async fn hops(core: Context, other: Context) -> Samples {
    let mut samples = Samples::new();
    for n in 0..ROUNDS + ROUNDS / 10 {
        let begun = Instant::now();
        hop(&other).await;
        hop(&core).await;
        if n >= ROUNDS / 10 {
            samples.add(begun.elapsed());
        }
    }
    samples
}

async fn sample_rounds<F: Future>(round: impl FnMut() -> F) -> Samples {
    sample_async(ROUNDS, round).await
}

/// A bottom half there wakes this task.
async fn bottom_half(other: Context) {
    let done = Arc::new(AtomicBool::new(false));
    let mut sent = false;
    poll_fn(|cx| {
        if !sent {
            sent = true;
            let (done, waker) = (Arc::clone(&done), cx.waker().clone());
            other.schedule_bh(move || {
                done.store(true, Ordering::Release);
                waker.wake();
            });
        }
        if done.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn channels(echo: Context) -> Samples {
    let (to_other, mut from_me) = bounded(1);
    let (to_me, mut from_other) = bounded(1);
    let task = echo.spawn("echo", async move {
        while let Some(value) = from_me.recv().await {
            if to_me.send(value).await.is_err() {
                return;
            }
        }
    });
    let mut samples = Samples::new();
    for n in 0..ROUNDS + ROUNDS / 10 {
        let begun = Instant::now();
        to_other.send(1u64).await.expect("the task waits");
        from_other.recv().await.expect("the task answers");
        if n >= ROUNDS / 10 {
            samples.add(begun.elapsed());
        }
    }
    drop(to_other);
    task.await.expect("the task ends");
    samples
}

/// A thread rings; a device task answers.
fn eventfds(what: &str, cpus: [usize; 2]) {
    print_head(&format!("eventfd rung by a thread, answered, {what}, ns"));
    with_device(cpus, read_and_answer).print("read through the ring, write through the ring");
    with_device(cpus, watch_and_answer).print("watched (multishot poll), write through the ring");
    rivals::epoll_eventfd(cpus, ROUNDS).print("  rival: epoll loop, read, write");
}

fn with_device<F>(cpus: [usize; 2], device: fn(Fd, OwnedFd) -> F) -> Samples
where
    F: Future<Output = ()> + 'static,
{
    let (bell, answer) = (rivals::eventfd(), rivals::nonblocking_eventfd());
    let (ring, heard) = (bell.try_clone().expect("dup"), answer.try_clone().expect("dup"));
    let (send, receive) = std::sync::mpsc::channel();
    let (ready, is_ready) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        bind(&[cpus[0]]);
        let epoll = rivals::epoll(&heard);
        is_ready.recv().expect("the device is ready");
        let samples = sample(ROUNDS, || {
            rivals::signal(&ring);
            rivals::epoll_wait(&epoll);
            rivals::take(&heard);
        });
        send.send(samples).expect("main waits");
        rivals::signal(&ring);
    });
    on_reactors([cpus[1]; 2], 0, move |r| async move {
        let device = r.core(0).spawn_local_with("device", move || device(bell.into(), answer));
        ready.send(()).expect("the thread waits");
        // As many as the thread rings.
        device.await.expect("the device ends");
    });
    thread.join().expect("the thread ends");
    receive.recv().expect("the thread has sent")
}

async fn read_and_answer(bell: Fd, answer: OwnedFd) {
    for _ in 0..ROUNDS + ROUNDS / 10 {
        io::read_eventfd(&bell).await.expect("the bell");
        OpGroup::signal_eventfd(answer.as_raw_fd());
    }
    io::read_eventfd(&bell).await.expect("the last bell");
}

async fn watch_and_answer(bell: Fd, answer: OwnedFd) {
    let group = OpGroup::new(1, Rc::new(()));
    group.watch_eventfd(&bell, 0);
    for _ in 0..ROUNDS + ROUNDS / 10 {
        group.next().await;
        OpGroup::signal_eventfd(answer.as_raw_fd());
    }
    group.next().await;
}

/// Contexts that poll for a while before they sleep are woken by memory.
fn polling(cpus: [usize; 2]) {
    print_head("hop there and back, two CPUs, poll-max-ns, ns");
    for poll_ns_max in [20_000, 100_000] {
        let samples = on_reactors(cpus, poll_ns_max, |r| async move {
            let (core, other) = (r.core(0).clone(), r.core(1).clone());
            inside(&core.clone(), hops(core, other)).await
        });
        samples.print(&format!("poll-max-ns={poll_ns_max}"));
    }
}

fn timers(cpus: [usize; 2]) {
    const TIME: Duration = Duration::from_millis(1);
    const TIMES: u32 = 3000;
    print_head("lateness of a timer of 1 ms, idle machine, ns");
    let lateness = || async {
        let mut samples = Samples::new();
        for _ in 0..TIMES {
            let begun = Instant::now();
            sleep(TIME).await;
            samples.add(begun.elapsed().saturating_sub(TIME));
        }
        samples
    };
    on_reactors(cpus, 0, move |r| async move { inside(r.core(0), lateness()).await })
        .print("one timer");
    let crowd = on_reactors(cpus, 0, move |r| async move {
        let task = r.core(0).spawn_local_with("crowd", move || async move {
            let others: Vec<_> = (0..1000)
                .map(|n| spawn_local("other", sleep(Duration::from_secs(3600 + n))))
                .collect();
            let samples = lateness().await;
            others.iter().for_each(reactor::JoinHandle::cancel);
            samples
        });
        task.await.expect("the bench ends")
    });
    crowd.print("one timer among 1000 that wait longer");
    rivals::nanosleep(TIME, TIMES).print("  rival: nanosleep, no slack");
    rivals::tokio_sleep(TIME, TIMES).print("  rival: tokio (its wheel turns each ms)");
    rivals::monoio_sleep(TIME, TIMES).print("  rival: monoio");
}
