//! The guest's serial console, and the terminal it may share with the monitor.
//!
//! Everything runs in `iohandler`; the vCPU that writes a byte only puts it into a bounded buffer.

mod escape;
mod input;
mod output;
pub(crate) mod terminal;

pub(crate) use input::{Stdin, serve_stdin};
pub(crate) use output::Output;
