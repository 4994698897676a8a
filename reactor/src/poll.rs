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
    /// false when the context should sleep.
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
        let mut ring = local.ring.borrow_mut();
        if ring.has_unsubmitted() {
            ring.enter(Wait::No)?;
        }
        loop {
            if ring.has_deferred() {
                ring.enter(Wait::No)?;
            }
            if ring.has_completions() || !local.shared.is_empty() {
                return Ok(true);
            }
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
            (self.window * 2).clamp(WINDOW_MIN.min(self.max), self.max)
        } else if self.window <= WINDOW_MIN {
            Duration::ZERO
        } else {
            self.window / 2
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{Poller, WINDOW_MIN};
    use std::time::{Duration, Instant};

    #[test]
    fn window_grows_with_short_sleeps_and_vanishes_with_long_ones() {
        let mut poller = Poller::new(100_000);
        let max = Duration::from_micros(100);
        let start = Instant::now();
        let mut sleep = |length: Duration| {
            poller.slept_at = Some(start);
            poller.adapt(start + length);
            poller.window
        };
        assert_eq!(sleep(Duration::from_micros(50)), WINDOW_MIN);
        assert_eq!(sleep(Duration::from_micros(50)), WINDOW_MIN * 2);
        for _ in 0..10 {
            sleep(Duration::from_micros(50));
        }
        assert_eq!(sleep(Duration::from_micros(50)), max);
        for _ in 0..5 {
            sleep(Duration::from_millis(1));
        }
        assert_eq!(sleep(Duration::from_millis(1)), Duration::ZERO);
    }

    /// A limit below the least window made the bounds of the window cross.
    #[test]
    fn limit_below_the_least_window_is_kept() {
        let mut poller = Poller::new(1);
        let now = Instant::now();
        poller.slept_at = Some(now);
        poller.adapt(now);
        assert_eq!(poller.window, Duration::from_nanos(1));
    }
}
