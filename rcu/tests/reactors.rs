//! RCU under reactors: where callbacks run, what drains wait for, what a stopping runtime leaves behind.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

fn config() -> reactor::Config {
    let mut config = reactor::Config::from_affinity().expect("the affinity mask can be read");
    config.hooks.push(rcu::turn_hook());
    config
}

/// Runs `root` on reactors that pin themselves.
fn run<F, Fut, T>(root: F) -> T
where
    F: FnOnce(reactor::Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    reactor::run(config(), root).expect("the reactors start")
}

#[test]
fn a_callback_runs_in_the_context_that_asked() {
    run(|reactors| async move {
        for context in reactors.all() {
            let expected = context.clone();
            let (ran, has_run) = reactor::sync::oneshot::channel();
            let asked = context.spawn("ask", async move {
                rcu::call_rcu(move || {
                    let _ = ran.send(reactor::try_current() == Some(expected));
                });
            });
            asked.await.unwrap();
            assert_eq!(has_run.await, Ok(true), "{}", context.name());
        }
    });
}

#[test]
fn a_turn_is_pinned_and_its_end_unpins() {
    run(|_| async {
        assert!(rcu::is_pinned());
    });
    assert!(!rcu::is_pinned());
}

#[test]
fn a_drain_waits_for_everybodys_callbacks() {
    run(|reactors| async move {
        let ran = Arc::new(AtomicUsize::new(0));
        for round in 1..=200 {
            for context in reactors.all() {
                let ran = Arc::clone(&ran);
                let asked = context.spawn("ask", async move {
                    rcu::call_rcu(move || {
                        ran.fetch_add(1, SeqCst);
                    });
                });
                asked.await.unwrap();
            }
            let ran_here = Arc::clone(&ran);
            let outside = std::thread::spawn(move || {
                rcu::call_rcu(move || {
                    ran_here.fetch_add(1, SeqCst);
                });
            });
            outside.join().unwrap();
            rcu::drain_call_rcu_co().await;
            assert_eq!(ran.load(SeqCst), round * (reactors.all().len() + 1));
        }
    });
}

/// A plain thread that reads until told otherwise.
struct Reader {
    leave: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Reader {
    fn start() -> Self {
        let (leave, may_leave) = mpsc::channel();
        let (reads, reading) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _guard = rcu::read();
            reads.send(()).expect("it is awaited");
            let _ = may_leave.recv();
        });
        reading.recv().expect("the thread reads");
        Self { leave, thread }
    }

    fn stop(self) {
        drop(self.leave);
        self.thread.join().expect("the thread reads");
    }
}

#[test]
fn thousands_of_waiters_share_a_batch() {
    run(|reactors| async move {
        let reader = Reader::start();
        rcu::call_rcu(|| ());
        let woken = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..4000)
            .map(|n| {
                let woken = Arc::clone(&woken);
                let wait = async move {
                    rcu::drain_call_rcu_co().await;
                    woken.fetch_add(1, SeqCst);
                };
                reactors.all()[n % reactors.all().len()].spawn("wait", wait)
            })
            .collect();
        // Every context has polled them all when it comes to this one.
        for context in reactors.all() {
            context.spawn("behind them", async {}).await.unwrap();
        }
        let before = rcu::stats().batches;
        assert_eq!(woken.load(SeqCst), 0);
        reader.stop();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        // One for the callback's batch, one closed after the first waiter came; other tests add some.
        let batches = rcu::stats().batches - before;
        assert!(batches < 1000, "{batches} batches for 4000 waiters");
    });
}

#[test]
fn a_sleeping_reader_holds_up_nothing_but_the_grace_period() {
    run(|reactors| async move {
        let reader = Reader::start();
        let (ran, mut has_run) = reactor::sync::oneshot::channel();
        rcu::call_rcu(move || {
            let _ = ran.send(());
        });
        // Every context goes on working, reading and publishing.
        let cell = Arc::new(rcu::RcuCell::new(0));
        for context in reactors.all() {
            let cell = Arc::clone(&cell);
            let task = context.spawn("work", async move {
                for n in 0..100 {
                    cell.publish(n);
                    assert_eq!(*cell.read(&rcu::read()), n);
                    reactor::yield_now().await;
                }
            });
            task.await.unwrap();
        }
        let still = reactor::timeout(Duration::from_millis(20), &mut has_run).await;
        assert!(still.is_err(), "a callback ran while a section was open");
        reader.stop();
        assert_eq!(has_run.await, Ok(()));
    });
}

#[test]
fn callbacks_of_a_context_run_in_order_and_may_queue_more() {
    run(|_| async {
        let order = Arc::new(Mutex::new(Vec::new()));
        for n in 0..1000 {
            let order = Arc::clone(&order);
            rcu::call_rcu(move || {
                order.lock().unwrap().push(n);
                let order = Arc::clone(&order);
                rcu::call_rcu(move || order.lock().unwrap().push(1000 + n));
            });
        }
        rcu::drain_call_rcu_co().await;
        assert!(order.lock().unwrap().len() >= 1000);
        rcu::drain_call_rcu_co().await;
        assert_eq!(*order.lock().unwrap(), (0..2000).collect::<Vec<_>>());
    });
}

#[test]
fn a_callback_that_panics_takes_no_other_along() {
    run(|_| async {
        let before = rcu::stats().panics;
        let (ran, has_run) = reactor::sync::oneshot::channel();
        rcu::call_rcu(|| panic!("on purpose"));
        rcu::call_rcu(move || {
            let _ = ran.send(());
        });
        assert_eq!(has_run.await, Ok(()));
        rcu::drain_call_rcu_co().await;
        assert_eq!(rcu::stats().panics, before + 1);
    });
}

