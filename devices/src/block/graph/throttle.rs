//! Limits of throughput: leaky buckets that several back ends may share.
//!
//! The arithmetic is QEMU's (`util/throttle.c`), to the nanosecond: a request goes ahead while no
//! bucket is above its brim, and fills the buckets afterwards. What was poured in leaks out at the
//! average rate; a burst fills a second, small bucket that leaks at the burst rate.
//!
//! Only back ends with limits come here: those of one group share a budget, which takes a mutex that
//! is held for a few additions.

use crate::clock::{Clock, ClockSleep};
use crate::error::CommandError;
use crate::objects::check_limits;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

const NS_PER_S: f64 = 1e9;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl Direction {
    pub(super) const ALL: [Self; 2] = [Self::Read, Self::Write];
}

/// As QEMU's buckets count: a double.
#[expect(
    clippy::cast_precision_loss,
    reason = "limits are far below 2^53, and this is what QEMU does"
)]
fn float(n: u64) -> f64 {
    n as f64
}

/// Without the fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "waits are not negative, and the cast saturates"
)]
fn whole(ns: f64) -> u64 {
    ns as u64
}

/// The limit of one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units a second; 0: no limit.
    pub average: u64,
    /// Units a second in a burst; 0: a tenth of a second's worth at once.
    pub burst: u64,
    /// Seconds that a burst may last.
    pub burst_s: u64,
}

/// The counts that have limits, by their place in [`Limits::rates`].
const COUNTS: [&str; 6] =
    ["bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write"];
/// How many of these count bytes.
const BYTE_COUNTS: usize = 3;

/// All limits of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in total, read, written; then requests likewise.
    pub rates: [Rate; 6],
    /// Bytes of a request that counts as one; 0: any.
    pub request_bytes: u64,
}

impl Limits {
    /// Reads the members of `ThrottleLimits`. The errors are QEMU's.
    pub fn parse(members: Map<String, Value>) -> Result<Self, CommandError> {
        let members = Value::Object(members);
        check_limits(Some(&members))?;
        let number = |name: &str, usual| members.get(name).and_then(Value::as_u64).unwrap_or(usual);
        let rates = COUNTS.map(|name| Rate {
            average: number(name, 0),
            burst: number(&format!("{name}-max"), 0),
            burst_s: number(&format!("{name}-max-length"), 1),
        });
        Ok(Self { rates, request_bytes: number("iops-size", 0) })
    }

    /// As the members of `ThrottleLimits`, all of them.
    pub fn to_json(&self) -> Value {
        let mut members = Map::new();
        for (name, rate) in COUNTS.iter().zip(&self.rates) {
            members.insert((*name).to_owned(), rate.average.into());
            members.insert(format!("{name}-max"), rate.burst.into());
            members.insert(format!("{name}-max-length"), rate.burst_s.into());
        }
        members.insert("iops-size".to_owned(), self.request_bytes.into());
        Value::Object(members)
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.rates.iter().any(|rate| rate.average > 0)
    }
}

/// What was poured into the two buckets of a count, and has not leaked out.
#[derive(Clone, Copy, Default)]
struct Level {
    whole: f64,
    burst: f64,
}

impl Rate {
    fn leak(&self, level: &mut Level, ns: u64) {
        let leaked = |rate: u64| float(rate) * float(ns) / NS_PER_S;
        level.whole = (level.whole - leaked(self.average)).max(0.0);
        if self.burst_s > 1 {
            level.burst = (level.burst - leaked(self.burst)).max(0.0);
        }
    }

    /// Nanoseconds until a request may go ahead.
    fn wait_ns(&self, level: Level) -> u64 {
        if self.average == 0 {
            return 0;
        }
        let (brim, burst_brim) = match self.burst {
            0 => (float(self.average) / 10.0, 0.0),
            burst => (float(burst) * float(self.burst_s), float(burst) / 10.0),
        };
        // Truncated, as in QEMU: less than a nanosecond is no wait.
        let wait = |above: f64, rate: u64| whole(above * NS_PER_S / float(rate));
        if level.whole > brim {
            wait(level.whole - brim, self.average)
        } else if self.burst_s > 1 && level.burst > burst_brim {
            wait(level.burst - burst_brim, self.burst)
        } else {
            0
        }
    }
}

struct State {
    limits: Limits,
    levels: [Level; 6],
    leaked_at_ns: u64,
    next_ticket: u64,
    /// Who waits, by direction, in order.
    lines: [VecDeque<(u64, Waker)>; 2],
}

impl State {
    fn new(limits: Limits, now_ns: u64) -> Self {
        Self {
            limits,
            levels: [Level::default(); 6],
            leaked_at_ns: now_ns,
            next_ticket: 0,
            lines: Default::default(),
        }
    }

    /// The counts that a direction goes by: totals, and its own.
    fn counts(direction: Direction) -> [usize; 4] {
        let own = 1 + direction as usize;
        [0, own, BYTE_COUNTS, BYTE_COUNTS + own]
    }

