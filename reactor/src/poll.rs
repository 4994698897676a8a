//! Polling before sleeping: a bounded, adaptive time in which a core looks for work itself, so that
//! a wake-up costs no interrupt. Off (0) by default: dense hosts want their CPU back.

use crate::local::Local;
use crate::ring::Wait;
use std::time::{Duration, Instant};

/// The first window, and the least that shrinking leaves before polling stops.
const WINDOW_MIN: Duration = Duration::from_micros(4);

/// Doubles the window after a sleep that was short enough to have been polled through, halves it
/// after a longer one.
pub(crate) struct Poller {
    max: Duration,
    window: Duration,
    slept_at: Option<Instant>,
}

impl Poller {
    pub(crate) fn new(ns_max: u64) -> Self {
        Self { max: Duration::from_nanos(ns_max), window: Duration::ZERO, slept_at: None }
    }

    /// Looks for completions and messages for the length of the window. True when there is work;
    /// false when the context should sleep (nothing has been submitted then).
    pub(crate) fn spin(&mut self, local: &Local) -> std::io::Result<bool> {
        if self.max.is_zero() {
            return Ok(false);
        }
        let begun = Instant::now();
        self.adapt(begun);
        if self.window.is_zero() {
            self.slept_at = Some(begun);
            return Ok(false);
        }
        let due = local.timers.borrow().next_deadline();
        if local.ring.borrow_mut().has_unsubmitted() {
            local.ring.borrow_mut().enter(Wait::No)?;
        }
        loop {
            let mut ring = local.ring.borrow_mut();
            if ring.has_deferred() {
                ring.enter(Wait::No)?;
            }
            if ring.has_completions() || !local.shared().inject.is_empty() {
                return Ok(true);
            }
            drop(ring);
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return Ok(true);
            }
            if now - begun >= self.window {
                self.slept_at = Some(now);
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }

    fn adapt(&mut self, now: Instant) {
        let Some(slept_at) = self.slept_at.take() else { return };
        self.window = if now - slept_at <= self.max {
            (self.window * 2).clamp(WINDOW_MIN, self.max)
        } else if self.window <= WINDOW_MIN {
            Duration::ZERO
        } else {
            self.window / 2
        };
    }
}
