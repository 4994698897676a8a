//! What the tests run on: reactors, a monitor with some commands of its own, a machine.

use super::client::Client;
use crate::EventSink;
use crate::core::{Core, Env};
use crate::event::{self, ShutdownCause};
use crate::machine::{Cpu, KvmInfo, Machine, RunState, reset_required};
use crate::registry::{Command, Registry};
use crate::wire::Style;
use crate::{
    Actions, BoxFuture, Endpoint, MemorySizeInfo, Monitor, PciDeviceClass, PciDeviceId,
    PciDeviceInfo, PciInfo, PciMemoryRegion, QmpError, commands, qapi_struct,
};
use devices::HostClock;
use devices::block::graph::BlockGraph;
use devices::chardev::Chardevs;
use devices::fdset::FdSets;
use devices::net::Network;
use devices::objects::Objects;
use devices::qdev::{Bus, BusKind, Device, DeviceTree, Resources, TreeConfig, Types, Unplug};
use devices::virtio::balloon::BalloonSlot;
use reactor::sync::{Notify, oneshot};
use reactor::{DrainToken, Fd, Reactors, io};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;
use vcpu::linear::Linear;
use vcpu::memory::Ram;
use vm_memory::GuestAddress;

/// Everything a test may touch, on a thread outside of the reactors.
pub(super) struct Stage {
    pub(super) path: PathBuf,
    pub(super) reactors: Reactors,
    pub(super) core: Arc<Core>,
    pub(super) machine: Arc<FakeMachine>,
    pub(super) events: EventSink,
    pub(super) gate: Arc<Gate>,
    pub(super) backend: Arc<Backend>,
    pub(super) monitor: Arc<Monitor>,
}

impl Stage {
    pub(super) fn connect(&self) -> Client {
        Client::connect(&self.path)
    }

    pub(super) fn client(&self) -> Client {
        Client::negotiated(&self.path)
    }

    /// Holds a context's thread until the returned sender is dropped.
    pub(super) fn block(context: &reactor::Context) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (entered, entering) = mpsc::channel();
        context.schedule_bh(move || {
            entered.send(()).unwrap();
            let _ = released.recv();
        });
        entering.recv().unwrap();
        release
    }

    pub(super) fn sessions(&self) -> usize {
        self.core.hub.sessions().len()
    }
}

/// Runs `test` against a monitor that serves `path` of a directory of its own.
pub(super) fn stage<T: Send + 'static>(test: impl FnOnce(&Stage) -> T + Send + 'static) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    stage_at(&path, test)
}

pub(super) fn stage_at<T: Send + 'static>(
    path: &Path,
    test: impl FnOnce(&Stage) -> T + Send + 'static,
) -> T {
    let path = path.to_owned();
    let cpus = reactor::allowed_cpus().unwrap();
    let config = reactor::Config::with_cores(vec![cpus[0]]);
    let result = reactor::run(config, move |reactors| async move {
        let gate = Arc::new(Gate::default());
        let backend = Arc::new(Backend::new());
        let registry = registry(&gate, &backend);
        let fdsets = FdSets::default();
        let monitor = Monitor::with_registry(&reactors, fdsets.clone(), registry);
        let monitor = Arc::new(monitor);
        let machine = Arc::new(FakeMachine::new(monitor.events(), &reactors, fdsets));
        monitor.listen_qmp(&Endpoint::unix(&path), Style::Line).unwrap();
        monitor.start(Arc::clone(&machine) as Arc<dyn Machine>);
        let stage = Stage {
            path,
            reactors,
            core: Arc::clone(monitor.core()),
            machine,
            events: monitor.events(),
            gate,
            backend,
            monitor: Arc::clone(&monitor),
        };
        let (done, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| test(&stage)));
            let _ = done.send(result);
        });
        let result = ended.await.unwrap();
        monitor.shutdown(Duration::from_secs(5)).await;
        result
    });
    result.unwrap().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Lets commands wait until the test says so.
