//! What the kernel alone takes: rings that post into one another, and sleeps. The perf suite compiles this file as well.

use super::{Samples, bind, sample};
use io_uring::{IoUring, opcode, types};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A ring with the set-up flags of the reactor's.
pub fn ring(entries: u32) -> IoUring {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries)
        .expect("a ring")
}

/// Two threads that post messages into one another's rings, sleeping in the call that posts.
pub fn msg_ring(cpus: [usize; 2], rounds: u32) -> Samples {
    let (to_me, from_other) = mpsc::channel();
    let (to_other, from_me) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        bind(&[cpus[1]]);
        let mut ring = ring(8);
        to_me.send(ring.as_raw_fd()).expect("the other thread waits");
        let target: i32 = from_me.recv().expect("the other thread sends");
        wait(&mut ring);
        for _ in 1..rounds + rounds / 10 {
            post_and_wait(&mut ring, target);
        }
        post(&mut ring, target);
        ring.submit().expect("a submission");
        // Until the message has been taken the ring stays.
        let _ended = from_me.recv();
    });
    bind(&[cpus[0]]);
    let mut ring = ring(8);
    let target = from_other.recv().expect("the thread sends");
    to_other.send(ring.as_raw_fd()).expect("the thread waits");
    let samples = sample(rounds, || post_and_wait(&mut ring, target));
    drop(to_other);
    thread.join().expect("the thread ends");
    samples
}

fn post(ring: &mut IoUring, target: i32) {
    let entry = opcode::MsgRingData::new(types::Fd(target), 0, 1, None)
        .build()
        .flags(io_uring::squeue::Flags::SKIP_SUCCESS);
    // SAFETY: a message points to nothing.
    unsafe { ring.submission().push(&entry) }.expect("room");
}

fn wait(ring: &mut IoUring) {
    while ring.completion().is_empty() {
        ring.submit_and_wait(1).expect("a wait");
    }
    assert_eq!(ring.completion().count(), 1);
}

fn post_and_wait(ring: &mut IoUring, target: i32) {
    post(ring, target);
    ring.submit_and_wait(1).expect("a submission");
    wait(ring);
}

/// How late nanosleep(2) is, with the least timer slack: the floor for every timer.
pub fn nanosleep(time: Duration, rounds: u32) -> Samples {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize) };
    let mut samples = Samples::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        std::thread::sleep(time);
        samples.add(begun.elapsed().saturating_sub(time));
    }
    samples
}
