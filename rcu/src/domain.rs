//! The process's RCU state: one of each, for every runtime and thread in it.

use crate::bell::Bell;
use crate::handover::{ActiveList, Seat};
use crate::home::Home;
use crate::leader::Leadership;
use crate::ledger::Ledger;
use crate::stats::Cells;
use crate::threads::Threads;
use crossbeam_epoch::Collector;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub(crate) static DOMAIN: LazyLock<Domain> = LazyLock::new(Domain::new);

/// Keeps what many threads read away from what some thread writes.
#[repr(align(128))]
pub(crate) struct Padded<T>(T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub(crate) struct Domain {
    /// Of this crate alone: nobody else pins it, so nobody else can hold up a grace period.
    pub(crate) collector: Collector,
    pub(crate) bell: Padded<Bell>,
    pub(crate) threads: Threads,
    pub(crate) seat: Seat,
    /// The contexts that have callbacks queued.
    pub(crate) active: ActiveList<Home>,
    /// The home of every thread that is no reactor.
    pub(crate) shared: Arc<Home>,
    pub(crate) ledger: Ledger,
    /// Callbacks queued and not yet run.
    pub(crate) pending: Padded<AtomicUsize>,
    /// The last grace period that was begun, and the last one known to have passed.
    pub(crate) begun: AtomicU64,
    pub(crate) passed: AtomicU64,
    pub(crate) settings: Settings,
    pub(crate) stats: Cells,
}

impl Domain {
    fn new() -> Self {
        let threads = Threads::default();
        if !crate::membarrier::is_available() {
            threads.require_fences();
        }
        Self {
            collector: Collector::new(),
            bell: Padded(Bell::new()),
            threads,
            seat: Seat::new(),
            active: ActiveList::new(),
            shared: Home::shared(),
            ledger: Ledger::default(),
            pending: Padded(AtomicUsize::new(0)),
            begun: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            settings: Settings::new(),
            stats: Cells::new(),
        }
    }

    /// Appends `f` to the queue of `home`, which is the calling thread's, and sees to it that somebody
    /// drives its grace period.
    pub(crate) fn queue(&self, home: &Arc<Home>, f: impl FnOnce() + Send + 'static) {
        // Counted first: who finds nothing pending knows that nothing was queued before.
        let pending = self.pending.fetch_add(1, Ordering::SeqCst);
        let first = home.queue.push(f);
        let lead = if home.is_shared() {
            // Many producers: the leader always looks here, and each of them looks for a leader.
            self.seat.claim()
        } else {
            // The only producer: while its queue is on the list somebody leads, or is about to.
            first && {
                self.active.add(Arc::clone(home));
                self.seat.claim()
            }
        };
        if lead {
            home.send(Leadership::new().into());
        }
        if pending == self.settings.pending_max() {
            // Beyond the bound from now on: a grace period that waits shall hurry.
            self.bell.wake_waiting();
        }
    }

    /// Whether a leader would find something to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.active.is_empty() || !self.shared.queue.is_empty() || self.ledger.is_requested()
    }

    /// Asks for a batch to be closed and sees to it that somebody does; returns its number. `home` is the calling
    /// thread's.
    pub(crate) fn request(&self, home: &Home) -> u64 {
        let ticket = self.ledger.request();
        if self.seat.claim() {
            home.send(Leadership::new().into());
        }
        ticket
    }

    /// Whether more is pending than the bound allows.
    pub(crate) fn is_crowded(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > self.settings.pending_max()
    }
}

/// What can be set while running.
pub(crate) struct Settings {
    stall_limit_ns: AtomicU64,
    pending_max: AtomicUsize,
}

impl Settings {
    const STALL_LIMIT: Duration = Duration::from_secs(1);
    const PENDING_MAX: usize = 10_000;

    fn new() -> Self {
        Self {
            stall_limit_ns: AtomicU64::new(Self::STALL_LIMIT.as_nanos() as u64),
            pending_max: AtomicUsize::new(Self::PENDING_MAX),
        }
    }

    pub(crate) fn stall_limit(&self) -> Duration {
        Duration::from_nanos(self.stall_limit_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn pending_max(&self) -> usize {
        self.pending_max.load(Ordering::Relaxed)
    }
}

/// Sets after how long a reader that holds up a grace period is reported. The default is one second;
/// below a millisecond counts as a millisecond.
pub fn set_stall_limit(limit: Duration) {
    let ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
    DOMAIN.settings.stall_limit_ns.store(ns, Ordering::Relaxed);
}

/// Sets how many callbacks may be pending before grace periods are expedited (readers that hold them
/// up are kicked at once) and [`throttle_call_rcu_co`](crate::throttle_call_rcu_co) waits. The default
/// is 10 000.
pub fn set_pending_max(callbacks: usize) {
    DOMAIN.settings.pending_max.store(callbacks, Ordering::Relaxed);
}
