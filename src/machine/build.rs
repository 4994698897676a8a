//! Building a machine: all that blocks, on a thread of its own; the rest is plugged in `main`.
//!
//! KVM waits for grace periods of the kernel when it makes a VM and gives it memory. Meanwhile the reactors
//! start and the monitors greet their clients.

use super::processors::Processors;
use super::requests::Requests;
use super::test::Test;
use crate::config::{Accel, Config, MachineType};
use devices::board::{Board, BoardConfig};
use devices::chardev::BytePort;
use devices::clock::{Clock, HostClock};
use monitor::KvmInfo;
use reactor::sync::oneshot;
use std::path::PathBuf;
use std::sync::Arc;
use vcpu::address_space::AddressSpace;
use vcpu::boot::{Boot, BootConfig, KernelSource};
use vcpu::bus::Space;
use vcpu::cpuid::{CpuModel, Topology};
use vcpu::irq::Platform;
use vcpu::kvm::{Kvm, Vm};
use vcpu::memory::{self, Ram, RamConfig, layout};
use vcpu::vcpus::{Vcpus, VcpusConfig};

/// Processors that a machine without them may tell of: as many as the ACPI tables hold in one byte.
const CPUS_MAX: u32 = 255;

/// What of a configuration is built here.
struct Plan {
    machine: MachineType,
    accels: Vec<Accel>,
    memory: RamConfig,
    memory_backend: Option<String>,
    topology: Topology,
    cpu: CpuModel,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    append: String,
    /// A program outside looks on, or drives it.
    tested: bool,
}

impl Plan {
    fn of(config: &Config) -> Self {
        Self {
            machine: config.machine,
            accels: config.accels.clone(),
            memory: config.memory.clone(),
            memory_backend: config.memory_backend.clone(),
            topology: config.topology,
            cpu: config.cpu.clone(),
            kernel: config.kernel.clone(),
            initrd: config.initrd.clone(),
            append: config.append.clone(),
            tested: config.qtest.is_some(),
        }
    }
}

/// A machine that is being built.
pub(crate) struct Preparing {
    pub(super) requests: Arc<Requests>,
    built: oneshot::Receiver<Result<Prepared, String>>,
}

impl Preparing {
    /// Starts to build on another thread. To be called before the reactors start: vCPU threads inherit its
    /// CPUs.
    pub(crate) fn start(config: &Config) -> Result<Self, String> {
        let (plan, requests) = (Plan::of(config), Arc::new(Requests::default()));
        let (sender, built) = oneshot::channel();
        let from_guest = Arc::clone(&requests);
        let build = move || {
            // Nobody waits when the reactors do not start.
            let _ = sender.send(Prepared::new(&plan, &from_guest));
        };
        std::thread::Builder::new()
            .name("build".to_owned())
            .spawn(build)
            .map_err(|error| format!("no thread to build the machine on: {error}"))?;
        Ok(Self { requests, built })
    }

    /// The machine. The error is one line for the user. Any context.
    pub(super) async fn done(self) -> Result<Prepared, String> {
        self.built.await.map_err(|_| "the machine was not built".to_owned())?
    }
}

/// A machine without its disks; its vCPUs stand still.
pub(crate) struct Prepared {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) ram: Arc<Ram>,
    pub(super) board: Board,
    pub(super) processors: Processors,
    pub(super) kvm: KvmInfo,
    pub(super) apic_ids: Vec<u32>,
    pub(super) cpus_max: u32,
    pub(super) output: Arc<BytePort>,
    /// The guest's.
    pub(super) clock: Arc<dyn Clock>,
    /// For a program outside.
    pub(super) test: Option<Test>,
}

impl Prepared {
    /// Opens KVM, reserves the guest's memory, makes the board and the vCPUs and reads the kernel
    /// into memory. Blocks. The error is one line for the user.
    fn new(plan: &Plan, requests: &Arc<Requests>) -> Result<Self, String> {
        if plan.machine == MachineType::None {
            return Self::without_anything(plan, requests);
        }
        let mut refused = None;
        for accel in &plan.accels {
            match accel {
                Accel::Qtest => return Self::without_processors(plan, requests),
                Accel::Kvm => match open_kvm(plan) {
                    Ok(kvm) => return Self::on_kvm(plan, kvm, requests),
                    Err(error) => refused = Some(error),
                },
            }
        }
        Err(refused.unwrap_or_else(|| "-accel: there is kvm, and qtest".to_owned()))
    }

    fn on_kvm(plan: &Plan, kvm: Kvm, requests: &Arc<Requests>) -> Result<Self, String> {
        let boot = open_kernel(plan)?;
        // The embedded guest is made for every kind of host; others may need to be told.
        if let Some(limits) = kvm.kind().limits().filter(|_| plan.kernel.is_some()) {
            eprintln!("ringvisor: {limits}");
        }
        let ram = build_ram(plan)?;
        let vm = Vm::new(kvm, Arc::clone(&ram)).map_err(|error| error.to_string())?;
        let platform: Arc<dyn Platform> = Arc::clone(&vm) as Arc<dyn Platform>;
        let (pio, mmio) = (AddressSpace::new(Space::Pio), AddressSpace::new(Space::Mmio));
        let clock: Arc<dyn Clock> = Arc::new(HostClock::new());
        let basics = Basics {
            platform: Arc::clone(&platform),
            pio: Arc::clone(&pio),
            mmio: Arc::clone(&mmio),
            clock: Arc::clone(&clock),
        };
        let (board, output) = make_board(plan, basics, requests)?;
        let apic_ids = apic_ids(plan.topology);
        let rsdp = board.install_acpi(&ram, &apic_ids).map_err(|error| error.to_string())?;
        let state = boot.load(&ram, Some(rsdp)).map_err(|error| error.to_string())?;
        let from_vcpus = Arc::clone(requests);
        let vcpus = VcpusConfig {
            topology: plan.topology,
            cpu: plan.cpu.clone(),
            pio: Arc::clone(&pio),
            mmio: Arc::clone(&mmio),
            events: Arc::new(move |event| from_vcpus.vcpu(event)),
        };
        let vcpus = Vcpus::new(&vm, vcpus, state).map_err(|error| error.to_string())?;
        let test = plan.tested.then(|| Test::beside(&ram, &pio, &mmio, &platform));
        Ok(Self {
            platform,
            ram,
            board,
            processors: Processors::Kvm(vcpus, Arc::new(boot)),
            kvm: KvmInfo { present: true, enabled: true },
            apic_ids,
            cpus_max: vm.max_vcpus(),
            output,
            clock,
            test,
        })
    }

