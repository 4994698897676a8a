//! What others do: channels, eventfds, and other runtimes.

use super::{Samples, bind, sample};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

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
