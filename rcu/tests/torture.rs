//! In the manner of rcutorture and QEMU's test-rcu-list: readers of every kind look for anything that was
//! reclaimed under them, while writers, drains, stalls and short-lived threads do their worst.
//!
//! `RCU_TORTURE_SECS` sets how long each test runs (default 2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const POISON: u64 = 0x6b6b_6b6b_6b6b_6b6b;
const WORDS: usize = 16;

fn duration() -> Duration {
    let secs = std::env::var("RCU_TORTURE_SECS")
        .ok()
        .map_or(2.0, |secs| secs.parse::<f64>().expect("RCU_TORTURE_SECS is a number of seconds"));
    Duration::from_secs_f64(secs)
}

/// xorshift64*: the same numbers in each run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

/// A piece of memory that is never really freed, so that a reader which comes too late sees poison instead of
/// undefined behaviour.
struct Slot {
    words: [AtomicU64; WORDS],
}

impl Slot {
    fn fill(&self, value: u64) {
        for word in &self.words {
            word.store(value, Relaxed);
        }
    }
}

struct Pool {
    slots: Vec<Slot>,
    free: Mutex<Vec<usize>>,
    version: AtomicU64,
}

impl Pool {
    fn new(slots: usize) -> Arc<Self> {
        let words = || std::array::from_fn(|_| AtomicU64::new(POISON));
        Arc::new(Self {
            slots: (0..slots).map(|_| Slot { words: words() }).collect(),
            free: Mutex::new((0..slots).collect()),
            version: AtomicU64::new(0),
        })
    }

    /// A slot filled with a new version, unless all wait for their grace period.
    fn allocate(self: &Arc<Self>) -> Option<Element> {
        let slot = self.free.lock().unwrap().pop()?;
        let version = self.version.fetch_add(1, Relaxed) + 1;
        self.slots[slot].fill(version);
        Some(Element { pool: Arc::clone(self), slot, version })
    }
}

/// What the cell and the list hold. Dropping it poisons its slot.
struct Element {
    pool: Arc<Pool>,
    slot: usize,
    version: u64,
}

impl Element {
    /// Panics when the slot is not what it was when published.
    fn check(&self, when: &str) {
        for (n, word) in self.pool.slots[self.slot].words.iter().enumerate() {
            let found = word.load(Relaxed);
            assert!(
                found == self.version,
                "{when}: word {n} of version {} is {found:#x}",
                self.version
            );
        }
    }
}

impl Drop for Element {
    fn drop(&mut self) {
        self.pool.slots[self.slot].fill(POISON);
        self.pool.free.lock().unwrap().push(self.slot);
    }
}

/// What all threads of a test share.
struct Torture {
    stop: AtomicBool,
    pool: Arc<Pool>,
    cell: rcu::RcuCell<Element>,
    list: rcu::RcuList<Element>,
    reads: AtomicU64,
    updates: AtomicU64,
    drains: AtomicU64,
    births: AtomicUsize,
}

