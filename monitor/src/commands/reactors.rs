//! What the contexts and RCU are doing. Not in QEMU.

use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use reactor::{Context, Histogram};

qapi_struct! {
    /// A distribution of times. Quantiles are upper bounds, at most twice the true value.
    pub struct TimeHistogram {
        /// Values.
        pub count: u64 = "count",
        /// Half of the values are below, in nanoseconds.
        pub p50_ns: u64 = "p50-ns",
        /// 99 % of the values are below, in nanoseconds.
        pub p99_ns: u64 = "p99-ns",
        /// All values are below, in nanoseconds.
        pub max_ns: u64 = "max-ns",
    }
}

qapi_struct! {
    /// A context and what it has done since its start.
    pub struct ReactorInfo {
        /// `main`, `iohandler`, `monitor` or `core-N`.
        pub name: String = "name",
        /// The host CPU that it is pinned to.
        pub cpu: Option<u64> = "cpu",
        /// Turns of the loop.
        pub turns: u64 = "turns",
        /// `io_uring_enter` system calls.
        pub enters: u64 = "enters",
        /// Submission queue entries.
        pub sqes: u64 = "sqes",
        /// Completion queue entries.
        pub cqes: u64 = "cqes",
        /// Entries that found the submission queue full.
        pub backlogged: u64 = "backlogged",
        /// Wake-up messages sent to it.
        pub wakeups_sent: u64 = "wakeups-sent",
        /// Wake-ups that needed no message.
        pub wakeups_coalesced: u64 = "wakeups-coalesced",
        /// Wake-up messages that arrived.
        pub wakeups_received: u64 = "wakeups-received",
        /// Tasks started here.
        pub tasks_spawned: u64 = "tasks-spawned",
        /// Tasks started here that have not ended.
        pub tasks_alive: u64 = "tasks-alive",
        /// Task polls.
        pub tasks_polled: u64 = "tasks-polled",
        /// Bottom halves run.
        pub bottom_halves: u64 = "bottom-halves",
        /// Timers that expired.
        pub timers_fired: u64 = "timers-fired",
        /// Task polls and bottom halves that held the context for too long.
        pub stalls: u64 = "stalls",
        /// From a task's wake-up to its poll.
        pub queue_delay: TimeHistogram = "queue-delay",
        /// Lengths of task polls.
        pub poll_time: TimeHistogram = "poll-time",
    }
}

qapi_struct! {
    /// What RCU has done since the start of the process.
    pub struct RcuInfo {
        /// Callbacks that wait for their grace period or their turn.
        pub pending: u64 = "pending",
        /// Callbacks that have run.
        pub callbacks_run: u64 = "callbacks-run",
        /// Callbacks that panicked; they count as run.
        pub panics: u64 = "panics",
        /// Batches closed.
        pub batches: u64 = "batches",
        /// Batches whose callbacks, and all before, have run.
        pub batches_complete: u64 = "batches-complete",
        /// Callbacks of the largest batch.
        pub batch_size_max: u64 = "batch-size-max",
        /// From the closing of a batch to the end of its grace period.
        pub grace_period: TimeHistogram = "grace-period",
        /// Times that a grace period found a reader in its way and slept.
        pub sleeps: u64 = "sleeps",
        /// `membarrier` system calls.
        pub membarriers: u64 = "membarriers",
        /// Reports of readers that stayed for too long.
        pub stalls: u64 = "stalls",
        /// Readers that were kicked.
        pub kicks: u64 = "kicks",
        /// Grace periods that were hurried because too much was pending.
        pub expedited: u64 = "expedited",
        /// Threads registered.
        pub threads: u64 = "threads",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let reactors = Command::plain(
        "query-reactors",
        "The contexts and what they have done since their start.",
        query_reactors,
    );
    registry.add(reactors.allow_oob().allow_preconfig());
    let rcu = Command::plain("query-rcu", "What RCU has done since the start.", query_rcu);
    registry.add(rcu.allow_oob().allow_preconfig());
}

pub(crate) fn query_reactors(env: &Env, (): ()) -> Result<Vec<ReactorInfo>, QmpError> {
    Ok(env.core.reactors.all().iter().map(info).collect())
}

pub(crate) fn query_rcu(_: &Env, (): ()) -> Result<RcuInfo, QmpError> {
    let stats = rcu::stats();
    Ok(RcuInfo {
        pending: stats.pending as u64,
        callbacks_run: stats.callbacks_run,
        panics: stats.panics,
        batches: stats.batches,
        batches_complete: stats.batches_complete,
        batch_size_max: stats.batch_size_max,
        grace_period: times(&stats.grace_period),
        sleeps: stats.sleeps,
        membarriers: stats.membarriers,
        stalls: stats.stalls,
        kicks: stats.kicks,
        expedited: stats.expedited,
        threads: stats.threads as u64,
    })
}

fn info(context: &Context) -> ReactorInfo {
    let counters = context.counters();
    ReactorInfo {
        name: context.name().to_owned(),
        cpu: context.cpu().map(|cpu| cpu as u64),
        turns: counters.turns,
        enters: counters.enters,
        sqes: counters.sqes,
        cqes: counters.cqes,
        backlogged: counters.backlogged,
        wakeups_sent: counters.wakeups_sent,
        wakeups_coalesced: counters.wakeups_coalesced,
        wakeups_received: counters.wakeups_received,
        tasks_spawned: counters.tasks_spawned,
        tasks_alive: counters.tasks_alive,
        tasks_polled: counters.tasks_polled,
        bottom_halves: counters.bottom_halves,
        timers_fired: counters.timers_fired,
        stalls: counters.stalls,
        queue_delay: times(&counters.queue_delay),
        poll_time: times(&counters.poll_time),
    }
}

fn times(histogram: &Histogram) -> TimeHistogram {
    TimeHistogram {
        count: histogram.count(),
        p50_ns: histogram.quantile_ns(0.5),
        p99_ns: histogram.quantile_ns(0.99),
        max_ns: histogram.quantile_ns(1.0),
    }
}
