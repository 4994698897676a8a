//! The requests of a queue that wait for their throttle group.

use super::throttle::{Direction, Gate, ThrottleGroup};
use crate::block::Request;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

/// See the module. Without a group nothing waits.
#[derive(Default)]
pub(super) struct Limiter {
    gate: Option<Gate>,
    /// With their bytes, by direction.
    waiting: [VecDeque<(usize, Request, u64)>; 2],
}

impl Limiter {
    /// Goes over to another group.
    pub(super) fn set_group(&mut self, group: Option<Arc<ThrottleGroup>>) {
        self.gate = group.map(Gate::new);
    }

    /// Takes a request with `bytes` in its segments in; `false` where nothing limits it: it may go
    /// ahead at once. Flushes and discards are free, as in QEMU.
    pub(super) fn takes(&mut self, slot: usize, request: Request, bytes: u64) -> bool {
        let (direction, bytes) = match request {
            _ if self.gate.is_none() => return false,
            Request::Read { .. } => (Direction::Read, bytes),
            Request::Write { .. } => (Direction::Write, bytes),
            Request::WriteZeroes { len, .. } => (Direction::Write, len),
            Request::Flush | Request::Discard { .. } => return false,
        };
        self.waiting[direction as usize].push_back((slot, request, bytes));
        true
    }

    /// The next request whose time has come. `suspended`: they count, and do not wait.
    pub(super) fn poll_next(
        &mut self,
        suspended: bool,
        cx: &mut Context<'_>,
    ) -> Poll<(usize, Request)> {
        for direction in Direction::ALL {
            let line = &mut self.waiting[direction as usize];
            let Some(&(slot, request, bytes)) = line.front() else { continue };
            if let Some(gate) = &mut self.gate {
                if suspended {
                    gate.pass(direction, bytes);
                } else if gate.poll_pass(direction, bytes, cx).is_pending() {
                    continue;
                }
            }
            line.pop_front();
            return Poll::Ready((slot, request));
        }
        Poll::Pending
    }

    /// The slots of those that wait.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter().flatten().map(|(slot, ..)| *slot)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Gives up what waits; returns the slots.
    pub(super) fn give_up(&mut self) -> Vec<usize> {
        let slots = self.slots().collect();
        self.waiting.iter_mut().for_each(VecDeque::clear);
        if let Some(gate) = &mut self.gate {
            gate.leave();
        }
        slots
    }
}
