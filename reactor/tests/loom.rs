//! loom models of what is lock-free: sleeping and waking, the queue, tasks that are woken, hop and are
//! cancelled, bottom halves, drains, and the reader-writer gate. The sources are the crate's own, built
//! here over loom's atomics; every interleaving up to a bound on preemptions is tried, and a lost wake-up
//! shows as a deadlock.

/// What `src/primitive.rs` is in the crate.
mod primitive {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence,
    };
}

#[path = "../src/bh/flags.rs"]
mod flags;
#[path = "../src/sync/rwlock/gate.rs"]
#[expect(dead_code, reason = "the models need not use all of it")]
mod gate;
#[path = "../src/drain/phases.rs"]
mod phases;
#[path = "../src/queue.rs"]
mod queue;
#[path = "../src/task/state.rs"]
mod state;
#[path = "../src/wake.rs"]
mod wake;

use flags::Flags;
use gate::Gate;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use phases::Phases;
use primitive::{AtomicBool, AtomicUsize, Ordering};
use queue::Mpsc;
use state::TaskState;
use wake::{Notify, WakeState};

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// A value without a lock: loom fails where two threads touch it at once, or one after the other without
/// an order between them.
struct Watched<T>(loom::cell::UnsafeCell<T>);

impl<T: Copy> Watched<T> {
    fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    fn get(&self) -> T {
        // SAFETY: loom checks that nobody changes it meanwhile, and fails first.
        self.0.with(|value| unsafe { *value })
    }

    fn set(&self, value: T) {
        // SAFETY: loom checks that nobody else has it meanwhile, and fails first.
        self.0.with_mut(|place| unsafe { *place = value });
    }
}

/// Something that is posted, and waited for: an io_uring completion, a waker.
#[derive(Default)]
struct Bell {
    rung: Mutex<u32>,
    changed: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self { rung: Mutex::new(0), changed: Condvar::new() }
    }

    fn ring(&self) -> u32 {
        let mut rung = self.rung.lock().unwrap();
        *rung += 1;
        self.changed.notify_one();
        *rung
    }

    /// Takes one; waits for it.
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while *rung == 0 {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung -= 1;
    }

    /// Takes one if it is there.
    fn try_wait(&self) -> bool {
        let mut rung = self.rung.lock().unwrap();
        let there = *rung > 0;
        *rung -= u32::from(there);
        there
    }
}

struct Context {
    queue: Mpsc<usize>,
    wake: WakeState,
    messages: Bell,
}

impl Context {
    fn send(&self, value: usize) {
        self.queue.push(value).unwrap();
        if self.wake.notify() == Notify::Send {
            assert_eq!(self.messages.ring(), 1, "one message in flight at most");
        }
    }

    /// The owner's loop until `expected` values have come; it wakes for nothing `idle` times.
    fn serve(&self, expected: usize, mut idle: usize) -> Vec<usize> {
        let mut seen = Vec::new();
        loop {
            seen.extend(self.queue.take());
            if seen.len() == expected {
                return seen;
            }
            self.wake.prepare_sleep();
            let mut message = false;
            if self.queue.is_empty() {
                if idle > 0 {
                    idle -= 1;
                    message = self.messages.try_wait();
                } else {
                    self.messages.wait();
                    message = true;
                }
            }
            self.wake.awake();
            if message || self.messages.try_wait() {
                self.wake.message_arrived();
            }
        }
    }
}

