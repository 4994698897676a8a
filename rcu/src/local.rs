//! What a thread is to RCU: its participant, its nesting depth, and whether it is pinned.
//!
//! A thread registers at its first read and leaves when it ends. `epoch::Guard` is taken once, by
//! the outermost section or by the reactor's turn; what nests inside only counts.

use crossbeam_epoch::{self as epoch, Collector, LocalHandle};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::LazyLock;

/// The collector of this crate; nobody else pins it, so nobody else can hold up a grace period.
static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

/// A thread's side of RCU. Only its thread touches it.
pub(crate) struct Local {
    /// Sections open.
    depth: Cell<usize>,
    /// Whether a reactor's turn is going on.
    turn: Cell<bool>,
    /// Set exactly while `depth > 0 || turn`.
    pin: Cell<Option<epoch::Guard>>,
    /// The thread's storage is gone; the last guard frees this.
    orphan: Cell<bool>,
    handle: LocalHandle,
}

thread_local! {
    /// Null until the first read and again after the thread's storage is gone.
    static CURRENT: Cell<*const Local> = const { Cell::new(ptr::null()) };
    static OWNER: Owner = Owner::register();
}

/// Unregisters the thread at its end.
struct Owner(*const Local);

impl Owner {
    fn register() -> Self {
        let local = Local::allocate(false);
        CURRENT.set(local);
        Self(local)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
        // SAFETY: allocated by `register`; freed here unless guards are still open, in which case
        // the last of them does.
        let local = unsafe { &*self.0 };
        local.end_turn();
        if local.depth.get() == 0 {
            Local::free(self.0);
        } else {
            local.orphan.set(true);
        }
    }
}

impl Local {
    fn allocate(orphan: bool) -> *const Self {
        Box::into_raw(Box::new(Self {
            depth: Cell::new(0),
            turn: Cell::new(false),
            pin: Cell::new(None),
            orphan: Cell::new(orphan),
            handle: COLLECTOR.register(),
        }))
    }

    fn free(this: *const Self) {
        // SAFETY: `this` came from `allocate`; the callers are the thread's end with no section
        // open, and the last guard of an orphan: either is the last use.
        drop(unsafe { Box::from_raw(this.cast_mut()) });
    }

    /// This thread's, registering it where needed.
    #[inline]
    fn current() -> *const Self {
        let local = CURRENT.get();
        if local.is_null() { Self::current_slow() } else { local }
    }

    #[cold]
    fn current_slow() -> *const Self {
        // A thread whose storage is already being torn down gets a participant for one section.
        OWNER.try_with(|owner| owner.0).unwrap_or_else(|_| Self::allocate(true))
    }

    #[inline]
    fn enter(&self) {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth == 0 && !self.turn.get() {
            self.pin.set(Some(self.handle.pin()));
        }
    }

    #[inline]
    fn leave(this: *const Self) {
        // SAFETY: a guard exists, so the participant does.
        let local = unsafe { &*this };
        let depth = local.depth.get() - 1;
        local.depth.set(depth);
        if depth == 0 && !local.turn.get() {
            drop(local.pin.take());
            if local.orphan.get() {
                Self::free(this);
            }
        }
    }

    /// Defers `token` and tries to move the epoch on.
    pub(crate) fn defer(&self, token: impl FnOnce() + Send + 'static) {
        let guard = self.handle.pin();
        guard.defer(token);
        guard.flush();
    }

    /// Tries to move the epoch on.
    pub(crate) fn advance(&self) {
        self.handle.pin().flush();
    }

    pub(crate) fn begin_turn(&self) {
        if !self.turn.replace(true) && self.depth.get() == 0 {
            self.pin.set(Some(self.handle.pin()));
        }
    }

    pub(crate) fn end_turn(&self) {
        if self.turn.replace(false) && self.depth.get() == 0 {
            drop(self.pin.take());
        }
    }
}

/// Runs `f` on this thread's participant, unless the thread's storage is gone.
pub(crate) fn with_local<R>(f: impl FnOnce(&Local) -> R) -> Option<R> {
    // SAFETY: the owner keeps it alive while its thread's storage exists.
    OWNER.try_with(|owner| f(unsafe { &*owner.0 })).ok()
}

/// An open read-side section: nothing that was reachable when it began is reclaimed before it ends.
///
/// Sections nest. A guard stays on its thread, so a task that may hop cannot hold one across an
/// `.await`.
#[must_use = "the section ends when the guard is dropped"]
pub struct Guard {
    local: NonNull<Local>,
    /// Neither `Send` nor `Sync`.
    thread: PhantomData<*const ()>,
}

/// Opens a read-side section (`rcu_read_lock`). Any thread; never blocks.
#[inline]
pub fn read() -> Guard {
    let local = Local::current();
    // SAFETY: `current` gives this thread's participant, or a fresh one that this guard frees.
    let local = unsafe { NonNull::new_unchecked(local.cast_mut()) };
    // SAFETY: as above.
    unsafe { local.as_ref() }.enter();
    Guard { local, thread: PhantomData }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        Local::leave(self.local.as_ptr());
    }
}

/// Whether this thread holds up grace periods: it is in a section or in a reactor's turn.
pub fn is_pinned() -> bool {
    let local = CURRENT.get();
    if local.is_null() {
        return false;
    }
    // SAFETY: not null, so this thread's participant is alive.
    let local = unsafe { &*local };
    local.depth.get() > 0 || local.turn.get()
}

/// Panics when this thread is pinned: to be called before `KVM_RUN` and before any sleep, where a pin
/// would hold up every grace period.
#[track_caller]
pub fn assert_not_pinned() {
    assert!(!is_pinned(), "an RCU read-side section is open where the thread is about to sleep");
}
