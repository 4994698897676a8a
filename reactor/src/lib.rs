//! AioContext: one io_uring loop a thread, with tasks, bottom halves and timers.
//!
//! | what | where | called from |
//! |---|---|---|
//! | start and stop: [`run`], [`Config`], [`Reactors`] | `runtime`, `teardown` | the process's first thread |
//! | handles: [`Context`] | `context`, `mailbox` | any thread |
//! | tasks: [`Context::spawn`], [`spawn_local`], [`hop`], [`yield_now`], [`JoinHandle`] | `task/`, `join` | any thread; `hop`: tasks |
//! | bottom halves: [`Context::schedule_bh`], [`BottomHalf`] | `bh` | any thread |
//! | timers: [`sleep`], [`sleep_until`], [`timeout`] | `timer` | tasks |
//! | files and sockets: [`io`], [`net`], [`signal`] | `io/`, `op/`, `net/`, `signal` | tasks |
//! | buffers that the kernel knows: [`BufRing`], [`FixedBuffer`], [`FixedMemory`] | `buffers/` | tasks |
//! | the data path: [`OpGroup`] | `group/` | tasks that stay on one context |
//! | waiting for what is in flight: [`DrainToken`], [`Context::drain`] | `drain/` | tasks |
//! | between tasks: [`sync`] | `sync/` | any thread |
//! | what it has done and does: [`Counters`], [`Context::busy`], [`Stall`] | `counters`, `running` | any thread |
//! | the loop | `turn`, `poll` | nobody: it is entered once, by its thread |
//! | the ring, sleeping and waking | `ring/`, `wake`, `queue` | the loop |
//!
//! No function here runs the loop from inside a task: there is no nested event loop, and so no
//! way to wait for something while pretending not to. Waiting is `.await`.

mod ambient;
mod bh;
mod buffers;
mod context;
mod counters;
mod cpu;
mod drain;
mod fd;
mod group;
mod guard;
pub mod io;
mod join;
mod local;
mod mailbox;
pub mod net;
mod op;
mod poll;
mod primitive;
mod queue;
#[cfg(test)]
#[path = "queue/tests.rs"]
mod queue_tests;
mod ring;
mod running;
mod runtime;
pub mod signal;
pub mod sync;
mod task;
mod teardown;
mod timer;
mod turn;
mod wake;
mod work;

pub use bh::BottomHalf;
pub use buffers::{BufRing, FixedBuffer, FixedMemory, RingBuf};
pub use context::{Busy, Context, Stall, StallHandler, TurnHook};
pub use counters::{Counters, HISTOGRAM_BUCKETS, Histogram};
pub use cpu::allowed as allowed_cpus;
pub use drain::{DrainToken, InFlight};
pub use fd::Fd;
pub use group::{Completion, FixedFile, OpGroup, Target};
pub use join::{CancelOnDrop, JoinError, JoinHandle};
pub use local::{current, on_reactor, try_current};
pub use ring::SetupError;
pub use runtime::{Config, Reactors, StartError, run};
pub use task::{Hop, hop, spawn_local, yield_now};
pub use timer::{Elapsed, Sleep, sleep, sleep_until, timeout};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
