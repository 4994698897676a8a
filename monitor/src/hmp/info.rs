//! `info`: the queries of QMP as text.

use super::args::Failure;
use super::table::HmpCommand;
use super::{block, chardev, devices, hardware, net, qom};
use crate::BoxFuture;
use crate::commands::sessions::{self, CommandLatency};
use crate::commands::{inspect, monitor, reactors};
use crate::core::Env;
use crate::error::QmpError;
use crate::machine::RunState;
use std::fmt::Write as _;

pub(super) const COMMANDS: &[HmpCommand] = &[
    HmpCommand {
        names: "balloon",
        params: "",
        help: "show balloon information",
        run: |env, _| ready(hardware::info_balloon(env)),
    },
    HmpCommand {
        names: "block",
        params: "[-n] [-v] [device]",
        help: "show info of one block device or all block devices (-n: show named nodes; -v: show details)",
        run: |env, rest| Box::pin(std::future::ready(block::info_block(env, rest))),
    },
    HmpCommand {
        names: "blockstats",
        params: "",
        help: "show block device statistics",
        run: |env, _| ready(block::info_blockstats(env)),
    },
    HmpCommand {
        names: "chardev",
        params: "",
        help: "show the character devices",
        run: |env, _| ready(chardev::list(env)),
    },
    HmpCommand {
        names: "commands",
        params: "",
        help: "show the commands of QMP",
        run: |env, _| ready(commands(env)),
    },
    HmpCommand {
        names: "cpus",
        params: "",
        help: "show infos for each CPU",
        run: |env, _| ready(hardware::cpus(env)),
    },
    HmpCommand {
        names: "hotpluggable-cpus",
        params: "",
        help: "Show information about hotpluggable CPUs",
        run: |env, _| ready(hardware::hotpluggable_cpus(env)),
    },
    HmpCommand {
        names: "iothreads",
        params: "",
        help: "show iothreads",
        run: |env, _| ready(hardware::iothreads(env)),
    },
    HmpCommand {
        names: "kvm",
        params: "",
        help: "show KVM information",
        run: |env, _| ready(kvm(env)),
    },
    HmpCommand {
        names: "memdev",
        params: "",
        help: "show memory backends",
        run: |env, _| ready(hardware::memory_backends(env)),
    },
    HmpCommand {
        names: "memory_size_summary",
        params: "",
        help: "show the initially allocated and plugged memory in bytes",
        run: |env, _| ready(hardware::memory(env)),
    },
    HmpCommand {
        names: "monitors",
        params: "",
        help: "show who is connected over QMP, and how long commands took",
        run: |env, _| ready(monitors(env)),
    },
    HmpCommand {
        names: "name",
        params: "",
        help: "show the current VM name",
        run: |env, _| ready(name(env)),
    },
    HmpCommand {
        names: "network",
        params: "",
        help: "show the network state",
        run: |env, _| ready(net::info(env)),
    },
    HmpCommand {
        names: "pci",
        params: "",
        help: "show PCI info",
        run: |env, _| ready(hardware::pci(env)),
    },
    HmpCommand {
        names: "qom-tree",
        params: "[path]",
        help: "show QOM composition tree",
        run: |env, rest| Box::pin(std::future::ready(qom::tree(env, rest))),
    },
    HmpCommand {
        names: "qtree",
        params: "[-b]",
        help: "show device tree [-b: brief, omit properties]",
        run: |env, rest| Box::pin(std::future::ready(devices::tree(env, rest))),
    },
    HmpCommand {
        names: "rcu",
        params: "",
        help: "show what RCU has done",
        run: |env, _| ready(rcu(env)),
    },
    HmpCommand {
        names: "reactors",
        params: "",
        help: "show the contexts and what they have done",
        run: |env, _| ready(reactors(env)),
    },
    HmpCommand {
        names: "status",
        params: "",
        help: "show the current VM status (running|paused)",
        run: |env, _| ready(status(env)),
    },
    HmpCommand {
        names: "uuid",
        params: "",
        help: "show the current VM UUID",
        run: |env, _| ready(hardware::uuid(env)),
    },
    HmpCommand {
        names: "version",
        params: "",
        help: "show the version of ringvisor and of the protocol",
        run: |env, _| ready(version(env)),
    },
];