#[derive(Default)]
pub(super) struct Gate {
    open: Notify,
    entered: Mutex<Option<mpsc::Sender<()>>>,
}

impl Gate {
    /// Gives a receiver that hears of each command that begins to wait.
    pub(super) fn watch(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        *self.entered.lock().unwrap() = Some(sender);
        receiver
    }

    /// Lets one command through.
    pub(super) fn open(&self) {
        self.open.notify_one();
    }

    fn enter(&self) {
        let entered = self.entered.lock().unwrap().clone();
        if let Some(entered) = entered {
            let _ = entered.send(());
        }
    }

    async fn pass(&self) {
        self.enter();
        self.open.notified().await;
    }
}

/// What `x-receive` has a request in flight to.
pub(super) struct Backend {
    pub(super) token: DrainToken,
    near: Fd,
    /// What is sent here answers the request.
    pub(super) far: Fd,
    /// Requests whose answer their command has seen.
    pub(super) seen: AtomicU64,
}

impl Backend {
    fn new() -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        let token = DrainToken::new();
        Self { token, near: near.into(), far: far.into(), seen: AtomicU64::new(0) }
    }
}

qapi_struct! {
    /// How much.
    pub struct Fill {
        /// Bytes.
        pub bytes: u64 = "bytes",
    }
}

fn here() -> String {
    reactor::current().name().to_owned()
}

fn registry(gate: &Arc<Gate>, backend: &Arc<Backend>) -> Registry<Env> {
    let mut registry = commands::registry();
    registry.add(Command::plain("x-where", "", |_: &Env, (): ()| Ok(here())));
    registry.add(Command::plain("x-where-oob", "", |_: &Env, (): ()| Ok(here())).allow_oob());
    registry.add(Command::coroutine("x-where-co", "", |_: Env, (): ()| async { Ok(here()) }));
    let turns = AtomicU64::new(0);
    registry.add(Command::plain("x-turn", "", move |_: &Env, (): ()| {
        Ok(turns.fetch_add(1, Ordering::Relaxed))
    }));
    let waits = Arc::clone(gate);
    registry.add(Command::coroutine("x-wait", "", move |_: Env, (): ()| {
        let gate = Arc::clone(&waits);
        async move {
            gate.pass().await;
            Ok(here())
        }
    }));
    let sleeps = Arc::clone(gate);
    registry.add(Command::coroutine("x-sleep", "", move |_: Env, (): ()| {
        let gate = Arc::clone(&sleeps);
        async move {
            gate.enter();
            reactor::sleep(Duration::from_secs(5)).await;
            Ok(here())
        }
    }));
    let (receives, backend) = (Arc::clone(gate), Arc::clone(backend));
    registry.add(Command::coroutine("x-receive", "", move |_: Env, (): ()| {
        let (gate, backend) = (Arc::clone(&receives), Arc::clone(&backend));
        backend.token.clone().tag(async move {
            gate.enter();
            let (received, _) = io::recv(&backend.near, vec![0; 16]).await;
            assert!(received.unwrap() > 0);
            backend.seen.fetch_add(1, Ordering::SeqCst);
            Ok(here())
        })
    }));
    registry.add(Command::plain("x-fill", "", |_: &Env, fill: Fill| {
        Ok("x".repeat(usize::try_from(fill.bytes).unwrap()))
    }));
    registry.add(Command::plain("x-panic", "", |_: &Env, (): ()| -> Result<(), QmpError> {
        panic!("on purpose")
    }));
    registry.add(Command::coroutine("x-panic-co", "", |_: Env, (): ()| async {
        assert!(!reactor::on_reactor(), "on purpose");
        Ok(())
    }));
    registry
}

