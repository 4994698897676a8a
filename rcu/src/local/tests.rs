use super::{assert_not_pinned, is_pinned, read, with_local};
use crate::{drain_call_rcu, stats, turn_hook};
use std::cell::RefCell;
use std::sync::mpsc;

#[test]
fn sections_nest() {
    assert!(!is_pinned());
    let outer = read();
    let inner = read();
    drop(outer);
    assert!(is_pinned(), "the order of the drops does not matter");
    drop(inner);
    assert!(!is_pinned());
    assert_not_pinned();
}

#[test]
#[should_panic(expected = "about to sleep")]
fn sleeping_in_a_section_is_caught() {
    let _guard = read();
    assert_not_pinned();
}

#[test]
fn a_turn_pins_and_its_end_unpins() {
    let hook = turn_hook();
    hook.turn_begin();
    assert!(is_pinned());
    drop(read());
    assert!(is_pinned(), "the turn goes on");
    hook.turn_end();
    assert!(!is_pinned());
}

#[test]
fn a_guard_that_outlives_its_turn_stays_valid() {
    let hook = turn_hook();
    hook.turn_begin();
    let guard = read();
    hook.turn_end();
    assert!(is_pinned());
    hook.turn_begin();
    hook.turn_end();
    assert!(is_pinned());
    drop(guard);
    assert!(!is_pinned());
    drain_call_rcu();
}

#[test]
fn a_guard_may_outlive_its_threads_storage() {
    thread_local! {
        static LATE: RefCell<Option<crate::Guard>> = const { RefCell::new(None) };
    }
    let thread = std::thread::spawn(|| {
        // Initialised before the participant, so dropped after it.
        LATE.set(None);
        LATE.set(Some(read()));
    });
    thread.join().unwrap();
    drain_call_rcu();
}

#[test]
fn a_destructor_may_read_when_the_participant_is_gone() {
    struct ReadsLate(mpsc::Sender<bool>);
    impl Drop for ReadsLate {
        fn drop(&mut self) {
            let gone = with_local(|_| ()).is_none();
            let guard = read();
            let nested = read();
            drop((guard, nested));
            self.0.send(gone).expect("it is awaited");
        }
    }
    thread_local! {
        static LATE: RefCell<Option<ReadsLate>> = const { RefCell::new(None) };
    }
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        LATE.set(Some(ReadsLate(sender)));
        drop(read());
    });
    thread.join().unwrap();
    assert_eq!(receiver.recv(), Ok(true), "the participant was gone");
    drain_call_rcu();
}

#[test]
fn threads_that_die_leave_nothing_behind() {
    let before = stats().threads;
    for _ in 0..100 {
        std::thread::spawn(|| drop(read())).join().unwrap();
    }
    // Other tests' threads come and go meanwhile, but not a hundred of them.
    assert!(stats().threads < before + 100);
}