fn wake_ups(senders: usize, each: usize, idle: usize, preemptions: usize) {
    model(preemptions, move || {
        let context =
            Arc::new(Context { queue: Mpsc::new(), wake: WakeState::new(), messages: Bell::new() });
        let threads: Vec<_> = (0..senders)
            .map(|sender| {
                let context = Arc::clone(&context);
                thread::spawn(move || {
                    for n in 0..each {
                        context.send(sender * each + n);
                    }
                })
            })
            .collect();
        let mut seen = context.serve(senders * each, idle);
        seen.sort_unstable();
        assert_eq!(seen, (0..senders * each).collect::<Vec<_>>());
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn no_wake_up_of_two_senders_is_lost() {
    wake_ups(2, 1, 0, 3);
}

#[test]
fn no_second_wake_up_of_a_sender_is_lost() {
    wake_ups(1, 3, 0, 3);
}

#[test]
fn no_wake_up_is_lost_to_a_wake_up_for_nothing() {
    wake_ups(2, 1, 1, 3);
}

#[test]
fn no_wake_up_is_lost_to_the_message_before() {
    wake_ups(2, 2, 0, 2);
}

#[test]
fn queue_keeps_each_senders_order_and_closes_for_good() {
    model(3, || {
        let queue = Arc::new(Mpsc::new());
        let threads: Vec<_> = (0..2)
            .map(|sender| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let written = |n: usize| {
                        let value = Watched::new(0);
                        value.set(sender * 10 + n);
                        value
                    };
                    (0..2).filter(|n| queue.push(written(*n)).is_err()).count()
                })
            })
            .collect();
        let mut seen: Vec<usize> = queue.take().map(|value| value.get()).collect();
        seen.extend(queue.close().map(|value| value.get()));
        let refused: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(seen.len() + refused, 4, "delivered or given back");
        for sender in 0..2 {
            let of_it: Vec<_> = seen.iter().filter(|value| **value / 10 == sender).collect();
            assert!(of_it.is_sorted());
        }
        assert!(queue.is_empty() && queue.take().next().is_none());
    });
}

/// A task and the queues of two contexts, through which its one reference goes.
struct Tasks {
    state: TaskState,
    future: Watched<u32>,
    queues: [Bell; 2],
    event: AtomicBool,
    dropped: AtomicUsize,
}

impl Tasks {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: TaskState::new(0),
            future: Watched::new(0),
            queues: [Bell::new(), Bell::new()],
            event: AtomicBool::new(false),
            dropped: AtomicUsize::new(0),
        })
    }

    fn queue(&self, home: Option<usize>) {
        if let Some(home) = home {
            assert_eq!(self.queues[home].ring(), 1, "queued once");
        }
    }

    fn wake(&self) {
        self.queue(self.state.wake());
    }

    /// SAFETY of the crate's `Cell`: whoever has begun has the future alone.
    fn touch(&self) {
        self.future.set(self.future.get() + 1);
    }

    fn end(&self) {
        self.state.finish();
        self.touch();
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The home's turn with the task in hand, which waits for the event; true when it has ended.
    fn run(&self) -> bool {
        if !self.state.begin() {
            self.end();
            return true;
        }
        self.touch();
        if self.event.load(Ordering::Relaxed) {
            self.end();
            return true;
        }
        if self.state.pause() {
            self.queue(Some(self.state.home()));
        }
        false
    }
}

/// Wakes before, during and after the poll and the hop: the task sees the event, and runs in one place.
#[test]
fn hopping_task_loses_no_wake_up() {
    model(3, || {
        let tasks = Tasks::new();
        tasks.wake();
        let waker = {
            let tasks = Arc::clone(&tasks);
            thread::spawn(move || {
                tasks.event.store(true, Ordering::Relaxed);
                tasks.wake();
            })
        };
        let second = {
            let tasks = Arc::clone(&tasks);
            thread::spawn(move || {
                tasks.queues[1].wait();
                while !tasks.run() {
                    tasks.queues[1].wait();
                }
            })
        };
        // The first poll asks for the second context.
        tasks.queues[0].wait();
        assert!(tasks.state.begin());
        tasks.touch();
        tasks.state.depart(1);
        tasks.queue(Some(1));
        waker.join().unwrap();
        second.join().unwrap();
        assert_eq!(tasks.dropped.load(Ordering::Relaxed), 1);
        assert!(tasks.state.wake().is_none(), "it is over");
    });
}

#[test]
fn two_wakers_and_an_idle_task() {
    model(3, || {
        let tasks = Tasks::new();
        let wakers: Vec<_> = (0..2)
            .map(|n| {
                let tasks = Arc::clone(&tasks);
                thread::spawn(move || {
                    if n == 0 {
                        tasks.event.store(true, Ordering::Relaxed);
                    }
                    tasks.wake();
                })
            })
            .collect();
        tasks.queues[0].wait();
        while !tasks.run() {
            tasks.queues[0].wait();
        }
        for waker in wakers {
            waker.join().unwrap();
        }
        assert_eq!(tasks.dropped.load(Ordering::Relaxed), 1);
    });
}

