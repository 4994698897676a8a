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

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open files.
    pub files: usize,
    /// Private memory, in KiB.
    pub memory: u64,
}

impl Footprint {
    /// That of the process `pid`, now.
    ///
    /// # Panics
    /// When it is gone.
    pub fn of(pid: u32) -> Self {
        let process = format!("/proc/{pid}");
        let files = std::fs::read_dir(format!("{process}/fd")).expect("the process is there");
        let status = std::fs::read_to_string(format!("{process}/status")).expect("it still is");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let memory = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        Self { files: files.count(), memory: memory.expect("a size in KiB") }
    }
}

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