fn ready<'a>(result: Result<String, QmpError>) -> BoxFuture<'a, Result<String, Failure>> {
    Box::pin(std::future::ready(result.map_err(Failure::from)))
}

fn commands(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for command in monitor::query_commands(env, ())? {
        let doc = env.core.registry.find(&command.name).map_or("", |found| found.doc());
        let _ = writeln!(text, "{:<22} {doc}", command.name);
    }
    Ok(text)
}

fn kvm(env: &Env) -> Result<String, QmpError> {
    let info = inspect::query_kvm(env, ())?;
    let state = match (info.present, info.enabled) {
        (true, true) => "enabled",
        (true, false) => "disabled",
        (false, _) => "not compiled",
    };
    Ok(format!("kvm support: {state}\n"))
}

fn name(env: &Env) -> Result<String, QmpError> {
    let info = inspect::query_name(env, ())?;
    Ok(info.name.map_or_else(String::new, |name| format!("{name}\n")))
}

fn monitors(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for monitor in sessions::query_monitors(env, ())? {
        let peer = monitor.peer.map_or_else(
            || "tcp".to_owned(),
            |peer| format!("pid={} uid={} gid={}", peer.pid, peer.uid, peer.gid),
        );
        let _ = writeln!(
            text,
            "session {}: {peer}, since {} s, queued={} unsent={} events-dropped={}",
            monitor.id,
            monitor.connected_ms / 1000,
            monitor.queued,
            monitor.unsent_bytes,
            monitor.events_dropped,
        );
        for CommandLatency { name, latency } in monitor.commands {
            let name = if name.is_empty() { "others" } else { &name };
            let [p50, p99, max] =
                [latency.p50_ns, latency.p99_ns, latency.max_ns].map(|ns| ns / 1000);
            let _ = writeln!(
                text,
                "  {name:<24} {:>8} times, p50 {p50} us, p99 {p99} us, max {max} us",
                latency.count
            );
        }
    }
    Ok(text)
}

fn rcu(env: &Env) -> Result<String, QmpError> {
    let info = reactors::query_rcu(env, ())?;
    Ok(format!(
        "callbacks: {} pending, {} run, {} panicked\n\
         batches: {} of {} complete, {} callbacks at most\n\
         grace period: p50 {} us, p99 {} us, max {} us; {} sleeps, {} expedited\n\
         readers: {} threads, {} kicked, {} stalls\n",
        info.pending,
        info.callbacks_run,
        info.panics,
        info.batches_complete,
        info.batches,
        info.batch_size_max,
        info.grace_period.p50_ns / 1000,
        info.grace_period.p99_ns / 1000,
        info.grace_period.max_ns / 1000,
        info.sleeps,
        info.expedited,
        info.threads,
        info.kicks,
        info.stalls,
    ))
}

fn reactors(env: &Env) -> Result<String, QmpError> {
    let mut text = String::from(
        "context         turns     enters       sqes     polls  wakeups  stalls  delay-p99\n",
    );
    for info in reactors::query_reactors(env, ())? {
        let _ = writeln!(
            text,
            "{:<10} {:>10} {:>10} {:>10} {:>9} {:>8} {:>7} {:>7} us",
            info.name,
            info.turns,
            info.enters,
            info.sqes,
            info.tasks_polled,
            info.wakeups_received,
            info.stalls,
            info.queue_delay.p99_ns / 1000,
        );
    }
    Ok(text)
}

fn status(env: &Env) -> Result<String, QmpError> {
    let info = inspect::query_status(env, ())?;
    let state = match info.status {
        RunState::Running => "running".to_owned(),
        RunState::Paused => "paused".to_owned(),
        other => format!("paused ({other})"),
    };
    Ok(format!("VM status: {state}\n"))
}

fn version(env: &Env) -> Result<String, QmpError> {
    let info = inspect::query_version(env, ())?;
    let number = info.qemu;
    Ok(format!("{}.{}.{} ({})\n", number.major, number.minor, number.micro, info.package))
}