/// Cancelled while it is woken, polled and moved: the future is dropped once, at home.
#[test]
fn cancelled_task_is_dropped_once() {
    model(2, || {
        let tasks = Tasks::new();
        tasks.wake();
        let canceller = {
            let tasks = Arc::clone(&tasks);
            thread::spawn(move || tasks.queue(tasks.state.cancel()))
        };
        let waker = {
            let tasks = Arc::clone(&tasks);
            thread::spawn(move || tasks.wake())
        };
        tasks.queues[0].wait();
        if tasks.state.begin() {
            tasks.touch();
            tasks.state.depart(1);
            tasks.queue(Some(1));
            loop {
                tasks.queues[1].wait();
                if tasks.run() {
                    break;
                }
            }
        } else {
            tasks.end();
        }
        canceller.join().unwrap();
        waker.join().unwrap();
        assert_eq!(tasks.dropped.load(Ordering::Relaxed), 1);
    });
}

/// Tear-down and a foreign thread that discards: one of them drops.
#[test]
fn seized_task_is_dropped_once() {
    model(3, || {
        let tasks = Tasks::new();
        tasks.wake();
        let other = {
            let tasks = Arc::clone(&tasks);
            thread::spawn(move || {
                tasks.wake();
                if tasks.state.seize() {
                    tasks.end();
                }
            })
        };
        if tasks.state.seize() {
            tasks.end();
        }
        other.join().unwrap();
        assert_eq!(tasks.dropped.load(Ordering::Relaxed), 1);
    });
}

/// Scheduled twice, from elsewhere: it runs after the last time, sees what was written, and one entry at
/// most is in the queue.
#[test]
fn bottom_half_runs_after_its_last_schedule() {
    model(3, || {
        let flags = Arc::new(Flags::new());
        let entries = Arc::new(Bell::new());
        let value = Arc::new(AtomicUsize::new(0));
        let scheduler = {
            let (flags, entries, value) =
                (Arc::clone(&flags), Arc::clone(&entries), Arc::clone(&value));
            thread::spawn(move || {
                for n in 1..=2 {
                    value.store(n, Ordering::Relaxed);
                    if flags.schedule() {
                        assert_eq!(entries.ring(), 1, "one entry at most");
                    }
                }
            })
        };
        let mut seen = 0;
        while seen < 2 {
            entries.wait();
            if flags.begin() {
                seen = value.load(Ordering::Relaxed);
            }
        }
        scheduler.join().unwrap();
        // It had seen the second value before the second time was asked for.
        if entries.try_wait() {
            assert!(flags.begin());
        }
        assert!(!flags.begin());
    });
}

#[test]
fn cancelled_bottom_half_can_be_scheduled_again() {
    model(3, || {
        let flags = Arc::new(Flags::new());
        let entries = Arc::new(Bell::new());
        let owner = {
            let (flags, entries) = (Arc::clone(&flags), Arc::clone(&entries));
            thread::spawn(move || {
                let mut queued = 0;
                for _ in 0..2 {
                    if flags.schedule() {
                        assert_eq!(entries.ring(), 1, "one entry at most");
                        queued += 1;
                    }
                    flags.cancel();
                }
                if flags.schedule() {
                    assert_eq!(entries.ring(), 1, "one entry at most");
                    queued += 1;
                }
                queued
            })
        };
        let mut ran = 0;
        let mut taken = 0;
        while ran == 0 {
            entries.wait();
            taken += 1;
            ran += u32::from(flags.begin());
        }
        let queued = owner.join().unwrap();
        while taken < queued {
            entries.wait();
            taken += 1;
            ran += u32::from(flags.begin());
        }
        // Before a cancellation, perhaps, and after the last schedule for certain.
        assert!((1..=3).contains(&ran));
        flags.retire();
        assert!(flags.schedule() && !flags.begin());
    });
}

