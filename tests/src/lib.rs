//! Drives the program from outside, as a user or a management tool does.
//!
//! [`Vmm`] is a running process with its console, [`Qmp`] a client of one of its sockets,
//! [`LinuxGuest`] both around a Linux that does what its console is told. Every wait ends with an event or with a failure that shows the end of the console.

mod linux;
mod qmp;
mod vmm;

pub use linux::{LinuxGuest, LinuxImages};
pub use qmp::Qmp;
pub use vmm::{Finished, Vmm};

use std::fs::OpenOptions;

/// Whether this machine has a KVM that the tests may use. Where it has none, says so in one line;
/// the caller returns then.
#[must_use]
pub fn kvm(test: &str) -> bool {
    let usable = OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if !usable {
        println!("SKIPPED {test}: /dev/kvm is not accessible");
    }
    usable
}