#[test]
fn waiting_synchronously_on_a_reactor_is_refused() {
    run(|_| async {
        let refused = std::panic::catch_unwind(rcu::drain_call_rcu);
        let message = *refused.unwrap_err().downcast::<&str>().unwrap();
        assert!(message.contains("_co"), "{message}");
    });
}

#[test]
fn waiting_inside_a_section_or_a_callback_is_refused() {
    let guard = rcu::read();
    let refused = std::panic::catch_unwind(rcu::drain_call_rcu);
    drop(guard);
    assert!(refused.is_err());
    let (refused, was_refused) = mpsc::channel();
    rcu::call_rcu(move || {
        let _ = refused.send(std::panic::catch_unwind(rcu::drain_call_rcu).is_err());
    });
    assert_eq!(was_refused.recv(), Ok(true));
}

/// A local task may hold a guard while it waits; its context then cannot drive the grace period on, and does not
/// spin either, until the guard is gone.
#[test]
fn a_local_task_with_a_guard_delays_its_own_context_only() {
    run(|reactors| async move {
        let (leave, may_leave) = reactor::sync::oneshot::channel::<()>();
        let (reads, reading) = reactor::sync::oneshot::channel();
        let core = reactors.core(0).clone();
        let reader = core.spawn_local_with("reader", move || async move {
            let mut guard = Some(rcu::read());
            let _ = reads.send(());
            let _ = may_leave.await;
            guard.take();
        });
        reading.await.unwrap();
        let drained = core.spawn("drain", async {
            rcu::call_rcu(|| ());
            rcu::drain_call_rcu_co().await;
        });
        let turns = core.counters().turns;
        reactor::sleep(Duration::from_millis(20)).await;
        let turns = core.counters().turns - turns;
        assert!(!drained.is_finished());
        // A loop that spins makes some hundred thousand turns in that time.
        assert!(turns < 2000, "{turns} turns while waiting");
        let _ = leave.send(());
        drained.await.unwrap();
        reader.await.unwrap();
    });
}

#[test]
fn throttling_waits_until_the_bound_holds_again() {
    run(|_| async {
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..20_000 {
            let ran = Arc::clone(&ran);
            rcu::call_rcu(move || {
                ran.fetch_add(1, SeqCst);
            });
        }
        rcu::throttle_call_rcu_co().await;
        assert!(ran.load(SeqCst) >= 10_000);
    });
}

#[test]
fn throttling_blocks_a_plain_thread_until_the_bound_holds_again() {
    let reader = Reader::start();
    let ran = Arc::new(AtomicUsize::new(0));
    let publisher = Arc::clone(&ran);
    let publisher = thread::spawn(move || {
        for _ in 0..50_000 {
            let ran = Arc::clone(&publisher);
            rcu::call_rcu(move || {
                ran.fetch_add(1, SeqCst);
            });
            rcu::throttle_call_rcu();
        }
    });
    // As far as it gets while the reader stays.
    while rcu::stats().pending <= 10_000 {
        thread::yield_now();
    }
    assert_eq!(ran.load(SeqCst), 0);
    reader.stop();
    publisher.join().expect("it publishes");
    rcu::drain_call_rcu();
    assert_eq!(ran.load(SeqCst), 50_000);
}

#[test]
fn off_reactors_a_drain_can_be_awaited_too() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    rcu::call_rcu(move || {
        counter.fetch_add(1, SeqCst);
    });
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut drained = pin!(rcu::drain_call_rcu_co());
    while drained.as_mut().poll(&mut cx).is_pending() {
        thread::park();
    }
    assert_eq!(ran.load(SeqCst), 1);
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A runtime that stops with callbacks pending: they run all the same, and nothing is left of the runtime.
#[test]
fn callbacks_pending_when_the_reactors_stop_still_run() {
    let ran = Arc::new(AtomicUsize::new(0));
    let mut expected = 0;
    for round in 0..20 {
        let reader = Reader::start();
        let counter = Arc::clone(&ran);
        let contexts = run(move |reactors| async move {
            for context in reactors.all() {
                let counter = Arc::clone(&counter);
                let queued = context.spawn("queue", async move {
                    for _ in 0..10 {
                        let counter = Arc::clone(&counter);
                        rcu::call_rcu(move || {
                            counter.fetch_add(1, SeqCst);
                        });
                    }
                });
                queued.await.unwrap();
            }
            if round % 2 == 0 {
                reactor::sleep(Duration::from_millis(1)).await;
            }
            reactors.all().len()
        });
        expected += 10 * contexts;
        reader.stop();
        rcu::drain_call_rcu();
        assert_eq!(ran.load(SeqCst), expected);
    }
}

#[test]
fn runtimes_may_run_side_by_side() {
    let runtimes: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(|| {
                run(|reactors| async move {
                    let ran = Arc::new(AtomicUsize::new(0));
                    for n in 0..500 {
                        let counter = Arc::clone(&ran);
                        let queue = async move {
                            rcu::call_rcu(move || {
                                counter.fetch_add(1, SeqCst);
                            });
                        };
                        reactors.core(n).spawn("queue", queue).await.unwrap();
                    }
                    rcu::drain_call_rcu_co().await;
                    assert_eq!(ran.load(SeqCst), 500);
                });
            })
        })
        .collect();
    for runtime in runtimes {
        runtime.join().unwrap();
    }
}

/// Nobody waits for a batch that nobody closes: plain threads that do nothing but queue and drain.
#[test]
fn drains_of_plain_threads_always_end() {
    let threads: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(|| {
                for _ in 0..300 {
                    for _ in 0..300 {
                        rcu::call_rcu(|| ());
                    }
                    rcu::drain_call_rcu();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