    /// A machine to ask questions of. Its board is connected with nothing.
    fn without_anything(plan: &Plan, requests: &Arc<Requests>) -> Result<Self, String> {
        let prepared = Self::without_processors(plan, requests)?;
        let unclaimed = AddressSpace::with_unclaimed(Space::Mmio, 0);
        let (test, _) = Test::alone(&prepared.ram, &AddressSpace::new(Space::Pio), &unclaimed);
        Ok(Self { processors: Processors::Absent(0), test: Some(test), ..prepared })
    }

    /// The accelerator for device tests: needs nothing of the host.
    fn without_processors(plan: &Plan, requests: &Arc<Requests>) -> Result<Self, String> {
        let ram = build_ram(plan)?;
        let pio = AddressSpace::new(Space::Pio);
        // Memory that nobody claims reads as zero here, and ports as all ones.
        let mmio = AddressSpace::with_unclaimed(Space::Mmio, 0);
        let (test, clock) = Test::alone(&ram, &pio, &mmio);
        let platform = Arc::clone(&test.platform);
        let clock: Arc<dyn Clock> = clock;
        let basics =
            Basics { platform: Arc::clone(&platform), pio, mmio, clock: Arc::clone(&clock) };
        let (board, output) = make_board(plan, basics, requests)?;
        let apic_ids = apic_ids(plan.topology);
        let rsdp = board.install_acpi(&ram, &apic_ids).map_err(|error| error.to_string())?;
        if plan.kernel.is_some() {
            open_kernel(plan)?.load(&ram, Some(rsdp)).map_err(|error| error.to_string())?;
        }
        Ok(Self {
            platform,
            ram,
            board,
            processors: Processors::Absent(plan.topology.count()),
            kvm: KvmInfo { present: Kvm::open().is_ok(), enabled: false },
            apic_ids,
            cpus_max: CPUS_MAX,
            output,
            clock,
            test: Some(test),
        })
    }
}

/// What accelerators differ in.
struct Basics {
    platform: Arc<dyn Platform>,
    pio: Arc<AddressSpace>,
    mmio: Arc<AddressSpace>,
    clock: Arc<dyn Clock>,
}

fn make_board(
    plan: &Plan,
    basics: Basics,
    requests: &Arc<Requests>,
) -> Result<(Board, Arc<BytePort>), String> {
    let output = BytePort::new();
    let cpus = plan.topology.count();
    let from_guest = Arc::clone(requests);
    let board = Board::new(BoardConfig {
        platform: basics.platform,
        pio: basics.pio,
        mmio: basics.mmio,
        ram_size: ram_bytes(plan),
        cpus,
        cpus_max: cpus,
        pci64: layout::pci64_window(ram_bytes(plan), memory::host_phys_bits()),
        clock: basics.clock,
        console: Arc::clone(&output) as _,
        debug_console: None,
        requests: Arc::new(move |request| from_guest.guest(request)),
    });
    Ok((board.map_err(|error| error.to_string())?, output))
}

fn build_ram(plan: &Plan) -> Result<Arc<Ram>, String> {
    let memory = RamConfig { size: ram_bytes(plan), ..plan.memory.clone() };
    memory::build(&memory).map_err(|error| match &plan.memory_backend {
        Some(id) => format!("Memory backend '{id}': {error}"),
        None => error.to_string(),
    })
}

/// A machine of nothing may have no memory that anybody sees; the least there can be is made.
fn ram_bytes(plan: &Plan) -> u64 {
    match plan.machine {
        MachineType::Pc => plan.memory.size,
        MachineType::None => plan.memory.size.max(layout::MIN_RAM),
    }
}

fn open_kernel(plan: &Plan) -> Result<Boot, String> {
    let kernel = match &plan.kernel {
        Some(path) => KernelSource::File(path.clone()),
        None => KernelSource::Embedded { name: "the embedded guest", bytes: guest::EMBEDDED },
    };
    let (initrd, cmdline) = (plan.initrd.clone(), plan.append.clone());
    let boot = BootConfig { kernel, initrd, cmdline };
    Boot::open(boot, plan.memory.size).map_err(|error| error.to_string())
}

fn open_kvm(plan: &Plan) -> Result<Kvm, String> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    let (cpus, most) = (plan.topology.count(), kvm.max_vcpus());
    if cpus > most {
        return Err(format!("-smp {cpus}: this host's KVM takes {most} vCPUs at most"));
    }
    Ok(kvm)
}

fn apic_ids(topology: Topology) -> Vec<u32> {
    (0..topology.count()).map(|cpu| topology.apic_id(cpu)).collect()
}
