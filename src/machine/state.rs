//! The run state: one change at a time, judged when its turn comes.

use monitor::RunState;
use reactor::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;

/// The run state of a machine.
pub(super) struct State {
    now: std::sync::Mutex<RunState>,
    /// Held over a change, so that a stop, a reset and a cont do not mix.
    changing: Mutex<()>,
}

impl State {
    pub(super) fn new(state: RunState) -> Self {
        Self { now: std::sync::Mutex::new(state), changing: Mutex::new(()) }
    }

    pub(super) fn get(&self) -> RunState {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By whose turn it is only.
    pub(super) fn set(&self, state: RunState) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Waits for the turn to change it, which lasts until the guard is dropped. What was known of the
    /// state before may not hold any more.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// The same, to let the vCPUs run. `None` where a reset must come first.
    pub(super) async fn turn_to_run(&self) -> Option<MutexGuard<'_, ()>> {
        let turn = self.turn().await;
        (!self.get().needs_reset()).then_some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::State;
    use futures_util::FutureExt;
    use monitor::RunState;
    use std::pin::pin;

    #[test]
    fn who_waited_to_run_is_judged_by_the_state_that_it_finds() {
        for (asked_in, found) in
            [(RunState::Paused, RunState::Shutdown), (RunState::Shutdown, RunState::Prelaunch)]
        {
            let state = State::new(asked_in);
            let other = state.turn().now_or_never().expect("nobody is there");
            let mut waits = pin!(state.turn_to_run());
            assert!(waits.as_mut().now_or_never().is_none(), "it waits");
            state.set(found);
            drop(other);
            let turn = waits.now_or_never().expect("its turn has come");
            assert_eq!(turn.is_none(), found.needs_reset(), "{asked_in} became {found}");
        }
    }
}
