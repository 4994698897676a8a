//! What others do: bare rings, channels, eventfds, and other runtimes.

use super::{Samples, bind, sample};
use io_uring::{IoUring, opcode, types};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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

/// Two threads and two channels of the standard library.
pub fn std_channels(cpus: [usize; 2], rounds: u32) -> Samples {
    let (to_other, from_me) = mpsc::channel();
    let (to_me, from_other) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        bind(&[cpus[1]]);
        while let Ok(value) = from_me.recv() {
            if to_me.send(value).is_err() {
                return;
            }
        }
    });
    bind(&[cpus[0]]);
    let samples = sample(rounds, || {
        to_other.send(1u64).expect("the thread waits");
        from_other.recv().expect("the thread answers");
    });
    drop(to_other);
    thread.join().expect("the thread ends");
    samples
}

pub fn eventfd() -> OwnedFd {
    // SAFETY: eventfd(2) takes no pointer, and the descriptor is new.
    unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) }
}

/// As KVM's irqfds are. The ring writes to one at once; a blocking one it would hand to a worker thread.
pub fn nonblocking_eventfd() -> OwnedFd {
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
    // SAFETY: eventfd(2) takes no pointer, and the descriptor is new.
    unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, flags)) }
}

pub fn signal(fd: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the bytes live through the call.
    assert_eq!(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), 8) }, 8);
}

pub fn take(fd: &OwnedFd) {
    let mut count = [0u8; 8];
    // SAFETY: as above.
    assert_eq!(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), 8) }, 8);
}

/// An epoll instance that watches one descriptor.
pub fn epoll(fd: &OwnedFd) -> OwnedFd {
    // SAFETY: takes no pointer, and the descriptor is new.
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    // SAFETY: the event lives through the call.
    let result = unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
    };
    assert_eq!(result, 0);
    epoll
}

pub fn epoll_wait(epoll: &OwnedFd) {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // Again after a signal, as a profiler sends.
    // SAFETY: the event lives through the call.
    while unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, -1) } != 1 {}
}

/// Two threads, each in an epoll loop over an eventfd.
pub fn epoll_eventfd(cpus: [usize; 2], rounds: u32) -> Samples {
    let (ping, pong) = (eventfd(), eventfd());
    let (their_ping, their_pong) = (ping.try_clone().expect("dup"), pong.try_clone().expect("dup"));
    let thread = std::thread::spawn(move || {
        bind(&[cpus[1]]);
        let epoll = epoll(&their_ping);
        for _ in 0..rounds + rounds / 10 {
            epoll_wait(&epoll);
            take(&their_ping);
            signal(&their_pong);
        }
    });
    bind(&[cpus[0]]);
    let epoll = epoll(&pong);
    let samples = sample(rounds, || {
        signal(&ping);
        epoll_wait(&epoll);
        take(&pong);
    });
    thread.join().expect("the thread ends");
    samples
}

pub fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Two current-thread runtimes of tokio and two of its channels.
pub fn tokio_channels(cpus: [usize; 2], rounds: u32) -> Samples {
    let (to_other, mut from_me) = tokio::sync::mpsc::channel(1);
    let (to_me, mut from_other) = tokio::sync::mpsc::channel(1);
    let thread = std::thread::spawn(move || {
        bind(&[cpus[1]]);
        tokio_runtime().block_on(async move {
            while let Some(value) = from_me.recv().await {
                if to_me.send(value).await.is_err() {
                    return;
                }
            }
        });
    });
    bind(&[cpus[0]]);
    let samples = tokio_runtime().block_on(async move {
        let mut samples = Samples::new();
        for n in 0..rounds + rounds / 10 {
            let begun = Instant::now();
            to_other.send(1u64).await.expect("the thread waits");
            from_other.recv().await.expect("the thread answers");
            if n >= rounds / 10 {
                samples.add(begun.elapsed());
            }
        }
        samples
    });
    thread.join().expect("the thread ends");
    samples
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

pub fn tokio_sleep(time: Duration, rounds: u32) -> Samples {
    tokio_runtime().block_on(async move {
        let mut samples = Samples::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            tokio::time::sleep(time).await;
            samples.add(begun.elapsed().saturating_sub(time));
        }
        samples
    })
}

pub fn monoio_sleep(time: Duration, rounds: u32) -> Samples {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    builder.enable_timer().build().expect("a runtime").block_on(async move {
        let mut samples = Samples::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            monoio::time::sleep(time).await;
            samples.add(begun.elapsed().saturating_sub(time));
        }
        samples
    })
}
