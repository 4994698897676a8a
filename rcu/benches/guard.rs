//! What readers and writers pay, in nanoseconds, beside crossbeam-epoch alone and a read-write lock.
//!
//! `cargo bench -p rcu --bench guard`

use crossbeam_epoch::{Collector, Owned};
use divan::{Bencher, black_box};
use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() {
    // The benches are bound to one CPU: what is measured is the code, not the scheduler.
    let cpu = reactor::allowed_cpus().ok().and_then(|cpus| cpus.first().copied());
    if let Some(cpu) = cpu {
        pin_to(cpu);
    }
    divan::main();
}

fn pin_to(cpu: usize) {
    // SAFETY: an all-zero set is a valid empty one; the call reads it and keeps nothing.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(pinned, 0, "the process may run on its own CPUs");
}

#[divan::bench_group(sample_count = 200, sample_size = 10_000)]
mod read {
    use super::{BTreeMap, Bencher, Collector, RwLock, black_box};

    #[divan::bench]
    fn outermost(bencher: Bencher) {
        bencher.bench_local(|| {
            let guard = rcu::read();
            black_box(&guard);
        });
    }

    #[divan::bench]
    fn nested(bencher: Bencher) {
        let _outer = rcu::read();
        bencher.bench_local(|| {
            let guard = rcu::read();
            black_box(&guard);
        });
    }

    #[divan::bench]
    fn in_a_turn(bencher: Bencher) {
        let hook = rcu::turn_hook();
        hook.turn_begin();
        bencher.bench_local(|| {
            let guard = rcu::read();
            black_box(&guard);
        });
        hook.turn_end();
    }

    #[divan::bench]
    fn crossbeam_outermost(bencher: Bencher) {
        let handle = Collector::new().register();
        bencher.bench_local(|| {
            let guard = handle.pin();
            black_box(&guard);
        });
    }

    #[divan::bench]
    fn crossbeam_nested(bencher: Bencher) {
        let handle = Collector::new().register();
        let _outer = handle.pin();
        bencher.bench_local(|| {
            let guard = handle.pin();
            black_box(&guard);
        });
    }

    #[divan::bench]
    fn std_rwlock(bencher: Bencher) {
        let lock = RwLock::new(0u64);
        bencher.bench_local(|| *black_box(&lock).read().unwrap());
    }

    /// What a vCPU's exit does: one section, one look-up in a published table.
    #[divan::bench]
    fn look_up_in_a_cell(bencher: Bencher) {
        let map: BTreeMap<u64, u64> = (0..16).map(|n| (n * 0x1000, n)).collect();
        let cell = rcu::RcuCell::new(map);
        bencher.bench_local(|| {
            let guard = rcu::read();
            cell.read(&guard).range(..=black_box(0x4321)).next_back().map(|(_, n)| *n)
        });
    }

    #[divan::bench]
    fn look_up_in_a_std_rwlock(bencher: Bencher) {
        let map: BTreeMap<u64, u64> = (0..16).map(|n| (n * 0x1000, n)).collect();
        let lock = RwLock::new(map);
        bencher.bench_local(|| {
            lock.read().unwrap().range(..=black_box(0x4321)).next_back().map(|(_, n)| *n)
        });
    }

    #[divan::bench]
    fn walk_a_list_of_16(bencher: Bencher) {
        let list = rcu::RcuList::new();
        (0..16u64).for_each(|n| list.write().push_back(n));
        bencher.bench_local(|| {
            let guard = rcu::read();
            list.iter(&guard).sum::<u64>()
        });
    }
}

#[divan::bench_group(sample_count = 200, sample_size = 1000)]
mod turn {
    use super::Bencher;

    /// What a reactor pays once a turn.
    #[divan::bench]
    fn begin_and_end(bencher: Bencher) {
        let hook = rcu::turn_hook();
        bencher.bench_local(|| {
            hook.turn_begin();
            hook.turn_end();
        });
    }
}

#[divan::bench_group(sample_count = 100, sample_size = 1000)]
mod defer {
    use super::{AtomicU64, Bencher, Collector, Ordering, Owned};

    static RUN: AtomicU64 = AtomicU64::new(0);

    /// Queueing alone, from a thread that is no reactor; the callbacks run behind its back.
    #[divan::bench]
    fn call_rcu(bencher: Bencher) {
        bencher.bench_local(|| {
            rcu::call_rcu(|| {
                RUN.fetch_add(1, Ordering::Relaxed);
            });
        });
        rcu::drain_call_rcu();
    }

    /// Its rival runs the closure on the way.
    #[divan::bench]
    fn crossbeam_pin_and_defer(bencher: Bencher) {
        let handle = Collector::new().register();
        bencher.bench_local(|| {
            handle.pin().defer(|| RUN.fetch_add(1, Ordering::Relaxed));
        });
    }

    /// As a user of it would free memory.
    #[divan::bench]
    fn crossbeam_pin_and_defer_destroy(bencher: Bencher) {
        let handle = Collector::new().register();
        bencher.bench_local(|| {
            let guard = handle.pin();
            let owned = Owned::new([0u64; 4]).into_shared(&guard);
            // SAFETY: nobody else knows of it.
            unsafe { guard.defer_destroy(owned) };
        });
    }

    #[divan::bench]
    fn publish_in_a_cell(bencher: Bencher) {
        let cell = rcu::RcuCell::new([0u64; 4]);
        bencher.bench_local(|| cell.publish([1; 4]));
        rcu::drain_call_rcu();
    }
}
