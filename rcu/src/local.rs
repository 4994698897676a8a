//! What a thread is to RCU: its participant, its nesting depth, and whether it is pinned.
//!
//! A thread registers at its first read and leaves when it ends. The epoch is pinned once, by the
//! outermost section or by the reactor's turn; what nests inside only counts.

use crate::domain::{DOMAIN, Domain};
use crate::home::Resident;
use crate::threads::Record;
use crossbeam_epoch::{self as epoch, LocalHandle};
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// A reactor's turn is going on; what is below counts the sections that are open.
const TURN: usize = 1 << (usize::BITS - 1);

/// The thread's storage is gone: the last guard frees the participant.
const ORPHAN: u8 = 1;
/// A guard outlived the turn it was opened in: its end must fence as the turn's would have.
const CARRIED: u8 = 2;

/// A thread's side of RCU. Only its thread touches it.
pub(crate) struct Local {
    /// Sections open, and `TURN`.
    nesting: Cell<usize>,
    /// `ORPHAN`, `CARRIED`.
    rare: Cell<u8>,
    /// Set exactly while `nesting` is not 0.
    pin: Cell<Option<epoch::Guard>>,
    record: Arc<Record>,
    domain: &'static Domain,
    /// Where this thread's callbacks run, if it is a reactor and has asked.
    resident: RefCell<Option<Resident>>,
    /// After `pin`, so that it is dropped after it.
    handle: LocalHandle,
}

thread_local! {
    /// Null until the first read, and again once the thread's storage is gone.
    static CURRENT: Cell<*const Local> = const { Cell::new(ptr::null()) };
    static OWNER: Owner = Owner::register();
}

/// Unregisters the thread at its end.
struct Owner(*const Local);

impl Owner {
    fn register() -> Self {
        let local = Local::allocate(0);
        CURRENT.set(local);
        Self(local)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
        // SAFETY: allocated by `register`; freed below, unless guards are still open (in other
        // thread-local values), in which case the last of them frees it.
        let local = unsafe { &*self.0 };
        local.end_turn();
        if local.in_section() {
            local.rare.set(local.rare.get() | ORPHAN);
        } else {
            Local::free(self.0);
        }
    }
}

impl Local {
    #[cold]
    fn allocate(rare: u8) -> *const Self {
        let domain = &*DOMAIN;
        let record = Arc::new(Record::new());
        let local = Self {
            nesting: Cell::new(0),
            rare: Cell::new(rare),
            pin: Cell::new(None),
            record: Arc::clone(&record),
            domain,
            resident: RefCell::new(None),
            handle: domain.collector.register(),
        };
        domain.threads.add(record);
        Box::into_raw(Box::new(local))
    }

    #[cold]
    fn free(this: *const Self) {
        // SAFETY: `this` came from `allocate`; the callers are the thread's end with no section
        // open, and the last guard of an orphan: either is the last use.
        let local = unsafe { Box::from_raw(this.cast_mut()) };
        // Unregistered first: leaving the collector pins for a moment, and a grace period that finds
        // itself held up by nobody it knows tries again instead of sleeping.
        local.domain.threads.remove(&local.record);
        drop(local);
    }

    /// This thread's, registering it where needed.
    #[inline]
    fn current() -> *const Self {
        let local = CURRENT.get();
        if local.is_null() { Self::current_slow() } else { local }
    }

    #[cold]
    fn current_slow() -> *const Self {
        // A thread whose storage is being torn down gets a participant for one section.
        OWNER.try_with(|owner| owner.0).unwrap_or_else(|_| Self::allocate(ORPHAN))
    }

    #[inline]
    fn enter(&self, place: &'static Location<'static>) {
        let nesting = self.nesting.get();
        self.nesting.set(nesting + 1);
        if nesting == 0 {
            self.record.pinning(Some(place));
            self.pin(self.handle.pin());
        } else if nesting == TURN {
            self.record.set_place(Some(place));
        }
    }

    #[inline]
    fn leave(this: *const Self) {
        // SAFETY: a guard exists, so the participant does.
        let local = unsafe { &*this };
        let nesting = local.nesting.get() - 1;
        local.nesting.set(nesting);
        if nesting == 0 {
            drop(local.pin.take());
            local.record.unpinned();
            local.domain.bell.leave(&local.record.mark);
            if local.rare.get() != 0 {
                Self::leave_rare(this);
            }
        }
    }

    /// Keeps the pin. There is none yet, which spares the compiler dropping it.
    #[inline]
    fn pin(&self, guard: epoch::Guard) {
        std::mem::forget(self.pin.replace(Some(guard)));
    }

