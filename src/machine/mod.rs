//! A machine: from a configuration to a running guest, and its life until the process ends.
//!
//! `main` owns the machine. vCPU threads, signals and monitors only leave requests
//! ([`requests`]), which the loop in [`life`] takes up one at a time.

mod build;
mod control;
mod devices;
mod disks;
mod life;
mod pci;
mod requests;

pub(crate) use build::Prepared;

use crate::config::{Config, Serial as SerialConfig};
use crate::console::{self, Output};
use ::devices::block::graph::BlockGraph;
use ::devices::board::Board;
use ::devices::qdev::{DeviceTree, DriveTable};
use futures_util::future::select;
use monitor::event::ShutdownCause;
use monitor::wire::Style;
use monitor::{Actions, Address, EventSink, Monitor, RunState};
use reactor::{Fd, Reactors, signal::Signals};
use requests::Requests;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vcpu::boot::Boot;
use vcpu::cpuid::Topology;
use vcpu::memory::Ram;
use vcpu::vcpus::Vcpus;

/// How long replies, events and console output may take to reach slow readers at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// A guest and everything that belongs to it.
pub(super) struct Machine {
    name: Option<String>,
    actions: Actions,
    ram: Arc<Ram>,
    boot: Arc<Boot>,
    board: Board,
    vcpus: Vcpus,
    apic_ids: Vec<u32>,
    topology: Topology,
    /// vCPUs that this host's KVM takes.
    cpus_max: u32,
    /// Bytes.
    ram_size: u64,
    devices: DeviceTree,
    drives: Arc<DriveTable>,
    block: Arc<BlockGraph>,
    events: EventSink,
    requests: Arc<Requests>,
    state: Mutex<RunState>,
    /// Held over a change of the run state, so that a stop, a reset and a cont do not mix.
    transition: reactor::sync::Mutex<()>,
}

impl Machine {
    /// Plugs the devices into what has been prepared.
    async fn new(
        prepared: Prepared,
        config: &Config,
        reactors: &Reactors,
        (drives, block): (Arc<DriveTable>, Arc<BlockGraph>),
        events: EventSink,
    ) -> Result<Self, String> {
        let Prepared { platform, ram, boot, board, vcpus, apic_ids, cpus_max, requests, .. } =
            prepared;
        let objects = devices::make_objects(reactors.cores(), &config.objects).await?;
        let devices = devices::tree(devices::Parts {
            reactors,
            board: &board,
            platform,
            ram: Arc::clone(&ram),
            cpus: vcpus.count(),
            drives: Arc::clone(&drives),
            objects,
            events: events.clone(),
        });
        devices::plug_all(&devices, &config.devices).await?;
        Ok(Self {
            name: config.name.clone(),
            actions: Actions::new(config.actions),
            ram,
            boot,
            board,
            vcpus,
            apic_ids,
            topology: config.topology,
            cpus_max,
            ram_size: config.ram_size,
            devices,
            drives,
            block,
            events,
            requests,
            state: Mutex::new(RunState::Prelaunch),
            transition: reactor::sync::Mutex::new(()),
        })
    }

    fn run_state(&self) -> RunState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_run_state(&self, state: RunState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Runs a machine to its end, in `main`. Returns the guest's exit status. The error is one line for
/// the user.
pub(crate) async fn run(
    reactors: Reactors,
    config: Config,
    prepared: Prepared,
    signals: Signals,
) -> Result<u8, String> {
    let block = BlockGraph::new(&reactors);
    let drives = disks::open_all(&config.drives, &block).await?;
    let console = console_fd(&config.serial).await?;
    let monitor = Arc::new(Monitor::new(&reactors));
    let (output, requests) = (Arc::clone(&prepared.output), Arc::clone(&prepared.requests));
    let machine =
        Machine::new(prepared, &config, &reactors, (drives, block), monitor.events()).await?;
    let machine = Arc::new(machine);
    listen(&monitor, &config)?;
    let controlled = Arc::clone(&machine) as Arc<dyn monitor::Machine>;
    if config.preconfig {
        monitor.start_preconfig(controlled);
    } else {
        monitor.start(controlled);
    }
    serve_console(&reactors, &config, &machine, &monitor, &output, console);
    let on_signal = Arc::clone(&requests);
    let signals = reactors.main().spawn("signals", async move {
        match signals.next().await {
            Ok(_) => on_signal.exit(ShutdownCause::HostSignal, 0),
            Err(error) => tracing::warn!(%error, "signals cannot be read"),
        }
    });
    // What no client ends can still be ended by a signal.
    let _released = select(pin!(monitor.preconfig_ended()), pin!(requests.exit_asked())).await;
    if !config.start_paused {
        let _released = select(pin!(monitor.wait_for_clients()), pin!(requests.exit_asked())).await;
        machine.start().await;
    }
    let result = life::run(&machine).await;
    signals.cancel();
    monitor.shutdown(FAREWELL).await;
    if reactor::timeout(FAREWELL, output.close()).await.is_err() {
        tracing::warn!("the console's reader is too slow; its last output is lost");
    }
    result
}

fn listen(monitor: &Monitor, config: &Config) -> Result<(), String> {
    for endpoint in &config.qmp {
        monitor.listen_qmp(endpoint, Style::Line).map_err(|error| format!("-qmp: {error}"))?;
        if let (None, Address::Unix(path)) = (&config.kernel, &endpoint.address) {
            eprintln!("ringvisor: QMP socket {}", path.display());
        }
    }
    for endpoint in &config.hmp {
        monitor.listen_hmp(endpoint).map_err(|error| format!("-monitor: {error}"))?;
    }
    Ok(())
}

/// Where the console's output goes; `None`: nowhere.
async fn console_fd(serial: &SerialConfig) -> Result<Option<Fd>, String> {
    match serial {
        SerialConfig::Null => Ok(None),
        SerialConfig::Stdio { .. } => std::os::fd::AsFd::as_fd(&std::io::stdout())
            .try_clone_to_owned()
            .map(|fd| Some(Fd::from(fd)))
            .map_err(|error| format!("stdout cannot be used: {error}")),
        SerialConfig::File(path) => {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
            let fd = reactor::io::openat(path, flags, 0o644).await;
            fd.map(Some).map_err(|error| format!("-serial file:{}: {error}", path.display()))
        }
    }
}

fn serve_console(
    reactors: &Reactors,
    config: &Config,
    machine: &Arc<Machine>,
    monitor: &Arc<Monitor>,
    output: &Arc<Output>,
    fd: Option<Fd>,
) {
    let serial = Arc::clone(&machine.board.serial);
    output.connect(Arc::clone(&serial));
    match fd {
        Some(fd) => {
            reactors.iohandler().spawn("console output", Arc::clone(output).serve(fd)).detach();
        }
        None => output.discard(),
    }
    if let SerialConfig::Stdio { mux } = config.serial {
        let requests = Arc::clone(&machine.requests);
        let stdin = console::Stdin {
            serial,
            output: Arc::clone(output),
            monitor: mux.then(|| Arc::clone(monitor)),
            exit: Box::new(move || requests.exit(ShutdownCause::HostUi, 0)),
        };
        let make = move || console::serve_stdin(stdin);
        reactors.iohandler().spawn_local_with("console input", make).detach();
    }
}
