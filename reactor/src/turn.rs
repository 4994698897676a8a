//! The loop of a context.
//!
//! One turn: take what other threads sent; run expired timers, bottom halves and ready tasks, each
//! up to a bound; submit and, when nothing is left to run, sleep; reap completions. Completions
//! only wake tasks: nothing of a user runs inside the reaping, but destructors, and those guarded.

use crate::context::{Registry, Stall, TurnHook};
use crate::guard;
use crate::local::Local;
use crate::op::abandon;
use crate::op::table::Completed;
use crate::op::token::{Kind, Token};
use crate::poll::Poller;
use crate::ring::{Cqe, Wait};
use crate::work::{HomeWork, Work};
use io_uring::{opcode, types};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Task polls in one turn, so that completions, timers and bottom halves get their turn under load.
const TASK_BUDGET: usize = 128;
/// Time for task polls, and as much for bottom halves, in one turn; one of them can exceed it, a series
/// cannot.
const TIME_BUDGET: Duration = Duration::from_micros(500);
/// Submissions and wake-ups wait for the end of the turn, so that one system call takes them all, but
/// no longer than this while tasks run.
const SUBMIT_AFTER: Duration = Duration::from_micros(100);
/// Bottom halves in one turn.
const BH_BUDGET: usize = 128;

pub(crate) struct Loop {
    pub(crate) local: Rc<Local>,
    pub(crate) bottom_halves: VecDeque<Work>,
    /// Completions taken from the queue and not looked at: a panic loses none.
    reaped: VecDeque<Cqe>,
    poller: Poller,
    /// The last wait was allowed to sleep, and the clock has been read since.
    slept: bool,
}

/// The part of a turn that hooks surround: each hook that has begun is ended, come what may.
struct Hooked<'a> {
    hooks: &'a [Arc<dyn TurnHook>],
    begun: usize,
}

impl<'a> Hooked<'a> {
    fn begin(registry: &'a Registry) -> Self {
        let mut hooked = Self { hooks: &registry.hooks, begun: 0 };
        for hook in hooked.hooks {
            hook.turn_begin();
            hooked.begun += 1;
        }
        hooked
    }
}

impl Drop for Hooked<'_> {
    fn drop(&mut self) {
        for hook in &self.hooks[..self.begun] {
            hook.turn_end();
        }
    }
}

impl Loop {
    pub(crate) fn new(local: Rc<Local>) -> Self {
        // The service contexts share CPUs with everybody: they do not poll.
        let pinned = local.shared.cpu.is_some();
        let ns_max = if pinned { local.context.registry.poll_ns_max } else { 0 };
        let poller = Poller::new(ns_max);
        Self {
            local,
            bottom_halves: VecDeque::new(),
            reaped: VecDeque::new(),
            poller,
            slept: false,
        }
    }

