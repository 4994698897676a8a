//! loom models of the lock-free parts: who drives grace periods, which batch a drain waits for, how a section's end
//! wakes, and the list. The sources are the crate's own, built here over loom's atomics; epochs are abstract, as
//! loom cannot look into crossbeam-epoch, which has models of its own.
//!
//! `membarrier` and the readers' compiler fence are modelled as what they amount to together: a full fence on each
//! side.

/// What `src/primitive.rs` is in the crate.
mod primitive {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence,
    };
    use std::task::Waker;

    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn wake(&self) {
            self.0.wake();
        }
    }

    pub(crate) fn light_fence() {
        fence(Ordering::SeqCst);
    }
}

#[path = "../src/bell.rs"]
#[expect(dead_code, reason = "the models need not use all of it")]
mod bell;
#[path = "../src/callback.rs"]
#[expect(dead_code, reason = "the models need not use all of it")]
mod callback;
#[path = "../src/handover.rs"]
#[expect(dead_code, reason = "the models need not use all of it")]
mod handover;
#[path = "../src/list.rs"]
#[allow(dead_code, reason = "the models need not use all of it")]
mod list;
#[path = "../src/tickets.rs"]
#[expect(dead_code, reason = "the models need not use all of it")]
mod tickets;

/// What the list needs of the crate: an epoch that ends when the model says so.
mod api {
    loom::lazy_static! {
        static ref DEFERRED: loom::sync::Mutex<Vec<Box<dyn FnOnce() + Send>>> =
            loom::sync::Mutex::new(Vec::new());
    }

    pub(crate) fn call_rcu(f: impl FnOnce() + Send + 'static) {
        DEFERRED.lock().unwrap().push(Box::new(f));
    }

    /// Every section has ended.
    pub(crate) fn grace_period() {
        let deferred = std::mem::take(&mut *DEFERRED.lock().unwrap());
        for f in deferred {
            f();
        }
    }
}

mod local {
    pub(crate) struct Guard;
}

fn read() -> local::Guard {
    local::Guard
}

use bell::{Bell, Mark};
use callback::CallbackQueue;
use handover::{Active, ActiveList, Seat};
use list::RcuList;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::future::poll_fn;
use std::ptr;
use std::sync::Arc;
use std::task::Poll;
use tickets::Tickets;

/// Explores every interleaving with up to `preemptions` preemptions.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

struct Home {
    queue: CallbackQueue,
    next: AtomicPtr<Home>,
}

impl Home {
    fn new() -> Arc<Self> {
        Arc::new(Self { queue: CallbackQueue::new(), next: AtomicPtr::new(ptr::null_mut()) })
    }
}

impl Active for Home {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

/// The domain's part that decides who leads, with a leader that runs callbacks on the spot.
struct Domain {
    seat: Seat,
    active: ActiveList<Home>,
    /// Many producers.
    shared: Arc<Home>,
    tickets: Mutex<Tickets>,
    completed: Condvar,
    leaders: AtomicUsize,
}

impl Domain {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            seat: Seat::new(),
            active: ActiveList::new(),
            shared: Home::new(),
            tickets: Mutex::new(Tickets::default()),
            completed: Condvar::new(),
            leaders: AtomicUsize::new(0),
        })
    }

    /// As `Domain::queue`.
    fn queue(&self, home: &Arc<Home>, f: impl FnOnce() + Send + 'static) {
        let first = home.queue.push(f);
        let lead = if Arc::ptr_eq(home, &self.shared) {
            self.seat.claim()
        } else {
            first && {
                self.active.add(Arc::clone(home));
                self.seat.claim()
            }
        };
        if lead {
            self.lead();
        }
    }

    fn has_work(&self) -> bool {
        !self.active.is_empty()
            || !self.shared.queue.is_empty()
            || self.tickets.lock().unwrap().is_requested()
    }

    /// As `Leadership::step` and `go_on`, without a grace period.
    fn lead(&self) {
        loop {
            assert_eq!(self.leaders.fetch_add(1, Ordering::SeqCst), 0, "two lead");
            let number = self.tickets.lock().unwrap().close();
            let mut chains = Vec::new();
            self.active.take(|home| chains.push(home.queue.take()));
            chains.push(self.shared.queue.take());
            for chain in &mut chains {
                while chain.run_one() {}
            }
            self.tickets.lock().unwrap().release(number, |_| ());
            self.completed.notify_all();
            assert_eq!(self.leaders.fetch_sub(1, Ordering::SeqCst), 1);
            if !self.has_work() && !self.seat.resign(|| self.has_work()) {
                return;
            }
        }
    }

    /// As `drain_call_rcu`.
    fn drain(&self) {
        let ticket = self.tickets.lock().unwrap().request();
        if self.seat.claim() {
            self.lead();
        }
        let mut tickets = self.tickets.lock().unwrap();
        while tickets.complete() < ticket {
            tickets = self.completed.wait(tickets).unwrap();
        }
    }
}

