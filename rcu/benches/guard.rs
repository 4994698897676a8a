//! What readers and writers pay, beside crossbeam-epoch alone and a read-write lock.
//!
//! `cargo bench -p rcu --bench guard`; a tenth of the samples with `-- --quick`.

#[path = "../../reactor/benches/support/table.rs"]
#[expect(dead_code, reason = "this bench uses a part")]
mod table;

use crossbeam_epoch::{Collector, Owned};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, RwLock};
use std::thread;
use table::{Samples, Table, bind, sample_short};

fn main() {
    let cpus = reactor::allowed_cpus().expect("the affinity mask can be read");
    bind(&cpus[..1]);
    sections();
    bind(&cpus);
    look_ups(1);
    look_ups(2);
    bind(&cpus[..1]);
    deferring();
}

fn sections() {
    let mut table = Table::new("a read-side section, begin and end");
    let collector = Collector::new();
    let handle = collector.register();
    let lock = RwLock::new(0u64);
    let section = || {
        let guard = rcu::read();
        black_box(&guard);
    };
    let pin = || {
        let guard = handle.pin();
        black_box(&guard);
    };
    table.ours("outermost (aim: 5 ns at most)", &sample_short(section));
    table.rival("crossbeam-epoch pin", &sample_short(pin));
    table.rival("std RwLock, uncontended", &sample_short(|| *black_box(&lock).read().unwrap()));
    let outer = rcu::read();
    table.ours("nested", &sample_short(section));
    drop(outer);
    let pinned = handle.pin();
    table.rival("crossbeam-epoch pin, nested", &sample_short(pin));
    drop(pinned);
    let hook = rcu::turn_hook();
    hook.turn_begin();
    table.ours("inside a reactor's turn", &sample_short(section));
    hook.turn_end();
    let turn = sample_short(|| {
        hook.turn_begin();
        hook.turn_end();
    });
    table.ours("a reactor's turn, once for all sections in it", &turn);
    table.rival("crossbeam-epoch pin", &sample_short(pin));
    let list = rcu::RcuList::new();
    (0..16u64).for_each(|n| list.write().push_back(n));
    let walk = sample_short(|| {
        let guard = rcu::read();
        list.iter(&guard).sum::<u64>()
    });
    table.ours("walk of a list of 16, section included", &walk);
    let vector = RwLock::new((0..16u64).collect::<Vec<_>>());
    let walk = sample_short(|| black_box(&vector).read().unwrap().iter().sum::<u64>());
    table.rival("std RwLock around a Vec", &walk);
}

/// What a vCPU's exit does: one section, one look-up in a published table.
fn look_ups(threads: usize) {
    let mut table = Table::new(&format!("section and look-up in a map of 16, {threads} threads"));
    let cell = rcu::RcuCell::new(map());
    let in_cell = || {
        let guard = rcu::read();
        look_up(cell.read(&guard))
    };
    table.ours("RcuCell", &together(threads, &in_cell));
    let lock = RwLock::new(map());
    let in_lock = || look_up(&lock.read().unwrap());
    table.rival("std RwLock without a writer", &together(threads, &in_lock));
}

fn map() -> BTreeMap<u64, u64> {
    (0..16).map(|n| (n * 0x1000, n)).collect()
}

fn look_up(map: &BTreeMap<u64, u64>) -> Option<u64> {
    map.range(..=black_box(0x4321)).next_back().map(|(_, n)| *n)
}

/// Several threads at once; what the first of them measures.
fn together(threads: usize, round: &(impl Fn() -> Option<u64> + Sync)) -> Samples {
    let started = Barrier::new(threads);
    let body = || {
        started.wait();
        sample_short(round)
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(body)).collect();
        let mut all = all.into_iter().map(|thread| thread.join().expect("it ends"));
        let first = all.next().expect("one at least");
        all.for_each(drop);
        first
    })
}

/// Queueing alone, from a thread that is no reactor; the callbacks run behind its back.
fn deferring() {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let count = || {
        RUN.fetch_add(1, Ordering::Relaxed);
    };
    let mut table = Table::new("deferring, cost for the writer");
    let handle = Collector::new().register();
    table.ours("call_rcu", &sample_short(|| rcu::call_rcu(count)));
    rcu::drain_call_rcu();
    // Runs the closures on the way.
    table.rival("crossbeam-epoch pin, defer", &sample_short(|| handle.pin().defer(count)));
    let cell = rcu::RcuCell::new([0u64; 4]);
    table.ours("publish in an RcuCell", &sample_short(|| cell.publish([1; 4])));
    rcu::drain_call_rcu();
    let replace = sample_short(|| {
        let guard = handle.pin();
        let owned = Owned::new([0u64; 4]).into_shared(&guard);
        // SAFETY: nobody else knows of it.
        unsafe { guard.defer_destroy(owned) };
    });
    table.rival("crossbeam-epoch pin, defer_destroy", &replace);
}
