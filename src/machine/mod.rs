//! A machine: from a configuration to a running guest, and its life until the process ends.
//!
//! `main` owns the machine. vCPU threads, signals and monitors only leave requests
//! ([`requests`]), which the loop in [`life`] takes up one at a time. A machine under test is driven from
//! outside ([`test`]).

mod build;
mod control;
mod devices;
mod disks;
mod life;
mod pci;
mod processors;
mod requests;
mod state;
mod streams;
mod test;

use build::Prepared;
pub(crate) use build::Preparing;

use crate::config::{Config, MachineType};
use ::devices::block::graph::BlockGraph;
use ::devices::board::Board;
use ::devices::chardev::{BytePort, Chardevs};
use ::devices::fdset::FdSets;
use ::devices::net::Network;
use ::devices::qdev::DeviceTree;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use monitor::event::ShutdownCause;
use monitor::{Actions, EventSink, KvmInfo, Monitor, RunState, Uuid};
use processors::Processors;
use reactor::{Reactors, signal::Signals};
use requests::Requests;
use state::State;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use vcpu::cpuid::Topology;
use vcpu::memory::Ram;

/// How long replies, events and console output may take to reach slow readers at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// A guest and everything that belongs to it.
pub(super) struct Machine {
    kind: MachineType,
    name: Option<String>,
    uuid: Uuid,
    chardevs: Chardevs,
    network: Arc<Network>,
    actions: Actions,
    ram: Arc<Ram>,
    board: Board,
    processors: Processors,
    kvm: KvmInfo,
    apic_ids: Vec<u32>,
    topology: Topology,
    /// vCPUs that this host's KVM takes.
    cpus_max: u32,
    /// Bytes.
    ram_size: u64,
    devices: DeviceTree,
    block: Arc<BlockGraph>,
    events: EventSink,
    requests: Arc<Requests>,
    state: State,
}

impl Machine {
    /// Plugs the devices into what has been prepared.
    async fn new(
        prepared: Prepared,
        requests: Arc<Requests>,
        config: &mut Config,
        reactors: &Reactors,
        block: Arc<BlockGraph>,
        events: EventSink,
        chardevs: Chardevs,
    ) -> Result<Self, String> {
        let Prepared { platform, ram, board, processors, apic_ids, .. } = prepared;
        let Prepared { cpus_max, kvm, clock, .. } = prepared;
        let objects =
            devices::make_objects(reactors.cores(), chardevs.fdsets(), &block, config).await?;
        disks::open_all(&config.nodes, &config.drives, &block).await?;
        let netdevs = std::mem::take(&mut config.netdevs);
        let network = devices::make_netdevs(reactors, &events, netdevs)?;
        let devices = devices::tree(devices::Parts {
            machine: config.machine,
            reactors,
            board: &board,
            platform,
            ram: Arc::clone(&ram),
            cpus: processors.count(),
            block: Arc::clone(&block),
            objects,
            network: Arc::clone(&network),
            chardevs: chardevs.clone(),
            ram_size: config.memory.size,
            clock,
            events: events.clone(),
        });
        devices::plug_all(&devices, &config.devices).await?;
        // Ports change what the tables say; they are where they were.
        board.install_acpi(&ram, &apic_ids).map_err(|error| error.to_string())?;
        Ok(Self {
            kind: config.machine,
            name: config.name.clone(),
            uuid: config.uuid,
            chardevs,
            network,
            actions: Actions::new(config.actions),
            ram,
            board,
            processors,
            kvm,
            apic_ids,
            topology: config.topology,
            cpus_max,
            ram_size: config.memory.size,
            devices,
            block,
            events,
            requests,
            state: State::new(RunState::Prelaunch),
        })
    }
}

/// Runs a machine to its end, in `main`. Returns the guest's exit status. The error is one line for
/// the user.
pub(crate) async fn run(
    reactors: Reactors,
    mut config: Config,
    preparing: Preparing,
    signals: Signals,
) -> Result<u8, String> {
    let requests = Arc::clone(&preparing.requests);
    let exit = move || requests.exit(ShutdownCause::HostUi, 0);
    let fdsets = FdSets::default();
    streams::add_fds(&fdsets, std::mem::take(&mut config.add_fds))?;
    let chardevs = Chardevs::with_fdsets(reactors.iohandler(), fdsets, exit);
    chardevs.hold_input();
    let opened = streams::open(&chardevs, std::mem::take(&mut config.chardevs)).await;
    let result = match opened {
        Ok(()) => {
            let monitor = Monitor::with_fdsets(&reactors, chardevs.fdsets().clone());
            let result = run_with(reactors, config, preparing, signals, &chardevs, &monitor).await;
            if result.is_err() {
                // Its clients may have been greeted already.
                monitor.shutdown(FAREWELL).await;
            }
            result
        }
        Err(error) => Err(error),
    };
    chardevs.clear();
    result
}