/// A machine without a guest.
pub(super) struct FakeMachine {
    state: Mutex<RunState>,
    events: EventSink,
    pub(super) quits: Mutex<u32>,
    pub(super) nmis: Mutex<u32>,
    /// What `stop` has to pass.
    pub(super) stops_at: Mutex<Option<Arc<Gate>>>,
    pub(super) actions: Actions,
    pub(super) ram: Ram,
    block: Arc<BlockGraph>,
    pub(super) chardevs: Chardevs,
    network: Arc<Network>,
    pub(super) balloon: Arc<BalloonSlot>,
    /// For tests that plug devices in.
    pub(super) tree: OnceLock<DeviceTree>,
}

/// A bus that is full.
struct Full;

impl BusKind for Full {
    fn plug(&self, _: &Bus, _: &Device) -> Result<u32, devices::CommandError> {
        Err(devices::CommandError::generic("PCI: no slot/function available"))
    }

    fn request_unplug(&self, _: &Device) -> Result<Unplug, devices::CommandError> {
        Ok(Unplug::Now)
    }

    fn unplug(&self, _: &Device) {}
}

/// The size of its memory.
pub(super) const RAM_BYTES: u64 = 1 << 20;

impl FakeMachine {
    pub(super) fn new(events: EventSink, reactors: &Reactors, fdsets: FdSets) -> Self {
        let chardevs = Chardevs::with_fdsets(reactors.iohandler(), fdsets.clone(), || {});
        Self {
            state: Mutex::new(RunState::Running),
            balloon: Arc::new(BalloonSlot::new(
                RAM_BYTES,
                events.balloon(),
                Arc::new(HostClock::new()),
            )),
            network: Network::new(reactors.iohandler(), events.network()),
            events,
            quits: Mutex::new(0),
            nmis: Mutex::new(0),
            stops_at: Mutex::default(),
            ram: Ram::from_ranges(&[(GuestAddress(0), RAM_BYTES as usize)]).unwrap(),
            actions: Actions::default(),
            block: BlockGraph::with(reactors, Arc::new(HostClock::new()), fdsets),
            chardevs,
            tree: OnceLock::new(),
        }
    }

    /// Gives the machine a bus for devices, which takes none.
    pub(super) fn add_bus(&self, reactors: &Reactors) {
        let mmio = vcpu::address_space::AddressSpace::new(vcpu::bus::Space::Mmio);
        let ram = Ram::from_ranges(&[(GuestAddress(0), RAM_BYTES as usize)]).unwrap();
        let ram = Arc::new(ram);
        let memory = vcpu::qtest::PhysicalMemory::new(Arc::clone(&ram), &mmio);
        let tree = DeviceTree::new(TreeConfig {
            main: reactors.main().clone(),
            resources: Resources {
                platform: vcpu::qtest::Qtest::new(memory, |_, _| {}),
                ram,
                cores: reactors.cores().to_vec(),
                cpus: 1,
                clock: Arc::new(HostClock::new()),
                block: Arc::clone(&self.block),
                objects: Objects::new(reactors.cores()),
                network: Arc::clone(&self.network),
                chardevs: self.chardevs.clone(),
                balloon: Arc::clone(&self.balloon),
                port_opened: Arc::new(|_, _| {}),
            },
            root: Bus::new("pci.0", "PCI", "/machine/pci.0", Box::new(Full)),
            types: Types::new(),
            events: Arc::new(self.events.clone()),
        });
        assert!(self.tree.set(tree).is_ok(), "one bus");
    }

    pub(super) fn set(&self, state: RunState) -> RunState {
        std::mem::replace(&mut self.state.lock().unwrap(), state)
    }
}

/// Yields once, as a real machine would, and asserts where it runs.
async fn in_main(act: impl FnOnce() -> Result<(), QmpError>) -> Result<(), QmpError> {
    assert_eq!(reactor::current().name(), "main");
    reactor::yield_now().await;
    assert_eq!(reactor::current().name(), "main");
    act()
}

impl Machine for FakeMachine {
    fn block(&self) -> &Arc<BlockGraph> {
        &self.block
    }

