//! ringvisor: a virtual machine monitor for Linux/KVM that speaks QEMU's languages.
//!
//! | what | where |
//! |---|---|
//! | options into a configuration | `cli/`, `config` |
//! | a configuration into a running guest, and its life | `machine/` |
//! | a client of QMP sockets: `ringvisor qmp` | `qmp/` |
//! | disk images: `ringvisor img` | `img/` |
//! | the machine driven from outside, for device tests | `qtest/` |

mod cli;
mod config;
mod img;
mod machine;
mod qmp;
mod qtest;

use cli::Invocation;
use config::Config;
use machine::Preparing;
use std::process::ExitCode;

fn main() -> ExitCode {
    start_logging();
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == "qmp").is_some() {
        return exit(qmp::run(args));
    }
    if args.next_if(|arg| arg == "img").is_some() {
        return exit(img::run(args));
    }
    exit(match cli::parse(args) {
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            Ok(0)
        }
        Ok(Invocation::Run(config)) => run(*config),
        Err(error) => Err(error),
    })
}

fn exit(result: Result<u8, String>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("ringvisor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a machine to its end; the exit status is the guest's. The error is one line for the user.
fn run(config: Config) -> Result<u8, String> {
    // Blocked before any thread is started, so that every thread inherits the mask.
    let signals = reactor::signal::Signals::new(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
        .map_err(|error| format!("signals cannot be read: {error}"))?;
    let reactors = reactor_config(&config)?;
    let preparing = Preparing::start(&config)?;
    reactor::run(reactors, move |reactors| machine::run(reactors, config, preparing, signals))
        .map_err(|error| error.to_string())?
}

fn reactor_config(config: &Config) -> Result<reactor::Config, String> {
    let allowed = reactor::allowed_cpus().map_err(|error| format!("sched_getaffinity: {error}"))?;
    let cores = match &config.reactor.cores {
        None => allowed,
        Some(cores) => match cores.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => {
                return Err(format!(
                    "-reactor: CPU {cpu} is not among those that this process may use ({allowed:?})"
                ));
            }
            None => cores.clone(),
        },
    };
    let mut reactors = reactor::Config::with_cores(cores);
    reactors.poll_ns_max = config.reactor.poll_ns_max;
    reactors.hooks = vec![rcu::turn_hook()];
    Ok(reactors)
}

/// Warnings go to stderr; `RINGVISOR_LOG=debug` (or error, info, trace) changes how much.
fn start_logging() {
    let level = std::env::var("RINGVISOR_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::level_filters::LevelFilter::WARN))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
