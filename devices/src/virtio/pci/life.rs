//! A device's life: from DRIVER_OK to the end of a reset.
//!
//! ```text
//!   Idle ── DRIVER_OK: a task each queue ──▶ Live ── 0 written: tasks told to stop ──▶ Resetting
//!     ▲                                                                                  │
//!     └──────────── the last task has let go of guest memory: status reads 0 ◀───────────┘
//! ```
//!
//! One queue alone can be reset too (section 2.6.1): its task ends as in a reset of the device, and
//! `queue_reset` reads 1 until then. How queues move to other contexts is in [`rehome`](super::rehome).

use super::super::NO_VECTOR;
use super::super::device::{QueueSetup, Stop};
use super::super::interrupt::{Fault, QueueInterrupt};
use super::super::queue::{RingPosition, Virtqueue};
use super::Transport;
use super::common::{QueueRegisters, Registers};
use std::sync::{Arc, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

/// Shared by the queues' tasks: when the last one drops it, nothing is served any more.
pub(super) struct Served(Weak<Transport>);

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(transport) = self.0.upgrade() {
            transport.finish_reset();
        }
    }
}

/// Of the task of one queue: dropped when it has let go of guest memory.
struct ServedQueue(Weak<Transport>, u16);

impl Drop for ServedQueue {
    fn drop(&mut self) {
        if let Some(transport) = self.0.upgrade() {
            transport.queue_left(self.1);
        }
    }
}

/// A queue that is live.
pub(super) struct LiveQueue {
    pub(super) index: u16,
    pub(super) stop: Stop,
    /// Where it goes on; while it is between two tasks.
    pub(super) parked: Option<RingPosition>,
}

/// What is live.
pub(super) struct Live {
    served: Arc<Served>,
    pub(super) queues: Vec<LiveQueue>,
}

/// Where the device is in its life.
pub(super) enum Life {
    Idle,
    Live(Live),
    Resetting,
}

impl Life {
    pub(super) fn is_resetting(&self) -> bool {
        matches!(self, Self::Resetting)
    }
}

impl Transport {
    /// The driver has set DRIVER_OK: every enabled queue gets its task.
    pub(super) fn go_live(&self, regs: &mut Registers) {
        self.interrupts.set_live(true);
        let served = Arc::new(Served(self.this.clone()));
        regs.life = Life::Live(Live { served, queues: Vec::new() });
        if self.interrupts.needs_reset() {
            return self.interrupts.announce_failure();
        }
        self.device.started(regs.driver_features());
        for index in 0..regs.queues.len() as u16 {
            if regs.queues[usize::from(index)].enabled {
                self.start_queue(regs, index, None);
            }
        }
        self.update_doorbells(regs);
    }

    /// A queue was enabled: it starts now if the device is live.
    pub(super) fn queue_enabled(&self, regs: &mut Registers, index: u16) {
        if matches!(regs.life, Life::Live(_)) && !self.interrupts.needs_reset() {
            self.start_queue(regs, index, None);
            self.update_doorbells(regs);
        }
    }

    fn update_doorbells(&self, regs: &Registers) {
        if let Life::Live(live) = &regs.life {
            self.doorbells.set_live(live.queues.iter().map(|queue| queue.index).collect());
        }
    }

    /// Starts the task of queue `index` on its core: from the start, or where another has left off.
    pub(super) fn start_queue(
        &self,
        regs: &mut Registers,
        index: u16,
        position: Option<RingPosition>,
    ) {
        let features = regs.driver_features();
        let queue = regs.queues[usize::from(index)];
        let core = regs.cores[usize::from(index) % regs.cores.len()].clone();
        let Life::Live(live) = &mut regs.life else { return };
        let Some(doorbell) = self.doorbells.eventfd(index) else { return };
        let mut queue = match Virtqueue::new(&queue.layout, queue.max, features, &self.ram) {
            Ok(queue) => queue,
            Err(error) => return self.interrupts.fail(&format_args!("queue {index}: {error}")),
        };
        if let Some(position) = position {
            queue.go_on_at(position);
        }
        let stop = Stop::default();
        let setup = QueueSetup {
            index,
            queue,
            features,
            doorbell: doorbell.clone(),
            stop: stop.clone(),
            interrupt: QueueInterrupt::new(Arc::clone(&self.interrupts), index),
            fault: Fault(Arc::clone(&self.interrupts)),
        };
        live.queues.push(LiveQueue { index, stop, parked: None });
        let (device, served) = (Arc::clone(&self.device), Arc::clone(&live.served));
        let served_queue = ServedQueue(self.this.clone(), index);
        let last_word = doorbell.clone();
        let task = core.spawn_local_with("virtqueue", move || async move {
            device.serve(setup).await;
            // An interrupt raised last may still wait for submission, as the bare number of an
            // eventfd that may be closed when this is over. What is submitted later ends later.
            if let Err(error) = reactor::io::poll(&last_word, libc::POLLOUT as u32).await {
                tracing::debug!(%error, "a queue's last submission");
            }
            drop(served_queue);
            drop(served);
        });
        drop(task);
    }