    fn balloon(&self) -> Option<&BalloonSlot> {
        Some(&*self.balloon)
    }

    fn network(&self) -> Option<&Arc<Network>> {
        Some(&self.network)
    }

    fn name(&self) -> Option<String> {
        Some("fake".to_owned())
    }

    fn chardevs(&self) -> &Chardevs {
        &self.chardevs
    }

    fn run_state(&self) -> RunState {
        *self.state.lock().unwrap()
    }

    fn kvm(&self) -> KvmInfo {
        KvmInfo { enabled: true, present: true }
    }

    fn cpus(&self) -> Vec<Cpu> {
        let cpu = |(n, thread_id)| Cpu { thread_id, socket: 0, core: n, thread: 0 };
        (0..).zip([101, 102]).map(cpu).collect()
    }

    fn actions(&self) -> &Actions {
        &self.actions
    }

    fn devices(&self) -> Option<&DeviceTree> {
        self.tree.get()
    }

    fn ram(&self) -> Option<&Ram> {
        Some(&self.ram)
    }

    fn linear(&self, _: u32) -> BoxFuture<'_, Result<Linear, QmpError>> {
        Box::pin(async { in_main(|| Ok(())).await.map(|()| Linear::flat()) })
    }

    fn inject_nmi(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(in_main(|| {
            *self.nmis.lock().unwrap() += 1;
            Ok(())
        }))
    }

    fn memory_size(&self) -> MemorySizeInfo {
        MemorySizeInfo { base_memory: 64 << 20, plugged_memory: Some(0) }
    }

    fn can_wake_up(&self) -> bool {
        true
    }

    fn pci(&self) -> Vec<PciInfo> {
        let region = |bar, ty: &str, address, prefetch, wide| PciMemoryRegion {
            bar,
            ty: ty.to_owned(),
            address,
            size: 0x1000,
            prefetch,
            mem_type_64: wide,
        };
        let device = PciDeviceInfo {
            bus: 0,
            slot: 3,
            function: 0,
            class_info: PciDeviceClass::new(0x0100),
            id: PciDeviceId {
                device: 0x1042,
                vendor: 0x1af4,
                subsystem: Some(0x1100),
                subsystem_vendor: Some(0x1af4),
            },
            irq: Some(11),
            irq_pin: 1,
            qdev_id: "disk0".to_owned(),
            pci_bridge: None,
            regions: vec![
                region(0, "io", -1, None, None),
                region(4, "memory", 0xfebf_0000, Some(true), Some(true)),
            ],
        };
        vec![PciInfo { bus: 0, devices: vec![device] }]
    }

    fn system_wakeup(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(in_main(|| {
            self.set(RunState::Running);
            Ok(())
        }))
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            let gate = self.stops_at.lock().unwrap().clone();
            if let Some(gate) = gate {
                gate.pass().await;
            }
            in_main(|| {
                if self.set(RunState::Paused) == RunState::Running {
                    self.events.emit(&event::Stop {});
                }
                Ok(())
            })
            .await
        })
    }

    fn cont(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(in_main(|| {
            if self.run_state().needs_reset() {
                return Err(reset_required());
            }
            if self.set(RunState::Running) != RunState::Running {
                self.events.emit(&event::Resume {});
            }
            Ok(())
        }))
    }

    fn system_reset(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(in_main(|| {
            let reason = ShutdownCause::HostQmpSystemReset;
            self.events.emit(&event::Reset { guest: false, reason });
            Ok(())
        }))
    }

    fn system_powerdown(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(in_main(|| {
            self.events.emit(&event::Powerdown {});
            Ok(())
        }))
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(in_main(|| {
            *self.quits.lock().unwrap() += 1;
            let reason = ShutdownCause::HostQmpQuit;
            self.events.emit(&event::Shutdown { guest: false, reason });
            Ok(())
        }))
    }
}
