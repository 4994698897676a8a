//! Contexts, tasks, hops, bottom halves and timers, as their users see them.

use reactor::{Config, Context, JoinError, Reactors, hop, run, sleep, spawn_local, yield_now};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn config() -> Config {
    let cpus = reactor::allowed_cpus().unwrap();
    // Two cores whatever the machine has.
    Config::with_cores((0..2).map(|n| cpus[n % cpus.len()]).collect())
}

fn with<F, Fut, T>(root: F) -> T
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    run(config(), root).unwrap()
}

#[test]
fn root_runs_in_main_and_gives_its_output() {
    let name = with(|reactors| async move {
        assert!(reactors.main().is_current());
        reactor::current().name().to_owned()
    });
    assert_eq!(name, "main");
}

#[test]
fn loops_do_not_nest() {
    with(|_| async {
        // A task may try; it must not get a loop below itself.
        let nested = std::panic::catch_unwind(|| run(config(), |_| async {}));
        let panic = nested.unwrap_err();
        let text = panic.downcast_ref::<&str>().unwrap();
        assert_eq!(*text, "a reactor cannot be run inside a reactor");
    });
}

#[test]
fn hop_visits_every_context_and_comes_back() {
    let visited = with(|reactors| async move {
        let mut visited = Vec::new();
        for context in reactors.all() {
            hop(context).await;
            assert!(context.is_current());
            visited.push(reactor::current().name().to_owned());
        }
        hop(reactors.main()).await;
        visited.push(reactor::current().name().to_owned());
        visited
    });
    assert_eq!(visited, ["main", "iohandler", "monitor", "core-0", "core-1", "main"]);
}

#[test]
fn many_hopping_tasks_all_arrive() {
    with(|reactors| async move {
        let tasks: Vec<_> = (0..200usize)
            .map(|n| {
                let reactors = reactors.clone();
                reactors.clone().core(n).spawn("hopper", async move {
                    for round in 0..50 {
                        hop(reactors.core(n + round)).await;
                        yield_now().await;
                        hop(reactors.iohandler()).await;
                    }
                    n
                })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await, Ok(n));
        }
        assert_eq!(reactors.core(0).counters().tasks_alive, 0);
    });
}

#[test]
fn panic_of_a_task_is_its_own() {
    let result = with(|reactors| async move {
        let panicking = reactors.core(0).spawn("panics", async { panic!("on purpose") });
        let result: Result<(), JoinError> = panicking.await;
        assert_eq!(reactors.core(0).spawn("next", async { 1 }).await, Ok(1));
        result
    });
    assert_eq!(result, Err(JoinError::Panicked));
}

