//! What is measured.

mod block;
mod boot;
mod density;
mod hotplug;
mod qmp;
mod rcu;
mod reactor;

use crate::case::Bench;
use crate::lab::{Lab, Placement};

/// Name and purpose of each suite, in the order in which they run.
pub const ALL: [(&str, &str); 7] = [
    ("block", "requests to disks, from inside a guest"),
    ("hotplug", "disks that come and go: each step and the cycle"),
    ("qmp", "commands over management sockets"),
    ("rcu", "read-side sections, callbacks, grace periods"),
    ("reactor", "hops between contexts, bottom halves, tasks, timers"),
    ("boot", "from the start of the process to a greeting and to a running guest"),
    ("density", "memory, threads, descriptors and CPU time of idle guests"),
];

/// The benches of a suite; none for a name that is none.
pub fn benches(suite: &str) -> Vec<Bench> {
    match suite {
        "block" => block::benches(),
        "hotplug" => hotplug::benches(),
        "qmp" => qmp::benches(),
        "rcu" => rcu::benches(),
        "reactor" => reactor::benches(),
        "boot" => boot::benches(),
        "density" => density::benches(),
        _ => Vec::new(),
    }
}

/// Why the peer is not asked for what happens inside a process.
const NOT_FROM_OUTSIDE: &str = "QEMU's own cannot be measured from outside";

/// How server and client are spread over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    OneCpu,
    TwoCpus,
}

impl Spot {
    const BOTH: [Self; 2] = [Self::OneCpu, Self::TwoCpus];

    fn name(self) -> &'static str {
        match self {
            Self::OneCpu => "one CPU",
            Self::TwoCpus => "two CPUs",
        }
    }

    fn place(self, lab: &Lab) -> Placement {
        match self {
            Self::OneCpu => lab.one_cpu(),
            Self::TwoCpus => lab.two_cpus(),
        }
    }
}