/// Two contexts queue while one of them leads: every callback runs, and one leads at a time.
#[test]
fn no_callback_is_left_without_a_leader() {
    model(3, || {
        let domain = Domain::new();
        let ran = Arc::new(AtomicUsize::new(0));
        let contexts: Vec<_> = (0..2)
            .map(|_| {
                let (domain, ran) = (Arc::clone(&domain), Arc::clone(&ran));
                thread::spawn(move || {
                    let home = Home::new();
                    for _ in 0..2 {
                        let ran = Arc::clone(&ran);
                        domain.queue(&home, move || {
                            ran.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                })
            })
            .collect();
        for context in contexts {
            context.join().unwrap();
        }
        assert_eq!(ran.load(Ordering::Relaxed), 4);
        assert!(!domain.has_work());
    });
}

/// The same for threads that share a home.
#[test]
fn no_callback_of_a_shared_home_is_left_without_a_leader() {
    model(3, || {
        let domain = Domain::new();
        let ran = Arc::new(AtomicUsize::new(0));
        let queue = |domain: &Domain, ran: &Arc<AtomicUsize>| {
            let ran = Arc::clone(ran);
            domain.queue(&domain.shared, move || {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        };
        let (other, other_ran) = (Arc::clone(&domain), Arc::clone(&ran));
        let thread = thread::spawn(move || {
            queue(&other, &other_ran);
            queue(&other, &other_ran);
        });
        queue(&domain, &ran);
        thread.join().unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), 3);
        assert!(!domain.has_work());
    });
}

/// A drain ends, and not before what was queued earlier has run, whatever batch took it.
#[test]
fn a_drain_waits_for_what_was_queued_and_always_ends() {
    model(2, || {
        let domain = Domain::new();
        let threads: Vec<_> = (0..2)
            .map(|n| {
                let domain = Arc::clone(&domain);
                thread::spawn(move || {
                    let own = Home::new();
                    let home = if n == 0 { &domain.shared } else { &own };
                    let ran = Arc::new(AtomicUsize::new(0));
                    let flag = Arc::clone(&ran);
                    domain.queue(home, move || {
                        flag.fetch_add(1, Ordering::Relaxed);
                    });
                    domain.drain();
                    assert_eq!(ran.load(Ordering::Relaxed), 1);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(!domain.has_work());
    });
}

const PINNED: u64 = 1;
const NEXT: u64 = 2;

/// A thread's record, with pins told apart by number.
struct Reader {
    state: AtomicU64,
    mark: Mark,
}

impl Reader {
    fn new() -> Self {
        Self { state: AtomicU64::new(0), mark: Mark::new() }
    }

    fn pin(&self) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store((state + NEXT) | PINNED, Ordering::Relaxed);
        // What pinning in the collector does.
        fence(Ordering::SeqCst);
    }

    fn unpin(&self, bell: &Bell) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(state & !PINNED, Ordering::Release);
        bell.leave(&self.mark);
    }
}

/// As `Grace::poll` and `look`, for one round: waits until who is pinned now has left.
fn wait_for_readers(bell: &Bell, readers: &[Reader]) {
    let mut laggards: Option<Vec<(&Reader, u64)>> = None;
    loom::future::block_on(poll_fn(|cx| {
        bell.register(cx.waker());
        let still =
            |(reader, state): &(&Reader, u64)| reader.state.load(Ordering::Acquire) == *state;
        let laggards = laggards.get_or_insert_with(|| {
            // The writer has unlinked before; pairs with the fence in `pin`.
            fence(Ordering::SeqCst);
            let pinned: Vec<_> = readers
                .iter()
                .map(|reader| (reader, reader.state.load(Ordering::Acquire)))
                .filter(|(_, state)| state & PINNED != 0)
                .collect();
            bell.ask(pinned.iter().map(|(reader, _)| &reader.mark));
            pinned
        });
        laggards.retain(|laggard| {
            let still = still(laggard);
            if !still {
                bell.take_back(&laggard.0.mark);
            }
            still
        });
        if laggards.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }));
}

/// The waiting side sleeps only when woken for certain: loom reports a deadlock otherwise. What it frees then, no
/// reader touches: loom reports the race otherwise.
fn readers_and_a_writer(readers: usize, sections: usize, preemptions: usize) {
    struct Shared {
        bell: Bell,
        readers: Vec<Reader>,
        values: [UnsafeCell<u32>; 2],
        current: AtomicUsize,
    }
    // SAFETY: loom watches the accesses to the cells; that there is no race is what is shown.
    unsafe impl Sync for Shared {}
    // SAFETY: as above.
    unsafe impl Send for Shared {}

    model(preemptions, move || {
        let shared = Arc::new(Shared {
            bell: Bell::new(),
            readers: (0..readers).map(|_| Reader::new()).collect(),
            values: [UnsafeCell::new(1), UnsafeCell::new(1)],
            current: AtomicUsize::new(0),
        });
        let threads: Vec<_> = (0..readers)
            .map(|n| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for _ in 0..sections {
                        shared.readers[n].pin();
                        let current = shared.current.load(Ordering::Acquire);
                        // SAFETY: the section is open, so the value is not freed.
                        let value = shared.values[current].with(|value| unsafe { *value });
                        assert_eq!(value, 1, "read after it was freed");
                        shared.readers[n].unpin(&shared.bell);
                    }
                })
            })
            .collect();
        shared.current.store(1, Ordering::Release);
        wait_for_readers(&shared.bell, &shared.readers);
        // SAFETY: no section that could have found it is open.
        shared.values[0].with_mut(|value| unsafe { *value = 0 });
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn the_end_of_a_section_wakes_who_waits() {
    readers_and_a_writer(1, 2, 4);
}

#[test]
fn the_last_of_two_readers_wakes_who_waits() {
    readers_and_a_writer(2, 1, 2);
}

/// An element whose contents loom watches.
struct Element(UnsafeCell<u32>);

// SAFETY: loom watches the accesses; written when made and when dropped only.
unsafe impl Sync for Element {}
// SAFETY: as above.
unsafe impl Send for Element {}

impl Element {
    fn new(value: u32) -> Self {
        Self(UnsafeCell::new(value))
    }

    fn value(&self) -> u32 {
        // SAFETY: shared access; loom reports a race with the drop.
        self.0.with(|value| unsafe { *value })
    }
}

impl Drop for Element {
    fn drop(&mut self) {
        // SAFETY: exclusive access, loom checks.
        self.0.with_mut(|value| unsafe { *value = 0 });
    }
}

/// A reader walks while the writer inserts and removes at every place: it sees what was there all the time, in order,
/// each once, and nothing half-made or freed.
#[test]
fn a_list_changes_under_its_reader() {
    model(3, || {
        let list = Arc::new(RcuList::new());
        {
            let mut writer = list.write();
            writer.push_back(Element::new(2));
            writer.push_back(Element::new(4));
            writer.push_back(Element::new(6));
        }
        let walked = Arc::clone(&list);
        let reader = thread::spawn(move || {
            let guard = read();
            let seen: Vec<_> = walked.iter(&guard).map(Element::value).collect();
            assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
            assert!(seen.contains(&6), "{seen:?}");
            assert!(seen.iter().all(|n| (1..=7).contains(n)), "{seen:?}");
        });
        {
            let mut writer = list.write();
            writer.push_front(Element::new(1));
            writer.find(|element| element.value() == 4).unwrap().remove();
            writer.find(|element| element.value() == 2).unwrap().insert_after(Element::new(3));
            writer.find(|element| element.value() == 2).unwrap().remove();
            writer.push_back(Element::new(7));
        }
        reader.join().unwrap();
        api::grace_period();
        let left: Vec<_> = list.iter(&read()).map(Element::value).collect();
        assert_eq!(left, [1, 3, 6, 7]);
        drop(list);
        api::grace_period();
    });
}