#[test]
fn cancelled_task_drops_its_future_at_home() {
    struct Probe(Context, Arc<AtomicUsize>);
    impl Drop for Probe {
        fn drop(&mut self) {
            assert!(self.0.is_current());
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&dropped);
    with(|reactors| async move {
        let probe = Probe(reactors.core(1).clone(), seen);
        let task = reactors.core(1).spawn("waits", async move {
            let _probe = probe;
            std::future::pending::<()>().await;
        });
        task.cancel();
        assert_eq!(task.await, Err(JoinError::Cancelled));
    });
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn tasks_left_over_are_dropped_on_their_threads() {
    struct Probe(Context, Arc<AtomicUsize>);
    impl Drop for Probe {
        fn drop(&mut self) {
            assert!(self.0.is_current());
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&dropped);
    with(|reactors| async move {
        for context in reactors.all() {
            let probe = Probe(context.clone(), Arc::clone(&seen));
            context
                .spawn("left over", async move {
                    let _probe = probe;
                    std::future::pending::<()>().await;
                })
                .detach();
            let probe = Probe(context.clone(), Arc::clone(&seen));
            context
                .spawn_local_with("left over, local", move || async move {
                    let _probe = Rc::new(probe);
                    sleep(Duration::from_secs(3600)).await;
                })
                .detach();
        }
        for context in reactors.all() {
            context.spawn("fence", async { yield_now().await }).await.unwrap();
        }
    });
    assert_eq!(dropped.load(Ordering::SeqCst), 10);
}

#[test]
fn local_tasks_share_without_send() {
    let sum = with(|reactors| async move {
        reactors
            .core(0)
            .spawn_local_with("local", || async {
                let shared = Rc::new(RefCell::new(0));
                let adders: Vec<_> = (1..=10)
                    .map(|n| {
                        let shared = Rc::clone(&shared);
                        spawn_local("adder", async move {
                            yield_now().await;
                            *shared.borrow_mut() += n;
                        })
                    })
                    .collect();
                for adder in adders {
                    adder.await.unwrap();
                }
                Rc::try_unwrap(shared).unwrap().into_inner()
            })
            .await
            .unwrap()
    });
    assert_eq!(sum, 55);
}

#[test]
fn local_task_cannot_hop() {
    let result = with(|reactors| async move {
        let main = reactors.main().clone();
        reactors
            .core(0)
            .spawn("outer", async move {
                let inner = reactor::current();
                inner
                    .spawn_local_with("local", move || async move {
                        let hopping = spawn_local("hopping", async move { hop(&main).await });
                        hopping.await
                    })
                    .await
                    .unwrap()
            })
            .await
            .unwrap()
    });
    assert_eq!(result, Err(JoinError::Panicked));
}

#[test]
fn bottom_halves_run_in_order_and_in_their_context() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&order);
    with(|reactors| async move {
        let core = reactors.core(0).clone();
        for n in 0..100 {
            let (log, core2) = (Arc::clone(&log), core.clone());
            core.schedule_bh(move || {
                assert!(core2.is_current());
                log.lock().unwrap().push(n);
            });
        }
        core.spawn("fence", async { yield_now().await }).await.unwrap();
    });
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn reusable_bottom_half_coalesces_and_runs_again() {
    with(|reactors| async move {
        let runs = Arc::new(AtomicUsize::new(0));
        let (counted, notify) = (Arc::clone(&runs), Arc::new(reactor::sync::Notify::new()));
        let ran = Arc::clone(&notify);
        // Scheduled from its own context, so that both calls come before the run.
        let bh = reactors.main().bottom_half("counts", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            ran.notify_one();
        });
        bh.schedule();
        bh.schedule();
        notify.notified().await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        bh.schedule();
        notify.notified().await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        bh.schedule();
        bh.cancel();
        drop(bh);
        yield_now().await;
        yield_now().await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn panic_of_a_bottom_half_leaves_the_context_running() {
    with(|reactors| async move {
        reactors.core(0).schedule_bh(|| panic!("on purpose"));
        assert_eq!(reactors.core(0).spawn("next", async { 7 }).await, Ok(7));
    });
}

#[test]
fn timers_fire_in_order_of_their_deadlines() {
    let order = with(|_| async move {
        let log = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let tasks: Vec<_> = [30u64, 10, 20, 0]
            .into_iter()
            .map(|ms| {
                let log = Arc::clone(&log);
                reactor::current().spawn("timer", async move {
                    reactor::sleep_until(start + Duration::from_millis(ms)).await;
                    assert!(start.elapsed() >= Duration::from_millis(ms));
                    log.lock().unwrap().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut *log.lock().unwrap())
    });
    assert_eq!(order, [0, 10, 20, 30]);
}

#[test]
fn timeout_gives_up_and_gives_through() {
    with(|_| async move {
        let never = std::future::pending::<()>();
        assert!(reactor::timeout(Duration::from_millis(5), never).await.is_err());
        assert_eq!(reactor::timeout(Duration::from_secs(60), async { 3 }).await, Ok(3));
    });
}

#[test]
fn timer_survives_a_hop() {
    with(|reactors| async move {
        let mut timer = std::pin::pin!(sleep(Duration::from_millis(20)));
        // Armed in main, awaited in a core.
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(timer.as_mut().poll(cx)));
        assert!(first.await.is_pending());
        hop(reactors.core(0)).await;
        timer.await;
        assert!(reactors.core(0).is_current());
    });
}

#[test]
fn busy_task_starves_neither_timers_nor_others() {
    with(|reactors| async move {
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::clone(&stop);
        let busy = reactors.core(0).spawn("busy", async move {
            while stopped.load(Ordering::Relaxed) == 0 {
                yield_now().await;
            }
        });
        let other = reactors.core(0).spawn("other", async {
            sleep(Duration::from_millis(5)).await;
            let (mut end, start) = std::os::unix::net::UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut end, b"x").unwrap();
            let (n, _) = reactor::io::recv(&start.into(), vec![0; 1]).await;
            n.unwrap()
        });
        assert_eq!(other.await, Ok(1));
        stop.store(1, Ordering::Relaxed);
        busy.await.unwrap();
    });
}

#[test]
fn watchdog_names_the_task_that_blocks() {
    let stalls = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&stalls);
    let mut config = config();
    config.stall_limit = Duration::from_millis(5);
    config.on_stall = Some(Arc::new(move |stall| log.lock().unwrap().push(stall.clone())));
    run(config, |reactors| async move {
        let task = reactors.core(0).spawn("the culprit", async {
            let until = Instant::now() + Duration::from_millis(6);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        });
        task.await.unwrap();
        reactors.core(0).spawn("fence", async {}).await.unwrap();
    })
    .unwrap();
    let stalls = stalls.lock().unwrap();
    assert!(stalls.iter().any(|s| s.name == "the culprit" && s.context == "core-0"), "{stalls:?}");
}

const THREADS: usize = 4;
const EACH: usize = 2000;

#[test]
fn wakes_from_foreign_threads_are_not_lost() {
    with(|reactors| async move {
        let core = reactors.core(0).clone();
        let count = Arc::new(AtomicUsize::new(0));
        let (done, all_done) = reactor::sync::oneshot::channel();
        let done = Arc::new(Mutex::new(Some(done)));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (core, count, done) = (core.clone(), Arc::clone(&count), Arc::clone(&done));
                std::thread::spawn(move || {
                    for _ in 0..EACH {
                        let (count, done) = (Arc::clone(&count), Arc::clone(&done));
                        core.schedule_bh(move || {
                            if count.fetch_add(1, Ordering::SeqCst) + 1 == THREADS * EACH {
                                let done = done.lock().unwrap().take().unwrap();
                                done.send(()).unwrap();
                            }
                        });
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        all_done.await.unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        let counters = core.counters();
        assert_eq!(
            counters.wakeups_sent + counters.wakeups_coalesced,
            // The spawns above and the bottom halves.
            (THREADS * EACH) as u64 + counters.tasks_spawned
        );
    });
}

#[test]
fn idle_contexts_make_no_system_calls() {
    with(|reactors| async move {
        // Let everything settle, then look twice.
        for context in &reactors.all()[1..] {
            context.spawn("fence", async { yield_now().await }).await.unwrap();
        }
        sleep(Duration::from_millis(50)).await;
        let before: Vec<u64> = reactors.all()[1..].iter().map(|c| c.counters().enters).collect();
        sleep(Duration::from_millis(200)).await;
        let after: Vec<u64> = reactors.all()[1..].iter().map(|c| c.counters().enters).collect();
        assert_eq!(before, after);
    });
}

#[test]
fn ring_of_four_entries_under_load_loses_nothing() {
    let mut config = config();
    config.ring_entries = 4;
    let total = run(config, |reactors| async move {
        let tasks: Vec<_> = (0..300)
            .map(|n| {
                reactors.core(n).spawn("reader", async move {
                    let (mut end, start) = std::os::unix::net::UnixStream::pair().unwrap();
                    let start = start.into();
                    let mut got = 0;
                    for _ in 0..10 {
                        std::io::Write::write_all(&mut end, b"abc").unwrap();
                        let (n, buffer) = reactor::io::recv(&start, vec![0; 8]).await;
                        assert_eq!(&buffer[..n.unwrap()], b"abc");
                        got += 3;
                    }
                    got
                })
            })
            .collect();
        let mut total = 0;
        for task in tasks {
            total += task.await.unwrap();
        }
        total
    });
    assert_eq!(total.unwrap(), 300 * 30);
}

#[test]
fn several_runtimes_live_side_by_side() {
    let threads: Vec<_> = (0..3)
        .map(|n| {
            std::thread::spawn(move || {
                with(move |r| async move {
                    hop(r.core(0)).await;
                    n
                })
            })
        })
        .collect();
    let got: Vec<i32> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(got, [0, 1, 2]);
}