impl Torture {
    fn new() -> Arc<Self> {
        let pool = Pool::new(4096);
        let first = pool.allocate().expect("the pool is full");
        Arc::new(Self {
            stop: AtomicBool::new(false),
            cell: rcu::RcuCell::new(first),
            list: rcu::RcuList::new(),
            pool,
            reads: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            drains: AtomicU64::new(0),
            births: AtomicUsize::new(0),
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// One section: look, dawdle, look again.
    fn read(&self, random: &mut Random) {
        let guard = rcu::read();
        let element = self.cell.read(&guard);
        element.check("on entry");
        match random.below(1000) {
            0 => thread::sleep(Duration::from_millis(random.below(5))),
            1..10 => thread::yield_now(),
            10..300 => {
                let nested = rcu::read();
                self.cell.read(&nested).check("nested");
                drop(nested);
            }
            300..350 => self.walk(&guard, random),
            _ => (0..random.below(200)).for_each(|_| std::hint::spin_loop()),
        }
        element.check("before the exit");
        drop(guard);
        self.reads.fetch_add(1, Relaxed);
    }

    fn walk(&self, guard: &rcu::Guard, random: &mut Random) {
        let mut seen = Vec::new();
        for element in self.list.iter(guard) {
            element.check("in the list");
            seen.push(element);
            if random.below(20) == 0 {
                thread::yield_now();
            }
            // The list has 64 elements at most, and ever newer ones while we walk: not without end.
            assert!(seen.len() < 100_000, "the list has a loop");
        }
        for element in seen {
            element.check("after the walk");
        }
    }

    fn publish(&self) -> bool {
        let Some(element) = self.pool.allocate() else { return false };
        self.cell.publish(element);
        self.updates.fetch_add(1, Relaxed);
        true
    }

    /// One change of the list, by its writer of the moment.
    fn change(&self, random: &mut Random) {
        let Some(mut writer) = self.list.try_write() else { return };
        let len = self.list.len() as u64;
        let insert = len == 0 || (len < 64 && random.below(2) == 0);
        let mut cursor = writer.cursor();
        for _ in 0..random.below(len + 1) {
            cursor.move_next();
        }
        if !insert {
            cursor.remove();
        } else if let Some(element) = self.pool.allocate() {
            match random.below(3) {
                0 => cursor.insert_after(element),
                1 => writer.push_front(element),
                _ => writer.push_back(element),
            }
        }
        self.updates.fetch_add(1, Relaxed);
    }

    fn spawn(
        self: &Arc<Self>,
        seed: u64,
        body: impl Fn(&Arc<Self>, &mut Random) + Send + 'static,
    ) -> JoinHandle<()> {
        let this = Arc::clone(self);
        thread::spawn(move || {
            let mut random = Random::new(seed);
            while !this.stopped() {
                body(&this, &mut random);
            }
        })
    }

    /// Plain threads of every kind.
    fn spawn_threads(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        vec![
            self.spawn(1, |this, random| this.read(random)),
            self.spawn(2, |this, random| this.read(random)),
            self.spawn(3, |this, random| {
                if !this.publish() || random.below(100) == 0 {
                    thread::sleep(Duration::from_micros(random.below(300)));
                }
            }),
            self.spawn(4, |this, random| {
                this.change(random);
                if random.below(50) == 0 {
                    thread::sleep(Duration::from_micros(random.below(300)));
                }
            }),
            self.spawn(5, |this, random| {
                // A stall.
                thread::sleep(Duration::from_millis(30));
                let guard = rcu::read();
                let element = this.cell.read(&guard);
                thread::sleep(Duration::from_millis(random.below(40)));
                element.check("after a stall");
            }),
            self.spawn(6, |this, _| this.drain_blocking()),
            self.spawn(7, Torture::birth_and_death),
        ]
    }

    fn drain_blocking(&self) {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        rcu::call_rcu(move || flag.store(true, SeqCst));
        rcu::drain_call_rcu();
        assert!(ran.load(SeqCst), "drain_call_rcu returned before an earlier callback had run");
        self.drains.fetch_add(1, Relaxed);
    }

    /// A thread that is born, reads, defers and dies, reading once more while its storage is torn down.
    fn birth_and_death(self: &Arc<Self>, random: &mut Random) {
        struct ReadsAtTheEnd(Arc<Torture>);
        impl Drop for ReadsAtTheEnd {
            fn drop(&mut self) {
                let guard = rcu::read();
                self.0.cell.read(&guard).check("at the end of a thread");
                self.0.publish();
            }
        }
        thread_local! {
            static LAST: std::cell::RefCell<Option<ReadsAtTheEnd>> = const { std::cell::RefCell::new(None) };
        }
        let (this, seed) = (Arc::clone(self), random.below(1 << 30));
        let thread = thread::spawn(move || {
            LAST.set(Some(ReadsAtTheEnd(Arc::clone(&this))));
            let mut random = Random::new(seed);
            for _ in 0..random.below(20) {
                this.read(&mut random);
            }
            this.publish();
        });
        thread.join().expect("no reader saw anything wrong");
        self.births.fetch_add(1, Relaxed);
    }

    fn report(&self, name: &str) {
        let stats = rcu::stats();
        eprintln!(
            "{name}: {} reads, {} updates, {} drains, {} threads born; {} grace periods, p50 below {} us, \
             {} sleeps, {} membarriers, {} stalls",
            self.reads.load(Relaxed),
            self.updates.load(Relaxed),
            self.drains.load(Relaxed),
            self.births.load(Relaxed),
            stats.grace_period.count(),
            stats.grace_period.quantile_ns(0.5) / 1000,
            stats.sleeps,
            stats.membarriers,
            stats.stalls,
        );
    }
}

fn finish(torture: &Arc<Torture>, threads: Vec<JoinHandle<()>>, name: &str) {
    torture.stop.store(true, Relaxed);
    for thread in threads {
        thread.join().expect("no reader saw anything wrong");
    }
    torture.list.write().clear();
    rcu::drain_call_rcu();
    torture.report(name);
    // The one in the cell is all that is not back.
    assert_eq!(torture.pool.free.lock().unwrap().len(), torture.pool.slots.len() - 1);
    assert!(torture.reads.load(Relaxed) > 0 && torture.updates.load(Relaxed) > 0);
}

#[test]
fn threads_alone() {
    let torture = Torture::new();
    let threads = torture.spawn_threads();
    thread::sleep(duration());
    finish(&torture, threads, "threads alone");
}

/// The same with readers, writers and drains on reactors.
#[test]
fn threads_and_reactors() {
    let torture = Torture::new();
    let threads = torture.spawn_threads();
    let on_reactors = Arc::clone(&torture);
    let mut config = reactor::Config::from_affinity().expect("the affinity mask can be read");
    config.hooks.push(rcu::turn_hook());
    reactor::run(config, move |reactors| async move {
        let tasks: Vec<_> = reactors
            .all()
            .iter()
            .enumerate()
            .flat_map(|(n, context)| {
                let (a, b) = (Arc::clone(&on_reactors), Arc::clone(&on_reactors));
                let reactors = reactors.clone();
                [
                    context.spawn("reader", read_and_write(a, 100 + n as u64)),
                    context.spawn("drainer", drain_and_hop(b, reactors, 200 + n as u64)),
                ]
            })
            .collect();
        let until = Instant::now() + duration();
        reactor::sleep_until(until).await;
        on_reactors.stop.store(true, Relaxed);
        for task in tasks {
            task.await.expect("no task saw anything wrong");
        }
    })
    .expect("the reactors start");
    finish(&torture, threads, "threads and reactors");
}

async fn read_and_write(torture: Arc<Torture>, seed: u64) {
    let mut random = Random::new(seed);
    while !torture.stopped() {
        {
            let guard = rcu::read();
            let element = torture.cell.read(&guard);
            element.check("on a reactor");
            torture.walk(&guard, &mut random);
            element.check("on a reactor, later");
        }
        torture.reads.fetch_add(1, Relaxed);
        match random.below(10) {
            0 => torture.change(&mut random),
            1 => {
                torture.publish();
            }
            2 => reactor::sleep(Duration::from_micros(random.below(500))).await,
            _ => reactor::yield_now().await,
        }
    }
}

async fn drain_and_hop(torture: Arc<Torture>, reactors: reactor::Reactors, seed: u64) {
    let mut random = Random::new(seed);
    while !torture.stopped() {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        rcu::call_rcu(move || {
            // A callback that queues a callback.
            rcu::call_rcu(move || flag.store(true, SeqCst));
        });
        reactor::hop(&reactors.all()[random.below(reactors.all().len() as u64) as usize]).await;
        rcu::drain_call_rcu_co().await;
        rcu::drain_call_rcu_co().await;
        assert!(ran.load(SeqCst), "two drains returned before a callback's callback had run");
        if random.below(4) == 0 {
            rcu::synchronize_rcu_co().await;
        }
        // Dropped half-way.
        let _ =
            reactor::timeout(Duration::from_micros(random.below(200)), rcu::drain_call_rcu_co())
                .await;
        torture.drains.fetch_add(1, Relaxed);
        reactor::yield_now().await;
    }
}

/// Reactors that stop in the middle of everything, again and again.
#[test]
fn runtimes_come_and_go() {
    let torture = Torture::new();
    let threads = vec![
        torture.spawn(11, |this, random| this.read(random)),
        torture.spawn(12, |this, _| this.drain_blocking()),
    ];
    let until = Instant::now() + duration();
    let (dropped, all_dropped) = mpsc::channel::<()>();
    let mut runs = 0;
    while Instant::now() < until {
        runs += 1;
        let (torture, dropped) = (Arc::clone(&torture), dropped.clone());
        let mut config = reactor::Config::from_affinity().expect("the affinity mask can be read");
        config.hooks.push(rcu::turn_hook());
        reactor::run(config, move |reactors| async move {
            for (n, context) in reactors.all().iter().enumerate() {
                let (a, b) = (Arc::clone(&torture), Arc::clone(&torture));
                context.spawn("reader", read_and_write(a, n as u64)).detach();
                context.spawn("drainer", drain_and_hop(b, reactors.clone(), n as u64)).detach();
                let dropped = dropped.clone();
                context
                    .spawn("callbacks", async move {
                        for _ in 0..1000 {
                            let dropped = dropped.clone();
                            rcu::call_rcu(move || drop(dropped));
                        }
                    })
                    .detach();
            }
            reactor::sleep(Duration::from_micros(500 * (runs % 8))).await;
        })
        .expect("the reactors start");
    }
    eprintln!("{runs} runtimes");
    finish(&torture, threads, "runtimes come and go");
    drop(dropped);
    // Every callback of every runtime has run: their senders are gone.
    assert_eq!(all_dropped.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}
