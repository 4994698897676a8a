//! Round trips between contexts, wake-ups from threads, and how late timers are; each beside its rivals.
//!
//! `cargo bench -p reactor --bench latency`; a tenth of the rounds with `-- --quick`. A wake-up of another,
//! idle CPU costs some 30 us on the development machines whoever does it: hence "one CPU" and "two CPUs".

mod support;

use reactor::sync::bounded;
use reactor::{Context, Fd, OpGroup, hop, io, sleep, spawn_local};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use support::round::bottom_half;
use support::table::sample_async;
use support::{Samples, Table, bare, bind, inside, on_reactors, rivals, rounds, sample};

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
    let rounds = rounds(ROUNDS);
    let mut table = Table::new(&format!("round trips, {what}"));
    let hops = on_reactors(cpus, 0, |r| async move {
        let (core, other) = (r.core(0).clone(), r.core(1).clone());
        inside(&core.clone(), hops(core, other)).await
    });
    table.ours("hop there and back", &hops);
    let bare = bare::msg_ring(cpus, rounds);
    table.rival("bare MSG_RING ping-pong", &bare);
    let bhs = on_reactors(cpus, 0, |r| async move {
        let other = r.core(1).clone();
        inside(r.core(0), sample_rounds(move || bottom_half(other.clone()))).await
    });
    table.ours("bottom half there, wake-up back", &bhs);
    table.rival("bare MSG_RING ping-pong", &bare);
    let joins = on_reactors(cpus, 0, |r| async move {
        let other = r.core(1).clone();
        let round = move || other.spawn("round", async {});
        inside(r.core(0), sample_rounds(round)).await
    });
    table.ours("spawn there, join", &joins);
    table.rival("bare MSG_RING ping-pong", &bare);
    let channels = on_reactors(cpus, 0, |r| async move {
        let (echo, core) = (r.core(1).clone(), r.core(0).clone());
        inside(&core, channels(echo)).await
    });
    table.ours("two channels", &channels);
    table.rival("two std channels", &rivals::std_channels(cpus, rounds));
    table.rival("epoll and eventfds", &rivals::epoll_eventfd(cpus, rounds));
    table.rival("two tokio runtimes, two channels", &rivals::tokio_channels(cpus, rounds));
}

async fn hops(core: Context, other: Context) -> Samples {
    sample_async(rounds(ROUNDS), || async {
        hop(&other).await;
        hop(&core).await;
    })
    .await
}

async fn sample_rounds<F: Future>(round: impl FnMut() -> F) -> Samples {
    sample_async(rounds(ROUNDS), round).await
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
    let rounds = rounds(ROUNDS);
    let mut samples = Samples::new();
    for n in 0..rounds + rounds / 10 {
        let begun = Instant::now();
        to_other.send(1u64).await.expect("the task waits");
        from_other.recv().await.expect("the task answers");
        if n >= rounds / 10 {
            samples.add(begun.elapsed());
        }
    }
    drop(to_other);
    task.await.expect("the task ends");
    samples
}

/// A thread rings; a device task answers.
fn eventfds(what: &str, cpus: [usize; 2]) {
    let mut table = Table::new(&format!("eventfd rung by a thread, answered, {what}"));
    let epoll = rivals::epoll_eventfd(cpus, rounds(ROUNDS));
    table.ours("read and written through the ring", &with_device(cpus, read_and_answer));
    table.rival("epoll loop, read, write", &epoll);
    table.ours("watched by the ring, written through it", &with_device(cpus, watch_and_answer));
    table.rival("epoll loop, read, write", &epoll);
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
        let samples = sample(rounds(ROUNDS), || {
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
    for _ in 0..rounds(ROUNDS) + rounds(ROUNDS) / 10 {
        io::read_eventfd(&bell).await.expect("the bell");
        OpGroup::signal_eventfd(answer.as_raw_fd());
    }
    io::read_eventfd(&bell).await.expect("the last bell");
}

async fn watch_and_answer(bell: Fd, answer: OwnedFd) {
    let group = OpGroup::new(1, Rc::new(()));
    group.watch_eventfd(&bell, 0);
    for _ in 0..rounds(ROUNDS) + rounds(ROUNDS) / 10 {
        group.next().await;
        OpGroup::signal_eventfd(answer.as_raw_fd());
    }
    group.next().await;
}

/// Contexts that poll for a while before they sleep are woken by memory.
fn polling(cpus: [usize; 2]) {
    let mut table = Table::new("hop there and back, two CPUs, by poll-max-ns");
    for poll_ns_max in [0, 20_000, 100_000] {
        let samples = on_reactors(cpus, poll_ns_max, |r| async move {
            let (core, other) = (r.core(0).clone(), r.core(1).clone());
            inside(&core.clone(), hops(core, other)).await
        });
        table.ours(&format!("poll-max-ns={poll_ns_max}"), &samples);
    }
}

fn timers(cpus: [usize; 2]) {
    const TIME: Duration = Duration::from_millis(1);
    let times = rounds(3000);
    let mut table = Table::new("lateness of a timer of 1 ms, idle machine");
    let lateness = move || async move {
        let mut samples = Samples::new();
        for _ in 0..times {
            let begun = Instant::now();
            sleep(TIME).await;
            samples.add(begun.elapsed().saturating_sub(TIME));
        }
        samples
    };
    let one = on_reactors(cpus, 0, move |r| async move { inside(r.core(0), lateness()).await });
    table.ours("one timer", &one);
    let nanosleep = bare::nanosleep(TIME, times);
    table.rival("nanosleep, no slack", &nanosleep);
    table.rival("tokio (its wheel turns each ms)", &rivals::tokio_sleep(TIME, times));
    table.rival("monoio", &rivals::monoio_sleep(TIME, times));
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
    table.ours("one timer among 1000 that wait longer", &crowd);
    table.rival("nanosleep, no slack", &nanosleep);
}