    /// Runs until the runtime stops. An error means that the ring is unusable.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        self.arm_eventfd();
        let registry = Arc::clone(&self.local.context.registry);
        while !registry.stopping.load(Ordering::Acquire) {
            let hooked = Hooked::begin(&registry);
            self.work();
            drop(hooked);
            self.wait()?;
            self.reap();
            self.publish_counters();
        }
        Ok(())
    }

    /// Runs what is ready, up to the bounds of a turn.
    fn work(&mut self) {
        // After a sleep the clock has been read: what its completions have woken was queued then.
        if !std::mem::take(&mut self.slept) {
            self.local.now.set(Instant::now());
        }
        self.local.turn_begins();
        self.take_sent();
        self.expire_timers();
        self.run_bottom_halves();
        self.run_tasks();
    }

    pub(crate) fn take_sent(&mut self) {
        for work in self.local.shared.take() {
            match work {
                Work::Task(task) => self.local.push_ready(task),
                Work::Home(home) => {
                    guard::run("housekeeping", &self.local.shared.name, || self.keep_house(home));
                }
                other => self.bottom_halves.push_back(other),
            }
        }
    }

    /// What other threads have left to this one.
    fn keep_house(&self, work: HomeWork) {
        let local = &self.local;
        match work {
            HomeWork::Abandon(token, orphan) => abandon(token, orphan),
            HomeWork::Cancel(token) => local.cancel_op(token),
            HomeWork::Disarm(key) => {
                let waker = local.timers.borrow_mut().remove(&key);
                drop(waker);
            }
            HomeWork::Provide(pool, id) => pool.provide(id),
            HomeWork::Retire(region, group) => crate::buffers::retire(region, group),
            HomeWork::Release(slot) => local.ring.borrow_mut().release(slot),
        }
    }

    fn expire_timers(&self) {
        let local = &self.local;
        loop {
            let due = local.timers.borrow_mut().pop_due(local.now.get());
            let Some(waker) = due else { return };
            local.shared.counters.timers_fired.add(1);
            guard::run("the waker of a timer", &local.shared.name, || waker.wake());
        }
    }

    pub(crate) fn run_bottom_halves(&mut self) {
        let begun = self.local.now.get();
        let mut now = begun;
        for _ in 0..BH_BUDGET {
            let Some(work) = self.bottom_halves.pop_front() else { return };
            let shared = &self.local.shared;
            shared.counters.bottom_halves.add(1);
            let name = match &work {
                Work::Once(name, _) => name,
                Work::Reusable(bh) => bh.name(),
                Work::Task(_) | Work::Home(_) => unreachable!("these are not queued here"),
            };
            shared.running.begin(name, now);
            guard::run("a bottom half", name, || match work {
                Work::Once(_, function) => function(),
                Work::Reusable(bh) => bh.run(),
                Work::Task(_) | Work::Home(_) => unreachable!("these are not queued here"),
            });
            let after = Instant::now();
            self.watch(name, after - now);
            now = after;
            self.local.now.set(now);
            if now - begun > TIME_BUDGET {
                return;
            }
        }
    }

    fn run_tasks(&self) {
        let local = &self.local;
        let shared = &local.shared;
        let counters = &shared.counters;
        let begun = local.now.get();
        let (mut now, mut submitted) = (begun, begun);
        // Those that wake one another take turns within the bounds; who wakes itself waits for the next.
        for _ in 0..TASK_BUDGET {
            let Some(task) = local.pop_ready() else { break };
            let header = task.header();
            if let Some(queued) = header.take_queued() {
                counters.queue_delay.record(now.saturating_duration_since(queued));
            }
            let name = header.name;
            shared.running.begin(name, now);
            task.run(local);
            let after = Instant::now();
            counters.tasks_polled.add(1);
            counters.poll_time.record(after - now);
            self.watch(name, after - now);
            now = after;
            local.now.set(now);
            if now - submitted > SUBMIT_AFTER {
                submitted = now;
                self.submit_early();
            }
            if now - begun > TIME_BUDGET {
                break;
            }
        }
        shared.running.end();
    }

    /// Submits in the middle of a long turn. An error shows again at its end.
    fn submit_early(&self) {
        self.local.flush_wakes();
        let mut ring = self.local.ring.borrow_mut();
        if ring.has_unsubmitted()
            && let Err(error) = ring.enter(Wait::No)
        {
            tracing::debug!(%error, "submitting in the middle of a turn");
        }
    }

    /// The watchdog: blocking in a reactor names itself.
    fn watch(&self, name: &'static str, took: Duration) {
        let registry = &self.local.context.registry;
        if took < registry.stall_limit {
            return;
        }
        self.local.shared.counters.stalls.add(1);
        let context = self.local.context.name();
        tracing::warn!(context, name, ?took, "blocked its reactor");
        if let Some(on_stall) = &registry.on_stall {
            let stall = Stall { context: context.to_owned(), name, took };
            guard::run("the stall handler", name, || on_stall(&stall));
        }
    }

    /// Submits; sleeps when there is nothing to run.
    fn wait(&mut self) -> std::io::Result<()> {
        let local = Rc::clone(&self.local);
        local.flush_wakes();
        // Looked at after the hooks: the end of a turn may wake a task here, as the end of a read-side
        // section does. What this context has sent to itself needs no system call to be found.
        if !local.is_idle() || !self.bottom_halves.is_empty() || !local.shared.is_empty() {
            let mut ring = local.ring.borrow_mut();
            if ring.has_unsubmitted() || ring.has_deferred() {
                ring.enter(Wait::No)?;
            }
            return Ok(());
        }
        if self.poller.spin(&local)? {
            local.shared.counters.polled_awake.add(1);
            return Ok(());
        }
        let shared = &local.shared;
        let wake = &shared.mailbox.wake;
        wake.prepare_sleep();
        let stopping = local.context.registry.stopping.load(Ordering::SeqCst);
        let result = if shared.is_empty() && !stopping {
            self.sleep()
        } else {
            local.ring.borrow_mut().enter(Wait::No)
        };
        wake.awake();
        result
    }

    fn sleep(&mut self) -> std::io::Result<()> {
        let local = &self.local;
        // The turn's clock is behind by what the hooks took, and by the polling before this.
        let begun = Instant::now();
        let deadline = local.timers.borrow().next_deadline();
        let wait =
            deadline.map_or(Wait::Forever, |at| Wait::For(at.saturating_duration_since(begun)));
        let result = local.ring.borrow_mut().enter(wait);
        let now = Instant::now();
        local.shared.counters.slept_ns.add((now - begun).as_nanos() as u64);
        local.now.set(now);
        self.slept = true;
        result
    }

    /// Takes all completions and wakes who waits for them.
    pub(crate) fn reap(&mut self) {
        self.local.ring.borrow_mut().reap(&mut self.reaped);
        while let Some(cqe) = self.reaped.pop_front() {
            let Some(token) = Token::from_user_data(cqe.user_data) else {
                panic!("completion {cqe:?} has no token of ours: the ring's bookkeeping is broken");
            };
            self.complete(token, cqe);
        }
    }

    fn complete(&mut self, token: Token, cqe: Cqe) {
        match token.kind {
            Kind::Op => self.complete_operation(token, cqe),
            Kind::Wake => self.woken(),
            Kind::WakeEventfd => {
                self.woken();
                if !cqe.more() && !self.local.shared.stopped.load(Ordering::Relaxed) {
                    self.arm_eventfd();
                }
            }
            Kind::WakeupFailed => {
                // The target's ring could not take the message: its eventfd can.
                self.local.context.registry.shared(token.slot as usize).signal_eventfd();
            }
            Kind::LinkTimeout => {
                // ETIME: it has cancelled the operation. ECANCELED: the operation ended before. Otherwise
                // there is no time limit, or it came while the operation was on its way from one state to
                // the next (ENOENT, EALREADY) and may wait again: it shall not go on.
                let operation = token.limited();
                if ![-libc::ETIME, -libc::ECANCELED].contains(&cqe.result)
                    && self.local.ops.borrow().is_in_flight(operation)
                {
                    tracing::debug!(result = cqe.result, "a time limit did not take hold");
                    self.local.cancel_op(operation);
                }
            }
            Kind::Ignore => {
                // ENOENT, EALREADY: what was to be cancelled had ended, or is being ended.
                tracing::trace!(result = cqe.result, "a completion nobody waits for");
            }
        }
    }

    fn complete_operation(&self, token: Token, cqe: Cqe) {
        let local = &self.local;
        let name = &local.shared.name;
        let completed = local.ops.borrow_mut().complete(token, cqe);
        match completed {
            Completed::Nothing => {}
            Completed::Wake(waker) => {
                guard::run("the waker of an operation", name, || waker.wake());
            }
            Completed::Overrun(waker) => {
                local.cancel_op(token);
                guard::run("the waker of an operation", name, || waker.map(std::task::Waker::wake));
            }
            Completed::Orphan(mut orphan) => {
                guard::run("a destructor", name, || orphan.completed(cqe));
                if cqe.more() {
                    local.ops.borrow_mut().keep(token, orphan);
                } else {
                    guard::run("a destructor", name, || drop(orphan));
                }
            }
            Completed::Group(group, number, tag) => {
                guard::run("a group's waker or destructor", name, move || {
                    group.completed(number, cqe, tag);
                });
            }
        }
    }

    fn woken(&self) {
        let shared = &self.local.shared;
        shared.counters.wakeups_received.add(1);
        shared.mailbox.wake.message_arrived();
    }

    /// Listens to the eventfd: multishot, and without reading it. Each write makes a completion,
    /// whatever the count is; and nothing that the kernel writes to has to outlive the loop.
    fn arm_eventfd(&self) {
        let fd = types::Fd(self.local.shared.eventfd.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        // SAFETY: a poll points to nothing.
        unsafe { self.local.submit(entry.user_data(Token::WAKE_EVENTFD.to_user_data())) };
    }

    fn publish_counters(&self) {
        let local = &self.local;
        let ring = local.ring.borrow().counters;
        let counters = &local.shared.counters;
        counters.turns.add(1);
        counters.enters.set(ring.enters);
        counters.sqes.set(ring.sqes);
        counters.cqes.set(ring.cqes);
        counters.backlogged.set(ring.backlogged);
        counters.overflows.set(ring.overflows);
        counters.retries.set(ring.retries);
        counters.ops_in_flight.set(local.ops.borrow().len() as u64);
        counters.timers_set.set(local.timers.borrow().len() as u64);
    }
}
