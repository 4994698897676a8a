//! One grace period.
//!
//! A token is deferred in the collector; it runs once the epoch has moved on twice, which every
//! reader of the time before must have ended for. The token only notes that, wherever it runs:
//! the collector runs it on any thread that happens to collect. Whoever leads moves the epoch on
//! and, where a reader is in the way, sleeps until the bell rings.

use crate::domain::DOMAIN;
use crate::local::{Local, with_local};
use crate::membarrier;
use crate::stall;
use crate::threads::{Pinned, Record};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How long to go on trying before the readers in the way are asked to answer, as most sections are over by then:
/// asking costs a membarrier (33 us beside a running thread) and being woken by another CPU 30 us.
const SPIN: Duration = Duration::from_micros(3);
/// A reader that holds up a grace period this long is kicked, if it can be.
const KICK_AFTER: Duration = Duration::from_millis(10);
/// When to look again where a reader may have left without an answer: as `membarrier` is lost to a seccomp
/// filter, until the readers know that they must fence.
const DOUBT: Duration = Duration::from_millis(1);

/// What the leader has to do next.
pub(crate) enum Wait {
    /// The grace period is over.
    Over,
    /// Come back soon: some other thread is in the middle of something short.
    Again,
    /// Come back when woken, or at this time.
    Until(Instant),
}

/// A reader in the way: marked, and found pinned after that.
struct Laggard {
    pinned: Pinned,
    since: Instant,
    kicked: bool,
    reports: u32,
    reported_at: Instant,
}

pub(crate) struct Grace {
    number: u64,
    begun: Instant,
    laggards: Vec<Laggard>,
    expedited: bool,
    /// Neither the readers nor we have fenced: one of them may have left without an answer.
    doubtful: bool,
}

impl Grace {
    /// Begins: whoever reads from now on is no concern of this grace period.
    pub(crate) fn begin() -> Self {
        let number = DOMAIN.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let token = move || {
            // Release pairs with the Acquire in `is_over`.
            DOMAIN.passed.fetch_max(number, Ordering::Release);
            DOMAIN.bell.wake_waiting();
        };
        with_local(|local| local.defer(token)).expect("a worker's thread has its storage");
        Self {
            number,
            begun: Instant::now(),
            laggards: Vec::new(),
            expedited: false,
            doubtful: false,
        }
    }

    fn is_over(&self) -> bool {
        DOMAIN.passed.load(Ordering::Acquire) >= self.number
    }

    fn advance(&self) -> bool {
        with_local(Local::advance);
        self.is_over()
    }

    /// Goes on trying for a moment. True when the grace period is over.
    fn spin(&self) -> bool {
        let until = Instant::now() + SPIN;
        while Instant::now() < until {
            std::hint::spin_loop();
            if self.advance() {
                return true;
            }
        }
        false
    }

    /// Moves on as far as the readers let it; wakes `waker` when it is worth another try.
    pub(crate) fn poll(&mut self, waker: &Waker) -> Wait {
        // Before the readers are looked at: who leaves after that wakes.
        DOMAIN.bell.register(waker);
        self.forget_who_left();
        if self.laggards.is_empty() {
            if self.advance() || self.advance() || self.spin() {
                return self.over();
            }
            match self.look() {
                Wait::Over => return self.over(),
                Wait::Again => return Wait::Again,
                Wait::Until(_) => {}
            }
        } else if self.advance() {
            return self.over();
        }
        DOMAIN.stats.sleeps.fetch_add(1, Ordering::Relaxed);
        self.watch()
    }

    fn forget_who_left(&mut self) {
        self.laggards.retain(|laggard| {
            let still = laggard.pinned.is_still();
            if !still {
                // It may be about to answer, or have missed the mark (`doubtful`): one of us counts it down.
                DOMAIN.bell.take_back(&laggard.pinned.record.mark);
            }
            still
        });
    }

    fn over(&mut self) -> Wait {
        for laggard in self.laggards.drain(..) {
            DOMAIN.bell.take_back(&laggard.pinned.record.mark);
        }
        DOMAIN.stats.grace_period(self.begun.elapsed());
        Wait::Over
    }

    /// Looks for readers in the way and marks them. `Until` where there are some: each of them will
    /// answer. There are two such rounds at most, as the epoch has to move on twice.
    fn look(&mut self) -> Wait {
        let own = own_record();
        let Some(pinned) = DOMAIN.threads.pinned(own.as_ref()) else { return Wait::Again };
        DOMAIN.bell.ask(pinned.iter().map(|pinned| &pinned.record.mark));
        self.doubtful = false;
        if pinned.iter().any(|pinned| !pinned.is_fenced()) {
            // These do not fence when they leave: we do it for them.
            DOMAIN.stats.membarriers.fetch_add(1, Ordering::Relaxed);
            if !membarrier::fence_all() {
                self.doubtful = !DOMAIN.threads.require_fences();
            }
        }
        let now = Instant::now();
        for pinned in pinned {
            if pinned.is_still() {
                self.laggards.push(Laggard::new(pinned, now));
            } else {
                DOMAIN.bell.take_back(&pinned.record.mark);
            }
        }
        if self.is_over() {
            // Somebody else has moved the epoch on, perhaps without seeing us wait.
            Wait::Over
        } else if self.laggards.is_empty() {
            Wait::Again
        } else {
            Wait::Until(now)
        }
    }

    /// Keeps an eye on the readers in the way; tells when to look at them again.
    fn watch(&mut self) -> Wait {
        let now = Instant::now();
        let limit = DOMAIN.settings.stall_limit();
        let hurry = DOMAIN.is_crowded();
        if hurry && !self.expedited {
            self.expedited = true;
            DOMAIN.stats.expedited.fetch_add(1, Ordering::Relaxed);
        }
        let mut at = if self.doubtful { now + DOUBT } else { now + limit };
        for laggard in &mut self.laggards {
            at = at.min(laggard.attend(now, hurry, limit));
        }
        Wait::Until(at)
    }
}

impl Laggard {
    fn new(pinned: Pinned, since: Instant) -> Self {
        Self { pinned, since, kicked: false, reports: 0, reported_at: since }
    }

    /// Kicks and reports where it is time; returns when it will be next.
    fn attend(&mut self, now: Instant, hurry: bool, limit: Duration) -> Instant {
        // No need to wake up for one that cannot be kicked.
        let kick_at = self.pinned.record.force().is_some().then(|| self.since + KICK_AFTER);
        let due = kick_at.is_some_and(|at| hurry || now >= at);
        if due && !self.kicked {
            self.kicked = true;
            stall::kick(&self.pinned.record);
        }
        // Ever more rarely, as the kernel does.
        let mut report_at = self.reported_at + limit * 2u32.saturating_pow(self.reports);
        if now >= report_at {
            self.reports = (self.reports + 1).min(10);
            self.reported_at = now;
            report_at = now + limit * 2u32.saturating_pow(self.reports);
            stall::report(&self.pinned, now - self.since);
        }
        kick_at.filter(|_| !self.kicked).map_or(report_at, |kick_at| report_at.min(kick_at))
    }
}

/// The thread's own record, where its pin is a turn that `advance` moves along and so in nobody's way.
fn own_record() -> Option<Arc<Record>> {
    with_local(|local| (!local.in_section()).then(|| Arc::clone(local.record()))).flatten()
}