    fn wait_ns(&mut self, direction: Direction, now_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.leaked_at_ns);
        self.leaked_at_ns = now_ns;
        for (rate, level) in self.limits.rates.iter().zip(&mut self.levels) {
            rate.leak(level, passed);
        }
        let waits = Self::counts(direction).map(|n| self.limits.rates[n].wait_ns(self.levels[n]));
        waits.into_iter().max().unwrap_or(0)
    }

    fn account(&mut self, direction: Direction, bytes: u64) {
        let unit = self.limits.request_bytes;
        let requests = if unit > 0 && bytes > unit { float(bytes) / float(unit) } else { 1.0 };
        for n in Self::counts(direction) {
            let units = if n < BYTE_COUNTS { float(bytes) } else { requests };
            self.levels[n].whole += units;
            if self.limits.rates[n].burst_s > 1 {
                self.levels[n].burst += units;
            }
        }
    }

    fn wake_first(&self, direction: Direction) {
        if let Some((_, waker)) = self.lines[direction as usize].front() {
            waker.wake_by_ref();
        }
    }
}

/// Back ends and nodes that share limits.
pub struct ThrottleGroup {
    name: String,
    clock: Arc<dyn Clock>,
    /// Held for moments only.
    state: Mutex<State>,
}

impl fmt::Debug for ThrottleGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ThrottleGroup").field(&self.name).finish()
    }
}

