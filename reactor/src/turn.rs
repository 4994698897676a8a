//! The loop of a context.
//!
//! One turn: take what other threads sent; run expired timers, bottom halves and ready tasks, each
//! up to a bound; submit and, when nothing is left to run, sleep; reap completions. Completions
//! only wake tasks: nothing of a user runs inside the reaping.

use crate::bh::Work;
use crate::context::Stall;
use crate::local::{self, Local};
use crate::op::table::Completed;
use crate::op::token::{Kind, Token};
use crate::poll::Poller;
use crate::ring::{Cqe, Wait};
use crate::task::Task;
use io_uring::{opcode, types};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Task polls in one turn, so that completions, timers and bottom halves get their turn under load.
const TASK_BUDGET: usize = 128;
/// Time for task polls in one turn; one poll can exceed it, a series cannot.
const TIME_BUDGET: Duration = Duration::from_micros(500);
/// Bottom halves in one turn.
const BH_BUDGET: usize = 128;

pub(crate) struct Loop {
    local: Rc<Local>,
    bottom_halves: VecDeque<Work>,
    reaped: Vec<Cqe>,
    poller: Poller,
    /// Where the read of this context's eventfd lands.
    eventfd_count: Box<u64>,
}

impl Loop {
    pub(crate) fn new(local: Rc<Local>) -> Self {
        let poller = Poller::new(local.context.registry.poll_ns_max);
        Self {
            local,
            bottom_halves: VecDeque::new(),
            reaped: Vec::with_capacity(256),
            poller,
            eventfd_count: Box::new(0),
        }
    }