async fn run_with(
    reactors: Reactors,
    mut config: Config,
    preparing: Preparing,
    signals: Signals,
    chardevs: &Chardevs,
    monitor: &Monitor,
) -> Result<u8, String> {
    // Clients are greeted while the machine is built, and answered when it is there.
    let paths = streams::listen(monitor, &config)?;
    streams::serve(monitor, chardevs, &config, false)?;
    let requests = Arc::clone(&preparing.requests);
    let mut prepared = preparing.done().await?;
    let block = BlockGraph::with(&reactors, Arc::clone(&prepared.clock), chardevs.fdsets().clone());
    let output = Arc::clone(&prepared.output);
    let test = prepared.test.take();
    if let Some(test) = &test {
        test.attach(&reactors);
    }
    disks::tell_errors(&block, monitor.events(), Arc::clone(&requests));
    disks::tell_trays(&block, monitor.events());
    let (events, table) = (monitor.events(), chardevs.clone());
    let asked = Arc::clone(&requests);
    let machine = Machine::new(prepared, asked, &mut config, &reactors, block, events, table);
    let machine = Arc::new(machine.await?);
    for path in paths {
        eprintln!("ringvisor: QMP socket {}", path.display());
    }
    // The serial port first: where a monitor shares its character device, the focus is on the port.
    streams::connect_serial(&reactors, chardevs, &config, &machine.board.serial, &output)?;
    streams::serve(monitor, chardevs, &config, true)?;
    chardevs.pass_input();
    let replies = match (test, &config.qtest) {
        (Some(test), Some(qtest)) => Some(test.serve(qtest, &reactors, chardevs, &machine).await?),
        _ => None,
    };
    let controlled = Arc::clone(&machine) as Arc<dyn monitor::Machine>;
    if config.preconfig {
        monitor.start_preconfig(controlled);
    } else {
        monitor.start(controlled);
    }
    let on_signal = Arc::clone(&requests);
    let signals = reactors.main().spawn("signals", async move {
        match signals.next().await {
            Ok(_) => on_signal.exit(ShutdownCause::HostSignal, 0),
            Err(error) => tracing::warn!(%error, "signals cannot be read"),
        }
    });
    start(&machine, monitor, chardevs, !config.start_paused).await;
    let result = life::run(&machine).await;
    machine.network.netdevs().close();
    signals.cancel();
    monitor.shutdown(FAREWELL).await;
    if let Some(replies) = replies
        && reactor::timeout(FAREWELL, replies.idle()).await.is_err()
    {
        tracing::warn!("the qtest program is too slow; its last replies are lost");
    }
    farewell(chardevs, &output).await;
    result
}

/// Waits for what is on its way to slow readers.
async fn farewell(chardevs: &Chardevs, output: &BytePort) {
    let sent = async {
        output.close().await;
        chardevs.settled().await;
    };
    if reactor::timeout(FAREWELL, sent).await.is_err() {
        tracing::warn!("the reader of a character device is too slow; the last output is lost");
    }
}

/// Waits for whom the options say to wait for, and lets the machine run if it `shall_run`.
async fn start(machine: &Machine, monitor: &Monitor, chardevs: &Chardevs, shall_run: bool) {
    let requests = &machine.requests;
    // What no client ends can still be ended by a signal.
    let mut leaving =
        match select(pin!(monitor.preconfig_ended()), pin!(requests.exit_asked())).await {
            Either::Left((leaving, _)) => Some(leaving),
            Either::Right(_) => None,
        };
    if !shall_run {
        return;
    }
    let clients = async || {
        monitor.wait_for_clients().await;
        chardevs.wait_for_clients().await;
    };
    if pin!(clients()).now_or_never().is_none() {
        // `quit` must not wait for who may never come.
        leaving = None;
        let _released = select(pin!(clients()), pin!(requests.exit_asked())).await;
    }
    machine.start().await;
    drop(leaving);
}
