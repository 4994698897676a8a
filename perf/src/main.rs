//! The perf suite: not written yet. It will measure hotplug and I/O latency beside a peer.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("perf: there are no suites yet; the benches are run by: cargo bench -p rcu");
    ExitCode::FAILURE
}