    /// Runs until the runtime stops. An error means that the ring is unusable.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        self.arm_eventfd();
        let registry = Arc::clone(&self.local.context.registry);
        while !registry.stopping.load(Ordering::Acquire) {
            for hook in &registry.hooks {
                hook.turn_begin();
            }
            let mut busy = self.work();
            for hook in &registry.hooks {
                hook.turn_end();
            }
            // The end of a turn may wake a task here, as the end of a read-side section does.
            busy |= self.local.ready_len() > 0;
            self.wait(busy)?;
            self.reap();
            self.publish_counters();
        }
        Ok(())
    }

    /// Runs what is ready. Returns whether more is left.
    fn work(&mut self) -> bool {
        let local = Rc::clone(&self.local);
        local.now.set(Instant::now());
        self.take_injected();
        self.expire_timers();
        self.run_bottom_halves();
        self.run_tasks();
        local.ready_len() > 0 || !self.bottom_halves.is_empty()
    }

    pub(crate) fn take_injected(&mut self) {
        for work in self.local.shared().inject.take() {
            match work {
                Work::Task(task) => self.local.push_ready(task),
                other => self.bottom_halves.push_back(other),
            }
        }
    }

    fn expire_timers(&self) {
        let local = &self.local;
        loop {
            let due = local.timers.borrow_mut().pop_due(local.now.get());
            let Some(waker) = due else { return };
            local.shared().counters.timers_fired.add(1);
            waker.wake();
        }
    }

    pub(crate) fn run_bottom_halves(&mut self) {
        for _ in 0..BH_BUDGET {
            let Some(work) = self.bottom_halves.pop_front() else { return };
            self.local.shared().counters.bottom_halves.add(1);
            let begun = Instant::now();
            let (name, outcome) = match work {
                Work::Once(name, function) => (name, catch_unwind(AssertUnwindSafe(function))),
                Work::Reusable(bh) => (bh.name(), catch_unwind(AssertUnwindSafe(|| bh.run()))),
                Work::Task(_) => unreachable!("tasks go to the ready list"),
            };
            if outcome.is_err() {
                tracing::error!(
                    context = self.local.context.name(),
                    name,
                    "a bottom half panicked"
                );
            }
            self.watch(name, begun.elapsed());
        }
    }

    fn run_tasks(&self) {
        let local = &self.local;
        let counters = &local.shared().counters;
        let begun = Instant::now();
        let mut now = begun;
        // What becomes ready meanwhile waits for the next turn.
        for _ in 0..local.ready_len().min(TASK_BUDGET) {
            let Some(task) = local.pop_ready() else { return };
            if let Some(queued) = task.take_queued() {
                counters.queue_delay.record(now.saturating_duration_since(queued));
            }
            let name = task.name();
            local.runs_local_task.set(task.is_local());
            Task::run(task, local);
            local.runs_local_task.set(false);
            let after = Instant::now();
            counters.tasks_polled.add(1);
            counters.poll_time.record(after - now);
            self.watch(name, after - now);
            now = after;
            local.now.set(now);
            if now - begun > TIME_BUDGET {
                return;
            }
        }
    }

    /// The watchdog: blocking in a reactor names itself.
    fn watch(&self, name: &'static str, took: Duration) {
        let registry = &self.local.context.registry;
        if took < registry.stall_limit {
            return;
        }
        self.local.shared().counters.stalls.add(1);
        let context = self.local.context.name();
        tracing::warn!(context, name, ?took, "blocked its reactor");
        if let Some(on_stall) = &registry.on_stall {
            on_stall(&Stall { context: context.to_owned(), name, took });
        }
    }

    /// Submits; sleeps when there is nothing to run.
    fn wait(&mut self, busy: bool) -> std::io::Result<()> {
        let local = Rc::clone(&self.local);
        if busy {
            let mut ring = local.ring.borrow_mut();
            if ring.has_unsubmitted() || ring.has_deferred() {
                ring.enter(Wait::No)?;
            }
            return Ok(());
        }
        if self.poller.spin(&local)? {
            return Ok(());
        }
        let shared = local.shared();
        shared.wake.prepare_sleep();
        let stopping = local.context.registry.stopping.load(Ordering::SeqCst);
        let deadline = local.timers.borrow().next_deadline();
        let result = if shared.inject.is_empty() && !stopping {
            let wait = deadline.map_or(Wait::Forever, |at| {
                Wait::For(at.saturating_duration_since(Instant::now()))
            });
            local.ring.borrow_mut().enter(wait)
        } else {
            local.ring.borrow_mut().enter(Wait::No)
        };
        shared.wake.awake();
        result
    }

    /// Takes all completions and wakes who waits for them.
    pub(crate) fn reap(&mut self) {
        let mut reaped = std::mem::take(&mut self.reaped);
        self.local.ring.borrow_mut().reap(&mut reaped);
        for cqe in reaped.drain(..) {
            let Some(token) = Token::from_user_data(cqe.user_data) else {
                panic!("completion {cqe:?} has no token of ours: the ring's bookkeeping is broken");
            };
            self.complete(token, &cqe);
        }
        self.reaped = reaped;
    }

    fn complete(&mut self, token: Token, cqe: &Cqe) {
        let local = &self.local;
        match token.kind {
            Kind::Op => {
                let completed = local.ops.borrow_mut().complete(token, cqe);
                match completed {
                    Completed::Wake(waker) => waker.wake(),
                    Completed::Orphan(orphan, result) => orphan.ended(result),
                    Completed::Group(group, token, result) => group.completed(token, result),
                }
            }
            Kind::Wake => self.woken(),
            Kind::WakeEventfd => {
                self.woken();
                self.arm_eventfd();
            }
            Kind::WakeupFailed => {
                // The target's ring could not take the message: its eventfd can.
                let target = local.context.registry.contexts.get(token.slot as usize);
                let target = target.expect("a wake-up was sent to a context that exists");
                target.signal_eventfd();
            }
            Kind::Ignore => {
                // ENOENT, EALREADY: what was to be cancelled had ended, or is being ended.
                tracing::trace!(result = cqe.result, "a completion nobody waits for");
            }
        }
    }

    fn woken(&self) {
        let shared = self.local.shared();
        shared.counters.wakeups_received.add(1);
        shared.wake.message_arrived();
    }

    fn arm_eventfd(&mut self) {
        let fd = types::Fd(self.local.shared().eventfd.as_raw_fd());
        let count = (&raw mut *self.eventfd_count).cast::<u8>();
        let entry = opcode::Read::new(fd, count, 8).build();
        // SAFETY: the count is boxed and owned by this loop, which ends only after `tear_down` has
        // seen the last completion or has leaked it.
        unsafe { self.local.submit(entry.user_data(Token::WAKE_EVENTFD.to_user_data())) };
    }

    fn publish_counters(&self) {
        let ring = self.local.ring.borrow().counters;
        let counters = &self.local.shared().counters;
        counters.turns.add(1);
        counters.enters.set(ring.enters);
        counters.sqes.set(ring.sqes);
        counters.cqes.set(ring.cqes);
        counters.backlogged.set(ring.backlogged);
    }

    /// Ends what is left: drops the tasks whose home is here, cancels every operation and waits for
    /// the kernel to let go of their buffers. The loop has ended in every context by now.
    pub(crate) fn tear_down(mut self) {
        let local = Rc::clone(&self.local);
        let registry = Arc::clone(&local.context.registry);
        for shared in &registry.contexts {
            for task in shared.tasks.at_home(local.context.index) {
                task.discard();
            }
        }
        let timers = local.timers.borrow_mut().clear();
        drop(timers);
        while local.pop_ready().is_some() {}
        // Operations dropped on other threads come home as bottom halves.
        self.take_injected();
        while !self.bottom_halves.is_empty() {
            self.run_bottom_halves();
            self.take_injected();
        }
        if !drain(&local, &mut self, Instant::now() + Duration::from_secs(2)) {
            tracing::error!(
                context = local.context.name(),
                left = local.ops.borrow().len(),
                "operations did not end when cancelled; their buffers are leaked"
            );
            // The kernel may still write there.
            std::mem::forget(std::mem::replace(&mut self.eventfd_count, Box::new(0)));
            local::leak_ops(&local);
        }
    }
}

/// Cancels everything and reaps until nothing is in flight. False when `deadline` came first.
fn drain(local: &Rc<Local>, this: &mut Loop, deadline: Instant) -> bool {
    while local.ops.borrow().len() > 0 {
        // Repeated: an operation that is being punted can escape one round.
        let all = types::CancelBuilder::any();
        let cancelled = local.ring.borrow().submitter().register_sync_cancel(None, all);
        if let Err(error) = cancelled
            && !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EALREADY | libc::ETIME))
        {
            tracing::debug!(%error, "cancelling all operations");
        }
        if local.ring.borrow_mut().enter(Wait::For(Duration::from_millis(10))).is_err() {
            return false;
        }
        this.reap();
        if Instant::now() > deadline {
            return false;
        }
    }
    true
}
