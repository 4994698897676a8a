//! RCU under reactors: where callbacks run, what drains wait for, what a stopping runtime leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

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
    run(|reactors| async move {
        assert!(rcu::is_pinned());
        let begun = Instant::now();
        rcu::synchronize_rcu_co().await;
        eprintln!("synchronize {:?}", begun.elapsed());
        for _ in 0..5 {
            rcu::call_rcu(|| ());
            let begun = Instant::now();
            rcu::drain_call_rcu_co().await;
            eprintln!("drain {:?}", begun.elapsed());
        }
        let _ = reactors;
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

#[test]
fn thousands_of_waiters_share_a_batch() {
    run(|reactors| async move {
        let held = Arc::new(AtomicBool::new(false));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let reading = Arc::clone(&held);
        let reader = std::thread::spawn(move || {
            let _guard = rcu::read();
            reading.store(true, SeqCst);
            let _ = released.recv();
        });
        while !held.load(SeqCst) {
            reactor::yield_now().await;
        }
        rcu::call_rcu(|| ());
        let before = rcu::stats().batches;
        let waiters: Vec<_> =
            (0..4000).map(|n| reactors.core(n).spawn("wait", rcu::drain_call_rcu_co())).collect();
        reactor::sleep(Duration::from_millis(20)).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        drop(release);
        for waiter in waiters {
            waiter.await.unwrap();
        }
        let _ = before;
        reader.join().unwrap();
    });
}
