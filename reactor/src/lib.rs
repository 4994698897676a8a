//! AioContext: one io_uring loop a thread, with tasks, bottom halves and timers.
//!
//! | what | where | called from |
//! |---|---|---|
//! | start and stop: [`run`], [`Config`], [`Reactors`] | `runtime` | the process's first thread |
//! | handles: [`Context`] | `context` | any thread |
//! | tasks: [`Context::spawn`], [`spawn_local`], [`hop`], [`yield_now`], [`JoinHandle`] | `task`, `join` | any thread; `hop`: tasks |
//! | bottom halves: [`Context::schedule_bh`], [`BottomHalf`] | `bh` | any thread |
//! | timers: [`sleep`], [`sleep_until`], [`timeout`] | `timer` | tasks |
//! | files and sockets: [`io`], [`net`], [`signal`] | `io`, `op/`, `net`, `signal` | tasks |
//! | the data path: [`OpGroup`] | `group` | tasks that stay on one context |
//! | between tasks: [`sync`] | `sync/` | any thread |
//! | the loop | `turn`, `poll` | nobody: it is entered once, by its thread |
//! | the ring, sleeping and waking | `ring/`, `wake`, `queue` | the loop |
//!
//! No function here runs the loop from inside a task: there is no nested event loop, and so no
//! way to wait for something while pretending not to. Waiting is `.await`.

mod bh;
mod context;
mod counters;
mod cpu;
mod fd;
mod group;
pub mod io;
mod join;
mod local;
pub mod net;
mod op;
mod poll;
mod primitive;
mod queue;
mod ring;
mod runtime;
pub mod signal;
pub mod sync;
mod task;
mod timer;
mod turn;
mod wake;

pub use bh::BottomHalf;
pub use context::{Context, Stall, StallHandler, TurnHook};
pub use counters::{Counters, HISTOGRAM_BUCKETS, Histogram};
pub use cpu::allowed as allowed_cpus;
pub use fd::Fd;
pub use group::{Completion, FixedFile, OpGroup, Target};
pub use join::{CancelOnDrop, JoinError, JoinHandle};
pub use local::{current, on_reactor, try_current};
pub use ring::SetupError;
pub use runtime::{Config, Reactors, StartError, run};
pub use task::{hop, spawn_local, yield_now};
pub use timer::{Elapsed, Sleep, sleep, sleep_until, timeout};
