//! The least this machine needs for what a VMM does, by bare system calls.

pub mod echo;
pub mod kvm;
pub mod uring;

#[path = "../../../reactor/benches/support/bare.rs"]
pub(crate) mod bare;

use crate::samples::{Samples, sample};

/// Binds this thread; what `bare` asks of whoever compiles it.
fn bind(cpus: &[usize]) {
    crate::host::bind_thread(0, cpus).expect("the process may run on its own CPUs");
}
