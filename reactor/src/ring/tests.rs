use super::{AfterEnter, Cqe, Ring, Wait, after_enter};
use io_uring::opcode;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

fn nop(n: u64) -> io_uring::squeue::Entry {
    opcode::Nop::new().build().user_data(n)
}

#[test]
fn ring_of_four_entries_loses_nothing() {
    let mut ring = Ring::new(4).unwrap();
    for n in 0..1000 {
        // SAFETY: a NOP points to nothing.
        unsafe { ring.push(nop(n)) };
    }
    let mut seen: VecDeque<Cqe> = VecDeque::new();
    while seen.len() < 1000 {
        ring.enter(Wait::Forever).unwrap();
        ring.reap(&mut seen);
    }
    let order: Vec<u64> = seen.iter().map(|cqe| cqe.user_data).collect();
    assert_eq!(order, (0..1000).collect::<Vec<u64>>());
    assert!(!ring.has_unsubmitted());
}

#[test]
fn completion_queue_overflow_is_recovered() {
    let mut ring = Ring::new(16).unwrap();
    // Many more completions than the queue of 64 holds, reaped only at the end.
    for n in 0..1000 {
        // SAFETY: a NOP points to nothing.
        unsafe { ring.push(nop(n)) };
    }
    let mut seen: VecDeque<Cqe> = VecDeque::new();
    for _ in 0..40 {
        ring.enter(Wait::No).unwrap();
    }
    while seen.len() < 1000 {
        ring.reap(&mut seen);
        ring.enter(Wait::No).unwrap();
    }
    assert_eq!(seen.len(), 1000);
}

#[test]
fn waiting_ends_with_the_time_limit() {
    let mut ring = Ring::new(4).unwrap();
    let start = Instant::now();
    ring.enter(Wait::For(Duration::from_millis(5))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(5));
    assert!(!ring.has_completions());
}

#[test]
fn each_transient_error_has_its_policy() {
    for (errno, expected) in [
        (4, AfterEnter::Reap),   // EINTR
        (62, AfterEnter::Reap),  // ETIME
        (11, AfterEnter::Reap),  // EAGAIN
        (16, AfterEnter::Reap),  // EBUSY
        (12, AfterEnter::Reap),  // ENOMEM
        (9, AfterEnter::Fail),   // EBADF
        (14, AfterEnter::Fail),  // EFAULT
        (22, AfterEnter::Fail),  // EINVAL
        (125, AfterEnter::Fail), // ECANCELED
    ] {
        assert_eq!(after_enter(&io::Error::from_raw_os_error(errno)), expected, "errno {errno}");
    }
}
