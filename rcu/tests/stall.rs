//! Readers that stay too long are reported by thread and place and kicked where they can be; they hold up
//! the grace period and nothing else. One test, as what it sets is the process's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

#[test]
fn a_reader_that_stays_is_kicked_and_reported() {
    rcu::set_stall_limit(Duration::from_millis(50));
    let (reported, reports) = mpsc::channel();
    let handler = rcu::on_stall(move |stall| {
        let _ = reported.send(stall.clone());
    });
    let kicks = Arc::new(AtomicUsize::new(0));
    let (in_section, reading) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let kicked = Arc::clone(&kicks);
    let reader = thread::Builder::new().name("laggard".into()).spawn(move || {
        let _notifier = rcu::add_force_rcu_notifier(move || {
            kicked.fetch_add(1, SeqCst);
        });
        let guard = rcu::read();
        in_section.send(line!() - 1).expect("it is awaited");
        let _ = may_leave.recv();
        drop(guard);
    });
    let line = reading.recv().expect("the reader reads");

    let ran = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ran);
    rcu::call_rcu(move || flag.store(true, SeqCst));
    let stall = reports.recv().expect("the stall is reported");
    assert_eq!((stall.thread.as_str(), stall.in_turn), ("laggard", false));
    let place = stall.place.expect("a section was opened somewhere");
    assert_eq!((place.file(), place.line()), (file!(), line));
    assert!(stall.held >= Duration::from_millis(50));
    assert!(stall.to_string().contains("laggard") && stall.to_string().contains("stall.rs"));
    assert_eq!(kicks.load(SeqCst), 1, "kicked once, before the report");
    // Again after twice the time.
    let again = reports.recv().expect("it is reported again");
    assert!(again.held >= Duration::from_millis(150), "{again:?}");
    assert!(!ran.load(SeqCst));

    // Others read and publish all the while.
    let cell = rcu::RcuCell::new(0);
    for n in 1..1000 {
        cell.publish(n);
        assert_eq!(*cell.read(&rcu::read()), n);
    }
    let stats = rcu::stats();
    assert!(stats.stalls >= 2 && stats.kicks >= 1 && stats.pending >= 1000, "{stats:?}");

    drop(leave);
    reader.expect("a thread can be started").join().expect("it reads");
    rcu::drain_call_rcu();
    assert!(ran.load(SeqCst));
    drop(handler);
    crowded();
    a_turn_that_lasts();
}

/// More callbacks pending than the bound allows: who holds them up is kicked at once.
fn crowded() {
    rcu::set_pending_max(100);
    let before = rcu::stats().expedited;
    let (kicked, kicks) = mpsc::channel::<()>();
    let (in_section, reading) = mpsc::channel();
    let reader = thread::spawn(move || {
        let _notifier = rcu::add_force_rcu_notifier(move || {
            let _ = kicked.send(());
        });
        let guard = rcu::read();
        in_section.send(()).expect("it is awaited");
        // The section ends when it is told to, as a vCPU's would.
        kicks.recv().expect("the kick comes");
        drop(guard);
    });
    reading.recv().expect("the reader reads");
    for _ in 0..1000 {
        rcu::call_rcu(|| ());
    }
    reader.join().expect("it reads");
    rcu::drain_call_rcu();
    assert!(rcu::stats().expedited > before);
    rcu::set_pending_max(10_000);
}

/// A reactor's long turn is named as such.
fn a_turn_that_lasts() {
    let (reported, reports) = mpsc::channel();
    let handler = rcu::on_stall(move |stall| {
        let _ = reported.send(stall.clone());
    });
    let mut config = reactor::Config::from_affinity().expect("the affinity mask can be read");
    config.hooks.push(rcu::turn_hook());
    reactor::run(config, |reactors| async move {
        let core = reactors.core(0);
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let blocked = core.spawn("blocks its reactor", async move {
            // A message to another context would leave with the turn's end.
            begins.store(true, SeqCst);
            reports.recv().expect("the stall is reported")
        });
        while !begun.load(SeqCst) {
            reactor::yield_now().await;
        }
        rcu::synchronize_rcu_co().await;
        let stall = blocked.await.expect("the task runs");
        assert_eq!((stall.thread.as_str(), stall.in_turn), (reactors.core(0).name(), true));
        assert!(stall.to_string().contains("turn"), "{stall}");
    })
    .expect("the reactors start");
    drop(handler);
}
