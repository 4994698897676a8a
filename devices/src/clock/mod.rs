//! The time that guest devices see.

mod stepped;

pub use stepped::VirtualClock;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What [`Clock::sleep_until`] gives.
pub type ClockSleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A machine's clock: the host's, or one that is stepped from outside. Any thread; never blocks.
pub trait Clock: Send + Sync {
    /// Nanoseconds since the machine was made; never goes back.
    fn monotonic_ns(&self) -> u64;
    /// Time of day in UTC, since the Unix epoch.
    fn wall(&self) -> Duration;
    /// Waits until [`Clock::monotonic_ns`] has come to `deadline_ns`. Dropping the future cancels the
    /// timer. For tasks; periodic work adds its period to the last deadline and not to the time it
    /// finds, which is later.
    fn sleep_until(&self, deadline_ns: u64) -> ClockSleep;
}

/// The host's clocks.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
}

impl HostClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn wall(&self) -> Duration {
        // A host whose clock stands before 1970 gives its guest 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep_until(&self, deadline_ns: u64) -> ClockSleep {
        let left = deadline_ns.saturating_sub(self.monotonic_ns());
        Box::pin(reactor::sleep(Duration::from_nanos(left)))
    }
}
