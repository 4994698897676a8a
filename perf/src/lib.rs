//! The perf suite: ringvisor beside a peer and beside the bare limit of the machine, in one run.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`] | `perf run`, `perf compare`, `perf list` |
//! | [`case`] | cases, goals, benches; results of the three sides |
//! | [`samples`] | histograms of times, medians and ranges |
//! | [`lab`] | programs, CPUs and files of a run |
//! | [`host`] | this machine, and what a process uses |
//! | [`vmm`], [`qmp`] | a VMM as a child process, and a blocking client of it |
//! | [`run`], [`progress`] | the sides in turn, and how far that has come |
//! | [`suites`] | what is measured |
//! | [`limit`] | the same by bare system calls |
//! | [`report`] | JSON, tables, plots, histogram files |
//!
//! VMMs are child processes; nothing of ringvisor runs in this one except, for the suites `rcu` and `reactor`, those
//! two crates. Everything blocks: there is no reactor here that could be held up.

pub mod case;
pub mod cli;
mod error;
pub mod host;
pub mod lab;
pub mod limit;
pub mod progress;
pub mod qmp;
pub mod report;
pub mod run;
pub mod samples;
pub mod suites;
pub mod vmm;

pub use error::Error;