/// As `DrainToken::drained` does it.
fn drain(phases: &Phases, told: &Bell) {
    phases.wait();
    let current = phases.current();
    while !phases.is_idle(1 - current) {
        told.wait();
    }
    phases.turn();
    while !phases.is_idle(current) {
        told.wait();
    }
    phases.done();
}

/// What began before a drain has ended when the drain has, whatever comes meanwhile, and twice over.
#[test]
fn drain_waits_for_what_began_before() {
    model(3, || {
        let phases = Arc::new(Phases::new());
        let told = Arc::new(Bell::new());
        let work = Arc::new(Watched::new(0));
        let before = phases.begin();
        let worker = {
            let (phases, told, work) = (Arc::clone(&phases), Arc::clone(&told), Arc::clone(&work));
            thread::spawn(move || {
                work.set(1);
                if phases.end(before) {
                    told.ring();
                }
            })
        };
        let newcomer = {
            let (phases, told) = (Arc::clone(&phases), Arc::clone(&told));
            thread::spawn(move || {
                let phase = phases.begin();
                if phases.end(phase) {
                    told.ring();
                }
            })
        };
        drain(&phases, &told);
        // Not a race: the drain has seen the end.
        assert_eq!(work.get(), 1);
        worker.join().unwrap();
        newcomer.join().unwrap();
        drain(&phases, &told);
        assert_eq!(phases.in_flight(), 0);
    });
}

/// As `RwLock` does it, with bells for its notifications.
struct Lock {
    gate: Gate,
    value: Watched<u32>,
    released: Bell,
    emptied: Bell,
}

impl Lock {
    fn read(&self, place: usize) -> u32 {
        loop {
            if self.gate.enter(place) {
                break;
            }
            if self.gate.leave(place) {
                self.emptied.ring();
            }
            self.released.wait();
        }
        let value = self.value.get();
        if self.gate.leave(place) {
            self.emptied.ring();
        }
        value
    }

    fn write(&self, readers: u32) {
        self.gate.await_empty();
        loop {
            if self.gate.is_empty() {
                if self.gate.try_close() {
                    break;
                }
                self.release(readers);
            }
            self.emptied.wait();
        }
        self.gate.stop_waiting();
        self.value.set(self.value.get() + 1);
        self.gate.open();
        self.release(readers);
    }

    /// Everybody who may have been refused.
    fn release(&self, readers: u32) {
        for _ in 0..readers {
            self.released.ring();
        }
    }
}

fn readers_and_a_writer(readers: u32, preemptions: usize) {
    model(preemptions, move || {
        let lock = Arc::new(Lock {
            gate: Gate::new(2),
            value: Watched::new(0),
            released: Bell::new(),
            emptied: Bell::new(),
        });
        let threads: Vec<_> = (0..readers)
            .map(|n| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || lock.read(n as usize))
            })
            .collect();
        lock.write(readers);
        for thread in threads {
            assert!(thread.join().unwrap() <= 1);
        }
        assert_eq!(lock.read(0), 1);
    });
}

#[test]
fn reader_and_writer_never_meet() {
    readers_and_a_writer(1, 4);
}

#[test]
fn two_readers_and_a_writer_never_meet() {
    readers_and_a_writer(2, 2);
}

/// A writer that keeps newcomers out, because readers keep coming.
#[test]
fn a_writer_that_closes_first_is_alone_and_lets_everybody_in_again() {
    model(3, || {
        let lock = Arc::new(Lock {
            gate: Gate::new(2),
            value: Watched::new(0),
            released: Bell::new(),
            emptied: Bell::new(),
        });
        let threads = [0, 1].map(|place| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || lock.read(place))
        });
        lock.gate.await_empty();
        lock.gate.close();
        while !lock.gate.is_empty() {
            lock.emptied.wait();
        }
        lock.gate.stop_waiting();
        lock.value.set(1);
        lock.gate.open();
        lock.release(2);
        for thread in threads {
            assert!(thread.join().unwrap() <= 1);
        }
    });
}
