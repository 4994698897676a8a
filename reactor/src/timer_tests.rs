use super::{Key, Timers};
use proptest::prelude::{Strategy, any};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
enum Action {
    /// Set a timer so many microseconds after the start.
    Set(u16),
    /// Cancel the n-th one ever set, set or not.
    Cancel(prop::Index),
    /// Let time go on by so much.
    Advance(u16),
}

use proptest::sample as prop;

fn action() -> impl Strategy<Value = Action> {
    proptest::prop_oneof![
        4 => (0..400u16).prop_map(Action::Set),
        2 => any::<prop::Index>().prop_map(Action::Cancel),
        1 => (0..100u16).prop_map(Action::Advance),
    ]
}

/// Writes its number down when woken.
struct Note(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[derive(Default)]
struct Model {
    /// Deadline in microseconds, by number; `None` once fired or cancelled.
    set: Vec<Option<u64>>,
}

impl Model {
    /// What fires until `now`, in order.
    fn fire(&mut self, now: u64) -> Vec<usize> {
        let mut due: Vec<(u64, usize)> = (0..self.set.len())
            .filter_map(|n| self.set[n].filter(|at| *at <= now).map(|at| (at, n)))
            .collect();
        due.sort_unstable();
        for (_, n) in &due {
            self.set[*n] = None;
        }
        due.into_iter().map(|(_, n)| n).collect()
    }
}

proptest::proptest! {
    /// Timers fire once, in order of their deadlines and then of their setting, never early, and not
    /// when cancelled before.
    #[test]
    fn timers_do_as_the_model(actions in proptest::collection::vec(action(), 0..120)) {
        let start = Instant::now();
        let fired = Arc::new(Mutex::new(Vec::new()));
        let (mut timers, mut model) = (Timers::new(), Model::default());
        let mut keys: Vec<Key> = Vec::new();
        let mut now = 0;
        for action in actions {
            match action {
                Action::Set(after) => {
                    let note = Waker::from(Arc::new(Note(keys.len(), Arc::clone(&fired))));
                    let at = u64::from(after);
                    keys.push(timers.insert(start + Duration::from_micros(at), note));
                    model.set.push(Some(at));
                }
                Action::Cancel(index) if !keys.is_empty() => {
                    let n = index.index(keys.len());
                    let was_set = model.set[n].take().is_some();
                    proptest::prop_assert_eq!(timers.remove(&keys[n]).is_some(), was_set);
                }
                Action::Cancel(_) => {}
                Action::Advance(by) => now += u64::from(by),
            }
            while let Some(waker) = timers.pop_due(start + Duration::from_micros(now)) {
                waker.wake();
            }
            let fired = std::mem::take(&mut *fired.lock().unwrap());
            proptest::prop_assert_eq!(fired, model.fire(now));
            proptest::prop_assert_eq!(timers.len(), model.set.iter().flatten().count());
            let next = model.set.iter().flatten().min();
            let next = next.map(|at| start + Duration::from_micros(*at));
            proptest::prop_assert_eq!(timers.next_deadline(), next);
        }
    }
}

/// Counts the references to it.
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn cleared_timers_wake_nobody_and_keep_nothing() {
    let counted = Arc::new(Counted(AtomicUsize::new(0)));
    let mut timers = Timers::new();
    for _ in 0..10 {
        timers.insert(Instant::now(), Waker::from(Arc::clone(&counted)));
    }
    drop(timers.clear());
    assert!(timers.next_deadline().is_none());
    assert_eq!(Arc::strong_count(&counted), 1);
    assert_eq!(counted.0.load(Ordering::Relaxed), 0);
}