    /// Starts a reset of the selected queue; it is over at once if the queue has no task. What it
    /// has taken and not answered is dropped. Any thread; does not wait.
    pub(super) fn reset_queue(&self, mut regs: MutexGuard<'_, Registers>) {
        let index = regs.queue_select();
        let Some(queue) = regs.queues.get_mut(usize::from(index)) else { return };
        if !queue.enabled || queue.resetting {
            return;
        }
        queue.resetting = true;
        let live = match &mut regs.life {
            Life::Live(live) => {
                let at = live.queues.iter().position(|live| live.index == index);
                at.map(|at| live.queues.swap_remove(at))
            }
            Life::Idle | Life::Resetting => None,
        };
        self.update_doorbells(&regs);
        match live {
            Some(LiveQueue { stop, parked: None, .. }) => {
                drop(regs);
                stop.request();
                self.doorbells.ring(index);
            }
            _ => self.finish_queue_reset(&mut regs, index),
        }
    }

    /// The task of queue `index` has ended.
    fn queue_left(&self, index: u16) {
        let mut regs = self.lock();
        self.finish_queue_reset(&mut regs, index);
        self.park_queue(&mut regs, index);
    }

    /// Queue `index` is not served any more.
    fn finish_queue_reset(&self, regs: &mut Registers, index: u16) {
        let Some(queue) = regs.queues.get_mut(usize::from(index)) else { return };
        if queue.resetting {
            *queue = QueueRegisters::new(queue.max);
            self.interrupts.set_vector(Some(index), NO_VECTOR);
            regs.waiters.drain(..).for_each(Waker::wake);
        }
    }

    /// Starts a reset; it is over at once if nothing was live. Any thread; does not wait.
    pub(super) fn begin_reset(&self) {
        let mut regs = self.lock();
        match std::mem::replace(&mut regs.life, Life::Resetting) {
            Life::Resetting => {}
            Life::Idle => self.reset_registers(&mut regs),
            Life::Live(live) => {
                self.interrupts.set_live(false);
                self.doorbells.set_live(Vec::new());
                // Not under the lock: if no task is left, dropping `served` ends the reset here.
                drop(regs);
                self.stop_queues(live);
            }
        }
    }

    fn stop_queues(&self, live: Live) {
        for queue in live.queues {
            queue.stop.request();
            self.doorbells.ring(queue.index);
        }
    }

    /// Nothing is served any more.
    fn finish_reset(&self) {
        let mut regs = self.lock();
        if regs.life.is_resetting() {
            self.reset_registers(&mut regs);
        }
    }

    fn reset_registers(&self, regs: &mut Registers) {
        regs.reset();
        self.interrupts.reset();
        self.device.reset();
        regs.life = Life::Idle;
        regs.waiters.drain(..).for_each(Waker::wake);
    }

    /// Ready while no reset is under way, of the device or of a queue.
    pub(super) fn poll_quiesced(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut regs = self.lock();
        if !regs.life.is_resetting() && !regs.queues.iter().any(|queue| queue.resetting) {
            return Poll::Ready(());
        }
        if !regs.waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
            regs.waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        let life = std::mem::replace(&mut self.lock().life, Life::Idle);
        if let Life::Live(live) = life {
            self.stop_queues(live);
        }
    }
}
