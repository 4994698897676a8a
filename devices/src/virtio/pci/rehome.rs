//! Moving the queues of a running device to other contexts.
//!
//! One queue after the other, in the order of their numbers, is paused: its task takes nothing more,
//! finishes what is in flight, and leaves its position in the rings. When all have paused, new tasks
//! go on at these positions on the new contexts. What the driver adds meanwhile waits in the rings, and
//! its doorbells in their eventfds. Control queues have the lowest numbers: while the request queues of
//! a SCSI host device pause, nobody gives them orders.
//!
//! The driver may reset the device, or a queue, at any moment: then that is what happens.

use super::Transport;
use super::common::Registers;
use super::life::Life;
use crate::virtio::device::Stop;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long the requests of a queue may take to end. Those that wait for `cont`, say, never do.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Starts what has paused, whatever happens to who wanted it.
struct Restart<'a>(&'a Transport);

impl Drop for Restart<'_> {
    fn drop(&mut self) {
        self.0.restart_queues();
    }
}

impl Transport {
    /// See [`VirtioPci::move_queues`](super::VirtioPci::move_queues).
    pub(super) async fn move_queues(
        &self,
        cores: Vec<reactor::Context>,
        patience: Duration,
    ) -> Result<(), u16> {
        let _turn = self.moving.lock().await;
        let (before, mut stops) = self.begin_move(cores);
        stops.sort_by_key(|(index, _)| *index);
        let restart = Restart(self);
        let mut result = Ok(());
        for (index, stop) in &stops {
            stop.pause();
            self.doorbells.ring(*index);
            let parked = poll_fn(|cx| self.poll_parked(*index, stop, cx));
            if reactor::timeout(patience, parked).await.is_err() {
                self.lock().cores = before;
                result = Err(*index);
                break;
            }
        }
        drop(restart);
        result
    }

    /// Takes `cores` for queues that start from now on; those there were, and what is live.
    fn begin_move(
        &self,
        cores: Vec<reactor::Context>,
    ) -> (Vec<reactor::Context>, Vec<(u16, Stop)>) {
        let mut regs = self.lock();
        let before = std::mem::replace(&mut regs.cores, cores);
        regs.moving = true;
        let stops = match &regs.life {
            Life::Live(live) => {
                live.queues.iter().map(|queue| (queue.index, queue.stop.clone())).collect()
            }
            Life::Idle | Life::Resetting => Vec::new(),
        };
        (before, stops)
    }

    /// Ready when the task of `stop` has paused, or has been ended by its driver.
    fn poll_parked(&self, index: u16, stop: &Stop, cx: &mut Context<'_>) -> Poll<()> {
        let mut regs = self.lock();
        let pausing = match &regs.life {
            Life::Live(live) => live
                .queues
                .iter()
                .any(|queue| queue.index == index && queue.stop.is(stop) && queue.parked.is_none()),
            Life::Idle | Life::Resetting => false,
        };
        if !pausing {
            return Poll::Ready(());
        }
        if !regs.waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
            regs.waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The task of queue `index` has ended: if it has paused, the queue waits, or goes on at once when
    /// nobody waits for others any more.
    pub(super) fn park_queue(&self, regs: &mut Registers, index: u16) {
        let Life::Live(live) = &mut regs.life else { return };
        let queue = live.queues.iter_mut().find(|queue| queue.index == index);
        let Some((queue, position)) =
            queue.and_then(|queue| queue.stop.left_at().map(|position| (queue, position)))
        else {
            return;
        };
        queue.parked = Some(position);
        if !regs.moving {
            self.start_parked(regs);
        }
        regs.waiters.drain(..).for_each(Waker::wake);
    }

    fn restart_queues(&self) {
        let mut regs = self.lock();
        regs.moving = false;
        self.start_parked(&mut regs);
        if let Life::Live(live) = &regs.life {
            live.queues.iter().for_each(|queue| queue.stop.resume());
        }
    }

    fn start_parked(&self, regs: &mut Registers) {
        let Life::Live(live) = &mut regs.life else { return };
        let parked: Vec<_> = live.queues.extract_if(.., |queue| queue.parked.is_some()).collect();
        for queue in parked {
            self.start_queue(regs, queue.index, queue.parked);
        }
    }
}
