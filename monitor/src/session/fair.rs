//! Requests of many sessions, served round robin.

use std::collections::{HashMap, VecDeque};

/// A session's requests.
struct Lane<R> {
    waiting: VecDeque<R>,
    running: bool,
}

/// A queue a session, and whose turn it is. A session has one request running at most, and its
/// requests run in their order.
pub(crate) struct Fair<R> {
    lanes: HashMap<u64, Lane<R>>,
    /// Sessions with a waiting request and none running, next first.
    turns: VecDeque<u64>,
    running: usize,
}

impl<R> Default for Fair<R> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), running: 0 }
    }
}

impl<R> Fair<R> {
    pub(crate) fn add(&mut self, session: u64) {
        self.lanes.insert(session, Lane { waiting: VecDeque::new(), running: false });
    }

    /// Drops the session's waiting requests. The running one goes on.
    pub(crate) fn remove(&mut self, session: u64) {
        if self.lanes.remove(&session).is_some() {
            self.turns.retain(|&turn| turn != session);
        }
    }

    /// Queues a request; one of a session that is gone is dropped.
    pub(crate) fn push(&mut self, session: u64, request: R) {
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        if lane.waiting.is_empty() && !lane.running {
            self.turns.push_back(session);
        }
        lane.waiting.push_back(request);
    }

    /// Takes the next request that may run now. Sessions whose next request may not keep their
    /// place.
    pub(crate) fn pop(&mut self, may_run: impl Fn(&R) -> bool) -> Option<R> {
        let lanes = &mut self.lanes;
        let at = self.turns.iter().position(|session| {
            lanes.get(session).and_then(|lane| lane.waiting.front()).is_some_and(&may_run)
        })?;
        let session = self.turns.remove(at)?;
        let lane = lanes.get_mut(&session)?;
        let request = lane.waiting.pop_front()?;
        lane.running = true;
        self.running += 1;
        Some(request)
    }

    /// The running request of a session has ended.
    pub(crate) fn done(&mut self, session: u64) {
        self.running -= 1;
        let Some(lane) = self.lanes.get_mut(&session) else { return };
        lane.running = false;
        if !lane.waiting.is_empty() {
            self.turns.push_back(session);
        }
    }

    /// Requests of the session that wait.
    pub(crate) fn depth(&self, session: u64) -> usize {
        self.lanes.get(&session).map_or(0, |lane| lane.waiting.len())
    }

    /// Whether nothing of the session waits or runs.
    pub(crate) fn is_idle(&self, session: u64) -> bool {
        self.lanes.get(&session).is_none_or(|lane| lane.waiting.is_empty() && !lane.running)
    }

    /// Requests that run, those of sessions that are gone included.
    pub(crate) fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::Fair;

    fn filled(sessions: &[(u64, &[u32])]) -> Fair<(u64, u32)> {
        let mut fair = Fair::default();
        for (session, requests) in sessions {
            fair.add(*session);
            for request in *requests {
                fair.push(*session, (*session, *request));
            }
        }
        fair
    }

    /// Runs everything, one at a time.
    fn order(fair: &mut Fair<(u64, u32)>) -> Vec<(u64, u32)> {
        let mut order = Vec::new();
        while let Some(request) = fair.pop(|_| true) {
            order.push(request);
            fair.done(request.0);
        }
        order
    }

    #[test]
    fn sessions_take_turns_and_keep_their_own_order() {
        let mut fair = filled(&[(1, &[10, 11, 12]), (2, &[20]), (3, &[30, 31])]);
        assert_eq!(order(&mut fair), [(1, 10), (2, 20), (3, 30), (1, 11), (3, 31), (1, 12)]);
        assert_eq!(fair.running(), 0);
    }

    #[test]
    fn a_session_runs_one_request_at_a_time() {
        let mut fair = filled(&[(1, &[10, 11])]);
        assert_eq!(fair.pop(|_| true), Some((1, 10)));
        assert_eq!(fair.pop(|_| true), None);
        assert!(!fair.is_idle(1));
        fair.done(1);
        assert_eq!(fair.pop(|_| true), Some((1, 11)));
        fair.done(1);
        assert!(fair.is_idle(1));
    }

    #[test]
    fn who_may_not_run_now_keeps_its_place() {
        let mut fair = filled(&[(1, &[1]), (2, &[20, 21]), (3, &[30])]);
        let small = |request: &(u64, u32)| request.1 >= 10;
        assert_eq!(fair.pop(small), Some((2, 20)));
        fair.done(2);
        assert_eq!(fair.pop(|_| true), Some((1, 1)));
        assert_eq!(fair.pop(small), Some((3, 30)));
        assert_eq!(fair.pop(small), Some((2, 21)));
    }

    #[test]
    fn a_removed_session_loses_what_waits_and_finishes_what_runs() {
        let mut fair = filled(&[(1, &[10, 11, 12]), (2, &[20])]);
        assert_eq!(fair.pop(|_| true), Some((1, 10)));
        fair.remove(1);
        assert_eq!((fair.depth(1), fair.running()), (0, 1));
        fair.push(1, (1, 13));
        fair.done(1);
        assert_eq!(order(&mut fair), [(2, 20)]);
        assert_eq!(fair.running(), 0);
    }
}
