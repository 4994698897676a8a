//! The qtest protocol: a program outside does the accesses of a guest, and steps the clock.
//!
//! | what | where |
//! |---|---|
//! | bytes into lines, bounded | `lines` |
//! | a line into a command | `command` |
//! | what commands do | `target` |
//! | replies, interrupt lines and the log on their way out | `outbox` |
//! | whom it is spoken with | `server` |
//!
//! All of it runs in `iohandler`, as do the stores of interrupt messages: a client sees what a device did
//! in the order in which the device did it. Interrupt inputs are driven from any thread and only queue
//! a line.

mod command;
mod lines;
mod outbox;
mod server;
mod target;

pub(crate) use outbox::Outbox;
pub(crate) use server::open_log;
pub(crate) use target::Target;
