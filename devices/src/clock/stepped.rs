//! A clock that moves only when it is told to.

use super::{Clock, ClockSleep, HostClock};
use reactor::Context;
use reactor::sync::Notify;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as PollContext, Poll, Waker};
use std::time::Duration;

/// How long the tasks that a deadline has woken may take to run, in the host's time. One that is stuck
/// must not hold whoever steps the clock for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// Deadline, and a number that keeps equal ones apart in the order of their making.
type Key = (u64, u64);

/// A machine's clock that starts at 0 and is stepped from outside. Its time of day starts at the host's.
///
/// It stops at each deadline on its way: whoever sleeps until then runs, and sees that moment as the
/// time, before the clock goes on.
pub struct VirtualClock {
    wall_at_start: Duration,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct State {
    now_ns: u64,
    next_id: u64,
    sleeping: BTreeMap<Key, Waker>,
    /// Woken, and not yet polled or dropped.
    woken: BTreeSet<Key>,
    /// Where those were polled that had been woken.
    ran_on: Vec<Context>,
}

struct Shared {
    state: Mutex<State>,
    /// Nobody is left in `woken`.
    all_ran: Notify,
    /// One step at a time.
    step: reactor::sync::Mutex<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VirtualClock {
    /// A clock that stands at 0.
    pub fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            all_ran: Notify::new(),
            step: reactor::sync::Mutex::new(()),
        };
        Self { wall_at_start: HostClock::new().wall(), shared: Arc::new(shared) }
    }

    /// The next moment that somebody waits for.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.shared.lock().sleeping.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Moves to `ns`, by way of every deadline until then; a moment in the past changes nothing. Returns
    /// the time it is then. Whoever has waited has run, up to its next wait, when this resolves.
    ///
    /// A task of any context but those of the sleepers it wakes may be busy meanwhile; the caller itself
    /// may not sleep on this clock.
    pub async fn advance_to(&self, ns: u64) -> u64 {
        let _turn = self.shared.step.lock().await;
        loop {
            let (woken, arrived) = {
                let mut state = self.shared.lock();
                let next = state.sleeping.keys().next().map(|(deadline, _)| *deadline);
                let stop = next.filter(|deadline| *deadline <= ns);
                state.now_ns = state.now_ns.max(stop.unwrap_or(ns));
                (state.wake_due(), stop.is_none())
            };
            if arrived {
                return self.monotonic_ns();
            }
            woken.into_iter().for_each(Waker::wake);
            if reactor::timeout(PATIENCE, self.settle()).await.is_err() {
                tracing::warn!("a device that waits for the virtual clock does not go on");
                self.shared.lock().woken.clear();
            }
        }
    }

    /// Waits until everybody who was woken has run.
    async fn settle(&self) {
        while !self.shared.lock().woken.is_empty() {
            self.shared.all_ran.notified().await;
        }
        let homes = std::mem::take(&mut self.shared.lock().ran_on);
        for home in homes {
            // Tasks take turns in order: those that were polled have come to their next wait.
            if let Err(error) = home.spawn("virtual clock", async {}).await {
                tracing::debug!(%error, "a context has ended");
            }
        }
    }
}

impl State {
    /// Moves all whose time has come to `woken`.
    fn wake_due(&mut self) -> Vec<Waker> {
        let later = self.sleeping.split_off(&(self.now_ns.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.sleeping, later);
        self.woken.extend(due.keys());
        due.into_values().collect()
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for VirtualClock {
    fn monotonic_ns(&self) -> u64 {
        self.shared.lock().now_ns
    }

    fn wall(&self) -> Duration {
        self.wall_at_start.saturating_add(Duration::from_nanos(self.monotonic_ns()))
    }

    fn sleep_until(&self, deadline_ns: u64) -> ClockSleep {
        Box::pin(Sleep { shared: Arc::clone(&self.shared), deadline_ns, key: None })
    }
}

struct Sleep {
    shared: Arc<Shared>,
    deadline_ns: u64,
    /// In `sleeping` or `woken`, once polled.
    key: Option<Key>,
}

impl Sleep {
    /// Takes it out of the clock's lists.
    fn leave(&mut self, state: &mut State) -> Option<Waker> {
        let key = self.key.take()?;
        if state.woken.remove(&key) {
            let home = reactor::try_current();
            let known = |home: &Context| state.ran_on.iter().any(|c| c.name() == home.name());
            state.ran_on.extend(home.filter(|home| !known(home)));
            if state.woken.is_empty() {
                self.shared.all_ran.notify_one();
            }
        }
        state.sleeping.remove(&key)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut PollContext<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if state.now_ns >= self.deadline_ns {
            let stale = self.leave(&mut state);
            drop(state);
            drop(stale);
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            state.next_id += 1;
            (self.deadline_ns, state.next_id)
        });
        self.key = Some(key);
        let stale = state.sleeping.insert(key, waker);
        drop(state);
        drop(stale);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let stale = self.leave(&mut state);
        drop(state);
        drop(stale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::Reactors;

    fn on_reactors<F: Future<Output = ()> + Send + 'static>(
        test: impl FnOnce(Reactors) -> F + Send + 'static,
    ) {
        reactor::run(reactor::Config::with_cores(vec![0]), test).unwrap();
    }

    #[test]
    fn it_moves_only_when_told_and_never_back() {
        on_reactors(|_| async {
            let clock = VirtualClock::new();
            let wall = clock.wall();
            assert_eq!((clock.monotonic_ns(), clock.next_deadline_ns()), (0, None));
            assert_eq!(clock.advance_to(1500).await, 1500);
            assert_eq!(clock.advance_to(1000).await, 1500);
            assert_eq!(clock.wall(), wall + Duration::from_nanos(1500));
        });
    }

    #[test]
    fn sleepers_run_at_their_moment_before_the_clock_goes_on() {
        on_reactors(|reactors| async move {
            let clock = Arc::new(VirtualClock::new());
            let seen = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = Vec::new();
            for (context, period) in [(reactors.core(0), 100u64), (reactors.iohandler(), 70)] {
                let (time, seen) = (clock.clone(), seen.clone());
                tasks.push(context.spawn("ticker", async move {
                    for n in 1..=3 {
                        time.sleep_until(n * period).await;
                        seen.lock().unwrap().push((time.monotonic_ns(), period));
                    }
                }));
                while clock.shared.lock().sleeping.len() < tasks.len() {
                    reactor::yield_now().await;
                }
            }
            assert_eq!(clock.next_deadline_ns(), Some(70));
            assert_eq!(clock.advance_to(99).await, 99);
            assert_eq!(*seen.lock().unwrap(), [(70, 70)]);
            assert_eq!(clock.advance_to(100).await, 100);
            assert_eq!(seen.lock().unwrap().len(), 2);
            assert_eq!(clock.advance_to(1000).await, 1000);
            let expected = [(70, 70), (100, 100), (140, 70), (200, 100), (210, 70), (300, 100)];
            assert_eq!(*seen.lock().unwrap(), expected);
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn a_dropped_sleep_is_no_deadline() {
        on_reactors(|_| async {
            let clock = VirtualClock::new();
            let mut sleep = clock.sleep_until(10);
            let first = std::future::poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx))).await;
            assert!(first.is_pending());
            assert_eq!(clock.next_deadline_ns(), Some(10));
            drop(sleep);
            assert_eq!(clock.next_deadline_ns(), None);
            clock.sleep_until(0).await;
        });
    }
}
