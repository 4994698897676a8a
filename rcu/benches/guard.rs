//! What readers and writers pay, in nanoseconds, beside crossbeam-epoch alone and a read-write lock.
//!
//! `cargo bench -p rcu --bench guard`

use crossbeam_epoch::{Collector, Owned};
use divan::{Bencher, black_box};
use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

fn main() {
    divan::main();
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
    #[divan::bench(threads = [1, 2])]
    fn look_up_in_a_cell(bencher: Bencher) {
        let cell = rcu::RcuCell::new(table());
        bencher.bench(|| {
            let guard = rcu::read();
            look_up(cell.read(&guard))
        });
    }

    #[divan::bench(threads = [1, 2])]
    fn look_up_in_a_std_rwlock(bencher: Bencher) {
        let lock = RwLock::new(table());
        bencher.bench(|| look_up(&lock.read().unwrap()));
    }

    fn table() -> BTreeMap<u64, u64> {
        (0..16).map(|n| (n * 0x1000, n)).collect()
    }

    fn look_up(table: &BTreeMap<u64, u64>) -> Option<u64> {
        table.range(..=black_box(0x4321)).next_back().map(|(_, n)| *n)
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
