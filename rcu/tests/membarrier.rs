//! Losing `membarrier` to a seccomp filter while running: readers fence for themselves from then on, and no wake-up
//! is lost. In a process of its own, as the filter stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Makes `membarrier` fail with EPERM in every thread.
fn forbid_membarrier() {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let errno = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_membarrier as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, errno),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and the filter it points to live through the calls, which copy them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let set = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        );
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Grace periods one after the other, each of which finds a reader that leaves just when it goes to sleep, until
/// that has happened `count` times; returns the longest.
fn grace_periods(count: u64) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let reader = thread::spawn(move || {
        while !stopped.load(Relaxed) {
            let guard = rcu::read();
            let before = rcu::stats().sleeps;
            while rcu::stats().sleeps == before && !stopped.load(Relaxed) {
                thread::yield_now();
            }
            drop(guard);
        }
    });
    let mut longest = Duration::ZERO;
    let enough = rcu::stats().sleeps + count;
    while rcu::stats().sleeps < enough {
        let begun = Instant::now();
        rcu::call_rcu(|| ());
        rcu::drain_call_rcu();
        longest = longest.max(begun.elapsed());
    }
    stop.store(true, Relaxed);
    reader.join().expect("it reads");
    longest
}

#[test]
fn no_wakeup_is_lost_with_membarrier() {
    rcu::set_stall_limit(Duration::from_secs(60));
    let with = grace_periods(300);
    forbid_membarrier();
    let without = grace_periods(300);
    // A lost wake-up would be made good by the stall report, a minute later.
    assert!(with < Duration::from_secs(30) && without < Duration::from_secs(30));
    eprintln!("longest: {with:?} with, {without:?} without");
}
