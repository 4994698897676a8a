//! What each thread shows to the one who waits for a grace period: whether it is in a section, where
//! it opened it, and how to kick it out.

use crate::bell::Mark;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// The thread is pinned.
const PINNED: u64 = 1;
/// The pin will end with a full fence of the thread's own: a reactor's turn.
const FENCED: u64 = 2;
/// One pin more since the thread was registered.
const NEXT: u64 = 4;

/// Called to make a thread leave its section soon.
pub(crate) type Force = Arc<dyn Fn() + Send + Sync>;

/// One thread. Written by its thread only, on a cache line of its own.
#[repr(align(128))]
pub(crate) struct Record {
    state: AtomicU64,
    /// Where the outermost section was opened; null in a turn without sections.
    place: AtomicPtr<Location<'static>>,
    /// Whether a grace period wants to know when the thread leaves.
    pub(crate) mark: Mark,
    name: Box<str>,
    force: Mutex<Option<Force>>,
}

impl Record {
    /// For the current thread.
    pub(crate) fn new() -> Self {
        let thread = std::thread::current();
        let name = thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_owned);
        Self {
            state: AtomicU64::new(0),
            place: AtomicPtr::new(ptr::null_mut()),
            mark: Mark::new(),
            name: name.into(),
            force: Mutex::new(None),
        }
    }

    /// Before the thread pins. Owner only.
    #[inline]
    pub(crate) fn pinning(&self, place: Option<&'static Location<'static>>) {
        let flags = if place.is_some() { PINNED } else { PINNED | FENCED };
        let state = (self.state.load(Ordering::Relaxed) & !(PINNED | FENCED)) + NEXT;
        self.set_place(place);
        self.state.store(state | flags, Ordering::Relaxed);
    }

    /// After the thread has unpinned, before it looks at the bell. Owner only.
    #[inline]
    pub(crate) fn unpinned(&self) {
        let state = self.state.load(Ordering::Relaxed) & !(PINNED | FENCED);
        // Release: who sees the thread unpinned sees its epoch unpinned too.
        self.state.store(state, Ordering::Release);
    }

    /// Owner only.
    #[inline]
    pub(crate) fn set_place(&self, place: Option<&'static Location<'static>>) {
        let place = place.map_or(ptr::null(), ptr::from_ref);
        self.place.store(place.cast_mut(), Ordering::Relaxed);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn place(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null or a `&'static Location`.
        unsafe { self.place.load(Ordering::Relaxed).as_ref() }
    }

    pub(crate) fn force(&self) -> MutexGuard<'_, Option<Force>> {
        self.force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a pinned thread at some moment.
pub(crate) struct Pinned {
    pub(crate) record: Arc<Record>,
    state: u64,
}

impl Pinned {
    /// Whether its pin ends with a fence of its own.
    pub(crate) fn is_fenced(&self) -> bool {
        self.state & FENCED != 0
    }

    /// Whether it has been pinned without a break since.
    pub(crate) fn is_still(&self) -> bool {
        // Acquire pairs with the Release in `unpinned`.
        self.record.state.load(Ordering::Acquire) == self.state
    }
}

/// Every thread that has a participant.
#[derive(Default)]
pub(crate) struct Threads(Mutex<State>);

#[derive(Default)]
struct State {
    records: Vec<Arc<Record>>,
    fence_required: bool,
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For who leads, perhaps on a reactor: it does not wait.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.0.try_lock() {
            Ok(threads) => Some(threads),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn add(&self, record: Arc<Record>) {
        let mut threads = self.lock();
        if threads.fence_required {
            record.mark.require_fence();
        }
        threads.records.push(record);
    }

    /// Makes every thread fence when it leaves a section, those to come included. True where they had
    /// been told before: any that was leaving then has left.
    pub(crate) fn require_fences(&self) -> bool {
        // While a thread is being born or dies: the next time.
        let Some(mut threads) = self.try_lock() else { return false };
        let before = std::mem::replace(&mut threads.fence_required, true);
        if !before {
            threads.records.iter().for_each(|record| record.mark.require_fence());
        }
        before
    }

    pub(crate) fn remove(&self, record: &Arc<Record>) {
        let mut threads = self.lock();
        if let Some(at) = threads.records.iter().position(|other| Arc::ptr_eq(other, record)) {
            threads.records.swap_remove(at);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().records.len()
    }

    /// The threads that are pinned now, but for `except`. `None` while a thread is being born or
    /// dies: the caller tries again rather than wait for it.
    pub(crate) fn pinned(&self, except: Option<&Arc<Record>>) -> Option<Vec<Pinned>> {
        let threads = self.try_lock()?;
        let pinned = threads.records.iter().filter_map(|record| {
            // Acquire pairs with the Release in `unpinned`.
            let state = record.state.load(Ordering::Acquire);
            let other = except.is_none_or(|except| !Arc::ptr_eq(except, record));
            (other && state & PINNED != 0).then(|| Pinned { record: Arc::clone(record), state })
        });
        Some(pinned.collect())
    }
}

/// Keeps a force notifier in place; dropping it removes the notifier.
#[must_use = "dropping it removes the notifier"]
pub struct ForceNotifier {
    record: Arc<Record>,
    function: Force,
}

impl Drop for ForceNotifier {
    fn drop(&mut self) {
        let mut slot = self.record.force();
        if slot.as_ref().is_some_and(|function| Arc::ptr_eq(function, &self.function)) {
            *slot = None;
        }
    }
}

/// Registers `f` to be called when the current thread's read-side section holds up a grace period
/// for long, or while the reclaimer is expedited (QEMU's `rcu_add_force_rcu_notifier`). It should make the thread
/// leave its section, for instance by kicking a vCPU out of a loop.
///
/// `f` is called on whichever thread drives the grace period, reactors included: it must not block.
/// A thread has one notifier; a second one replaces the first.
pub fn add_force_rcu_notifier(f: impl Fn() + Send + Sync + 'static) -> ForceNotifier {
    let record = crate::local::current_record();
    let function: Force = Arc::new(f);
    let before = record.force().replace(Arc::clone(&function));
    drop(before);
    ForceNotifier { record, function }
}