impl ThrottleGroup {
    pub(super) fn new(name: &str, clock: &Arc<dyn Clock>, limits: Limits) -> Arc<Self> {
        let state = State::new(limits, clock.monotonic_ns());
        let (name, clock) = (name.to_owned(), Arc::clone(clock));
        Arc::new(Self { name, clock, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.state().limits
    }

    /// Sets other limits; the buckets are empty afterwards, as in QEMU.
    pub fn set_limits(&self, limits: Limits) {
        let now = self.clock.monotonic_ns();
        let mut state = self.state();
        state.limits = limits;
        state.levels = [Level::default(); 6];
        state.leaked_at_ns = now;
        for direction in Direction::ALL {
            state.wake_first(direction);
        }
    }
}

/// A place among those who wait, for one direction of one queue.
#[derive(Default)]
struct Place {
    ticket: Option<u64>,
    sleep: Option<(u64, ClockSleep)>,
}

/// When a request may pass.
enum Pass {
    /// It has passed.
    Now,
    /// It is the first in line, and may ask again at this time.
    At(u64),
    /// Others are ahead of it.
    InTurn,
}

/// A queue's way through a group.
pub(super) struct Gate {
    group: Arc<ThrottleGroup>,
    places: [Place; 2],
}

impl Gate {
    pub(super) fn new(group: Arc<ThrottleGroup>) -> Self {
        Self { group, places: Default::default() }
    }

    /// Lets a request of `bytes` pass when its turn and its time have come.
    pub(super) fn poll_pass(
        &mut self,
        direction: Direction,
        bytes: u64,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let place = &mut self.places[direction as usize];
        loop {
            let deadline_ns = match self.group.pass(direction, bytes, place, cx.waker()) {
                Pass::Now => {
                    place.sleep = None;
                    return Poll::Ready(());
                }
                Pass::At(deadline_ns) => deadline_ns,
                Pass::InTurn => {
                    place.sleep = None;
                    return Poll::Pending;
                }
            };
            if place.sleep.as_ref().is_none_or(|(known, _)| *known != deadline_ns) {
                place.sleep = Some((deadline_ns, self.group.clock.sleep_until(deadline_ns)));
            }
            let Some((_, sleep)) = &mut place.sleep else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            place.sleep = None;
        }
    }

    /// Has a request of `bytes` pass before its time; it counts all the same.
    pub(super) fn pass(&mut self, direction: Direction, bytes: u64) {
        let place = std::mem::take(&mut self.places[direction as usize]);
        let mut state = self.group.state();
        state.account(direction, bytes);
        if let Some(ticket) = place.ticket {
            state.lines[direction as usize].retain(|(known, _)| *known != ticket);
            state.wake_first(direction);
        }
    }

    /// Nothing waits any more.
    pub(super) fn leave(&mut self) {
        for direction in Direction::ALL {
            let place = std::mem::take(&mut self.places[direction as usize]);
            if let Some(ticket) = place.ticket {
                let mut state = self.group.state();
                state.lines[direction as usize].retain(|(known, _)| *known != ticket);
                state.wake_first(direction);
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.leave();
    }
}

impl ThrottleGroup {
    /// Lets a request pass, or puts it in line.
    fn pass(&self, direction: Direction, bytes: u64, place: &mut Place, waker: &Waker) -> Pass {
        let now = self.clock.monotonic_ns();
        let mut state = self.state();
        let first = state.lines[direction as usize].front().map(|(ticket, _)| *ticket);
        let is_first = first.is_none() || first == place.ticket;
        let wait = if is_first { state.wait_ns(direction, now) } else { 0 };
        if is_first && wait == 0 {
            state.account(direction, bytes);
            if place.ticket.take().is_some() {
                state.lines[direction as usize].pop_front();
                state.wake_first(direction);
            }
            return Pass::Now;
        }
        match place.ticket {
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.lines[direction as usize].push_back((ticket, waker.clone()));
                place.ticket = Some(ticket);
            }
            Some(ticket) => {
                let known = state.lines[direction as usize].iter_mut();
                for (_, old) in known.filter(|(known, _)| *known == ticket) {
                    old.clone_from(waker);
                }
            }
        }
        if is_first { Pass::At(now.saturating_add(wait)) } else { Pass::InTurn }
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Gate, Level, Limits, Rate, State, ThrottleGroup};
    use crate::clock::{Clock, ClockSleep};
    use serde_json::{Map, Value, json};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Waker};
    use std::time::Duration;

    fn limits(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("an object") };
        map
    }

    fn state(value: Value) -> State {
        State::new(Limits::parse(limits(value)).unwrap(), 0)
    }

    /// The figures of QEMU's own unit test of its buckets.
    #[test]
    fn buckets_leak_and_wait_as_qemus_do() {
        let rate = Rate { average: 150, burst: 0, burst_s: 1 };
        let mut level = Level { whole: 1.5, burst: 0.0 };
        rate.leak(&mut level, 1_000_000_000 / 150);
        assert!((level.whole - 0.5).abs() < 1e-6);
        let rate = Rate { average: 150, burst: 150, burst_s: 1 };
        let above = |whole| rate.wait_ns(Level { whole, burst: 0.0 });
        assert_eq!((above(1.5), above(150.5)), (0, 3_333_333));
    }

    #[test]
    fn requests_wait_exactly_as_long_as_they_overfill() {
        let mut state = state(json!({"bps-total": 1000}));
        // A tenth of a second's worth is free, and the request that goes over it goes whole.
        assert_eq!(state.wait_ns(Direction::Write, 0), 0);
        state.account(Direction::Write, 512);
        assert_eq!(state.wait_ns(Direction::Read, 0), 412_000_000);
        assert!(state.wait_ns(Direction::Read, 411_000_000) > 0);
        assert_eq!(state.wait_ns(Direction::Read, 412_000_000), 0);
    }

    #[test]
    fn directions_have_limits_of_their_own_and_large_requests_count_more() {
        let mut state = state(json!({"iops-read": 10, "iops-size": 4096}));
        state.account(Direction::Write, 1 << 20);
        assert_eq!(state.wait_ns(Direction::Read, 0), 0);
        state.account(Direction::Read, 16384);
        assert_eq!(state.wait_ns(Direction::Write, 0), 0);
        assert_eq!(state.wait_ns(Direction::Read, 0), 300_000_000);
    }

    #[test]
    fn a_long_burst_has_its_own_rate() {
        let mut state =
            state(json!({"iops-total": 10, "iops-total-max": 100, "iops-total-max-length": 2}));
        for _ in 0..11 {
            assert_eq!(state.wait_ns(Direction::Read, 0), 0);
            state.account(Direction::Read, 512);
        }
        // A tenth of the burst's second at once, then at its rate.
        assert_eq!(state.wait_ns(Direction::Read, 0), 10_000_000);
    }

    /// A time that is set, and how many sleep until another: one less than the strong count.
    #[derive(Default)]
    struct SetClock {
        now_ns: AtomicU64,
        sleepers: Arc<()>,
    }

    impl Clock for SetClock {
        fn monotonic_ns(&self) -> u64 {
            self.now_ns.load(Ordering::Relaxed)
        }

        fn wall(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep_until(&self, _deadline_ns: u64) -> ClockSleep {
            let sleeper = Arc::clone(&self.sleepers);
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(sleeper);
            })
        }
    }

    /// A clock that is stepped waits for all it has woken.
    #[test]
    fn who_passes_sleeps_no_longer() {
        let clock = Arc::new(SetClock::default());
        let limits = Limits::parse(limits(json!({"iops-total": 10}))).unwrap();
        let group = ThrottleGroup::new("g", &(Arc::clone(&clock) as Arc<dyn Clock>), limits);
        let (mut gate, cx) = (Gate::new(group), &mut Context::from_waker(Waker::noop()));
        let mut pass = || gate.poll_pass(Direction::Read, 512, cx).is_ready();
        let sleepers = || Arc::strong_count(&clock.sleepers) - 1;
        // One is free, and a tenth of a second's worth on top of it.
        assert!(pass() && pass());
        assert!(!pass());
        assert_eq!(sleepers(), 1);
        clock.now_ns.store(100_000_000, Ordering::Relaxed);
        assert!(pass());
        assert_eq!(sleepers(), 0);
    }
}