    #[cold]
    fn leave_rare(this: *const Self) {
        // SAFETY: as in `leave`.
        let local = unsafe { &*this };
        let rare = local.rare.replace(0);
        if rare & CARRIED != 0 {
            local.domain.bell.leave_fenced(&local.record.mark);
        }
        if rare & ORPHAN != 0 {
            Self::free(this);
        }
    }

    /// A reactor's turn begins on this thread.
    pub(crate) fn begin_turn(&self) {
        let nesting = self.nesting.get();
        if nesting == 0 {
            self.record.pinning(None);
            self.pin(self.handle.pin());
        }
        self.nesting.set(nesting | TURN);
    }

    /// The turn is over.
    pub(crate) fn end_turn(&self) {
        let nesting = self.nesting.get();
        self.nesting.set(nesting & !TURN);
        if nesting == TURN {
            drop(self.pin.take());
            self.record.unpinned();
            self.domain.bell.leave_fenced(&self.record.mark);
        } else if nesting & TURN != 0 {
            self.rare.set(self.rare.get() | CARRIED);
        }
    }

    /// Defers `token` on this thread's participant and sends it on its way.
    pub(crate) fn defer(&self, token: impl FnOnce() + Send + 'static) {
        let guard = self.handle.pin();
        guard.defer(token);
        guard.flush();
    }

    /// Tries to move the epoch on. The turn's own pin moves along; a section on this very thread
    /// (a suspended local task that holds a guard) does not.
    pub(crate) fn advance(&self) {
        match self.pin.take() {
            None => self.handle.pin().flush(),
            Some(mut guard) => {
                if !self.in_section() {
                    guard.repin();
                }
                guard.flush();
                self.pin(guard);
            }
        }
    }

    /// Whether a section is open on this thread: its pin cannot be moved along.
    pub(crate) fn in_section(&self) -> bool {
        self.nesting.get() & !TURN != 0
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    pub(crate) fn resident(&self) -> &RefCell<Option<Resident>> {
        &self.resident
    }
}

/// Runs `f` on this thread's participant; `None` once the thread's storage is gone.
pub(crate) fn with_local<R>(f: impl FnOnce(&Local) -> R) -> Option<R> {
    // SAFETY: the owner keeps it alive while its thread's storage exists.
    OWNER.try_with(|owner| f(unsafe { &*owner.0 })).ok()
}

/// This thread's record, for what outlives the thread's storage a fresh one that nobody looks at.
pub(crate) fn current_record() -> Arc<Record> {
    with_local(|local| Arc::clone(&local.record)).unwrap_or_else(|| Arc::new(Record::new()))
}

/// An open read-side section: nothing that could be reached when it began is reclaimed before it
/// ends.
///
/// Sections nest. A guard stays on its thread, so a task that may hop cannot hold one across an
/// `.await`: the compiler refuses the task, whose future is not `Send`.
#[must_use = "the section ends when the guard is dropped"]
pub struct Guard {
    /// A pointer, hence neither `Send` nor `Sync`.
    local: NonNull<Local>,
}

/// Opens a read-side section (`rcu_read_lock`). Any thread; never blocks.
///
/// Inside a reactor's turn or another section this only counts; otherwise it pins the thread, which
/// holds up every grace period until the guard is dropped. Keep sections short, and never sleep in one.
#[inline]
#[track_caller]
pub fn read() -> Guard {
    let local = Local::current();
    // SAFETY: `current` gives this thread's participant, or a fresh one that this guard frees; it
    // is not null and outlives the guard.
    let (local, this) = unsafe { (NonNull::new_unchecked(local.cast_mut()), &*local) };
    this.enter(Location::caller());
    Guard { local }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        Local::leave(self.local.as_ptr());
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rcu::Guard")
    }
}

/// Whether this thread holds up grace periods: it is in a section or in a reactor's turn.
#[inline]
pub fn is_pinned() -> bool {
    let local = CURRENT.get();
    if local.is_null() {
        return false;
    }
    // SAFETY: not null, so this thread's participant is alive.
    unsafe { &*local }.nesting.get() != 0
}

/// Panics when this thread [is pinned](is_pinned). To be called where the thread is about to sleep
/// for an unknown time, as before `KVM_RUN`: a pin would hold up every grace period meanwhile.
#[inline]
#[track_caller]
pub fn assert_not_pinned() {
    assert!(!is_pinned(), "an RCU read-side section is open where the thread is about to sleep");
}

#[cfg(test)]
mod tests;
