//! What the task of every queue does: doorbell, chains, completions, used ring, one interrupt.
//!
//! A device type says what becomes of a chain ([`QueueWork`]); when to look, how many chains to
//! take in one go, and whom to tell is here. Nothing here locks or allocates.

use super::device::{QueueSetup, Stop, Wish};
use super::interrupt::{Fault, QueueInterrupt};
use super::metrics::QueueMetrics;
use super::queue::{ChainFault, Virtqueue};
use reactor::{Fd, OpGroup};
use std::fmt::Display;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The only operation of the task's own group.
const DOORBELL: u64 = 0;

/// What a device type does with the chains of one queue.
pub(super) trait QueueWork {
    /// A batch of chains begins.
    fn begin_batch(&mut self) {}

    /// Takes one chain and starts, or answers, what it asks for; false when there is none.
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault>;

    /// Answers everything that has finished. Registers `cx` to be woken for the rest.
    fn poll_finished(&mut self, _ring: &mut Ring, _cx: &mut Context<'_>) {}

    /// The queue moves to another context: nothing more is taken, what is in flight is finished and
    /// answered, or [put back](Virtqueue::unpop). Ready when the ring alone says what is left to do.
    fn poll_paused(&mut self, _ring: &mut Ring, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// The queue is being stopped: what is in flight ends as soon as it can, and nothing is
    /// answered. Ready when nothing is in flight.
    fn poll_stopped(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// A queue's rings and the ways to its driver.
pub(super) struct Ring {
    pub(super) queue: Virtqueue,
    pub(super) metrics: Arc<QueueMetrics>,
    interrupt: QueueInterrupt,
    fault: Fault,
}

impl Ring {
    /// The driver broke the rules.
    pub(super) fn fail(&self, reason: &dyn Display) {
        self.fault.raise(reason);
    }

    /// One interrupt for all that has been answered, if the driver wants it.
    fn notify(&mut self) {
        if let Some(wanted) = self.queue.announce() {
            self.metrics.notified(wanted);
            if wanted {
                self.interrupt.raise();
            }
        }
    }
}

/// Serves one queue with `work` until it is stopped. Where that cannot be, the driver is told. On
/// the queue's context.
pub(super) async fn serve<W: QueueWork>(
    work: io::Result<W>,
    setup: QueueSetup,
    metrics: Arc<QueueMetrics>,
) {
    let fault = setup.fault.clone();
    match work.and_then(|work| QueueTask::new(work, setup, metrics)) {
        Ok(mut task) => std::future::poll_fn(|cx| task.poll(cx)).await,
        Err(error) => fault.raise(&format_args!("a queue cannot be served: {error}")),
    }
}

/// Keeps a queue that the device has no use for until it is stopped.
pub(super) async fn idle(setup: QueueSetup, metrics: Arc<QueueMetrics>) {
    serve(Ok(Nothing), setup, metrics).await;
}

/// The work of a queue that nobody looks at.
struct Nothing;

impl QueueWork for Nothing {
    fn take_one(&mut self, _: &mut Ring) -> Result<bool, ChainFault> {
        Ok(false)
    }
}

struct QueueTask<W> {
    work: W,
    ring: Ring,
    doorbell: Fd,
    events: OpGroup,
    listening: bool,
    /// Chains were taken since the driver was last asked to ring for new ones.
    unasked: bool,
    stop: Stop,
}

impl<W: QueueWork> QueueTask<W> {
    fn new(work: W, mut setup: QueueSetup, metrics: Arc<QueueMetrics>) -> io::Result<Self> {
        // Chains may be there already: the first poll looks.
        setup.queue.enable_notification().map_err(io::Error::other)?;
        let events = OpGroup::new(1, Rc::new(setup.doorbell.clone()));
        events.wait_eventfd(setup.doorbell.as_raw_fd(), DOORBELL);
        let QueueSetup { queue, doorbell, stop, interrupt, fault, .. } = setup;
        let ring = Ring { queue, metrics, interrupt, fault };
        Ok(Self { work, ring, doorbell, events, listening: true, unasked: false, stop })
    }

    /// Does all there is to do; ready when the queue has been stopped and nothing is in flight.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The driver may add chains as fast as they are taken: after a queue full of them, it is
        // the turn of others.
        let mut budget = usize::from(self.ring.queue.size());
        self.poll_doorbell(cx);
        match self.stop.wish(cx.waker()) {
            Wish::Serve => self.listen(),
            Wish::Pause => return self.poll_paused(cx),
            Wish::End => return self.poll_stopped(cx),
        }
        loop {
            self.work.poll_finished(&mut self.ring, cx);
            let taken = self.take_batch(budget);
            budget -= taken;
            if budget == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            // What was just taken may be finished already.
            if taken == 0 {
                break;
            }
        }
        self.ring.notify();
        Poll::Pending
    }

    /// Counts the doorbells heard and goes on listening.
    fn poll_doorbell(&mut self, cx: &mut Context<'_>) {
        while self.listening
            && let Poll::Ready(completion) = self.events.poll_next(cx)
        {
            match completion.into_result() {
                Ok(_) => self.ring.metrics.doorbell(),
                Err(error) => tracing::debug!(%error, "listening for a doorbell"),
            }
            self.listening = false;
            if !self.stop.requested() {
                self.listen();
            }
        }
    }

    fn listen(&mut self) {
        if !self.listening {
            self.listening = true;
            self.events.wait_eventfd(self.doorbell.as_raw_fd(), DOORBELL);
        }
    }

    /// The queue moves: what has been taken is finished first.
    fn poll_paused(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.work.poll_paused(&mut self.ring, cx).is_ready();
        self.ring.notify();
        if !idle || self.listening {
            return Poll::Pending;
        }
        if self.stop.leave(self.ring.queue.position()) {
            return Poll::Ready(());
        }
        // It shall not move any more, or end.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The queue is being stopped: nothing more is taken, and nothing reported.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.work.poll_stopped(cx).is_pending() {
            return Poll::Pending;
        }
        // Whoever asks for a stop rings afterwards. Listening on would take a ring from the task
        // that serves the queue next.
        if self.listening { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes up to `budget` chains from the available ring; returns how many.
    fn take_batch(&mut self, budget: usize) -> usize {
        if self.ring.fault.raised() {
            return 0;
        }
        let mut taken = 0;
        self.work.begin_batch();
        if let Err(fault) = self.try_take(budget, &mut taken) {
            self.ring.fail(&fault);
        }
        if taken > 0 {
            self.ring.metrics.batch();
        }
        taken
    }

    fn try_take(&mut self, budget: usize, taken: &mut usize) -> Result<(), ChainFault> {
        loop {
            while *taken < budget && self.work.take_one(&mut self.ring)? {
                if *taken == 0 {
                    self.ring.queue.disable_notification()?;
                }
                *taken += 1;
                self.unasked = true;
            }
            // With the budget used up the task comes back by itself, and asks then.
            if *taken == budget || !std::mem::take(&mut self.unasked) {
                return Ok(());
            }
            if !self.ring.queue.enable_notification()? {
                return Ok(());
            }
        }
    }
}
