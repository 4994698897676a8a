//! Building a machine: all that blocks, before the reactors start; the rest is plugged in `main`.

use super::processors::Processors;
use super::requests::Requests;
use super::test::Test;
use crate::config::{Accel, Config, MachineType};
use devices::board::{Board, BoardConfig};
use devices::chardev::BytePort;
use devices::clock::{Clock, HostClock};
use monitor::KvmInfo;
use std::sync::Arc;
use vcpu::address_space::AddressSpace;
use vcpu::boot::{Boot, BootConfig, KernelSource};
use vcpu::bus::Space;
use vcpu::cpuid::Topology;
use vcpu::irq::Platform;
use vcpu::kvm::{Kvm, Vm};
use vcpu::memory::{self, Ram, RamConfig, layout};
use vcpu::vcpus::{Vcpus, VcpusConfig};

/// Processors that a machine without them may tell of: as many as the ACPI tables hold in one byte.
const CPUS_MAX: u32 = 255;

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
    pub(super) requests: Arc<Requests>,
    /// The guest's.
    pub(super) clock: Arc<dyn Clock>,
    /// For a program outside.
    pub(super) test: Option<Test>,
}

impl Prepared {
    /// Opens KVM, reserves the guest's memory, makes the board and the vCPUs and reads the kernel
    /// into memory. Blocks; before any reactor. The error is one line for the user.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        if config.machine == MachineType::None {
            return Self::without_anything(config);
        }
        let mut refused = None;
        for accel in &config.accels {
            match accel {
                Accel::Qtest => return Self::without_processors(config),
                Accel::Kvm => match open_kvm(config) {
                    Ok(kvm) => return Self::on_kvm(config, kvm),
                    Err(error) => refused = Some(error),
                },
            }
        }
        Err(refused.unwrap_or_else(|| "-accel: there is kvm, and qtest".to_owned()))
    }

    fn on_kvm(config: &Config, kvm: Kvm) -> Result<Self, String> {
        let boot = open_kernel(config)?;
        // The embedded guest is made for every kind of host; others may need to be told.
        if let Some(limits) = kvm.kind().limits().filter(|_| config.kernel.is_some()) {
            eprintln!("ringvisor: {limits}");
        }
        let ram = build_ram(config)?;
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
        let (board, output, requests) = make_board(config, basics)?;
        let apic_ids = apic_ids(config.topology);
        let rsdp = board.install_acpi(&ram, &apic_ids).map_err(|error| error.to_string())?;
        let state = boot.load(&ram, Some(rsdp)).map_err(|error| error.to_string())?;
        let from_vcpus = Arc::clone(&requests);
        let vcpus = VcpusConfig {
            topology: config.topology,
            cpu: config.cpu.clone(),
            pio: Arc::clone(&pio),
            mmio: Arc::clone(&mmio),
            events: Arc::new(move |event| from_vcpus.vcpu(event)),
        };
        let vcpus = Vcpus::new(&vm, vcpus, state).map_err(|error| error.to_string())?;
        let test = config.qtest.is_some().then(|| Test::beside(&ram, &pio, &mmio, &platform));
        Ok(Self {
            platform,
            ram,
            board,
            processors: Processors::Kvm(vcpus, Arc::new(boot)),
            kvm: KvmInfo { present: true, enabled: true },
            apic_ids,
            cpus_max: vm.max_vcpus(),
            output,
            requests,
            clock,
            test,
        })
    }

    /// A machine to ask questions of. Its board is connected with nothing.
    fn without_anything(config: &Config) -> Result<Self, String> {
        let prepared = Self::without_processors(config)?;
        let unclaimed = AddressSpace::with_unclaimed(Space::Mmio, 0);
        let (test, _) = Test::alone(&prepared.ram, &AddressSpace::new(Space::Pio), &unclaimed);
        Ok(Self { processors: Processors::Absent(0), test: Some(test), ..prepared })
    }

    /// The accelerator for device tests: needs nothing of the host.
    fn without_processors(config: &Config) -> Result<Self, String> {
        let ram = build_ram(config)?;
        let pio = AddressSpace::new(Space::Pio);
        // Memory that nobody claims reads as zero here, and ports as all ones.
        let mmio = AddressSpace::with_unclaimed(Space::Mmio, 0);
        let (test, clock) = Test::alone(&ram, &pio, &mmio);
        let platform = Arc::clone(&test.platform);
        let clock: Arc<dyn Clock> = clock;
        let basics =
            Basics { platform: Arc::clone(&platform), pio, mmio, clock: Arc::clone(&clock) };
        let (board, output, requests) = make_board(config, basics)?;
        let apic_ids = apic_ids(config.topology);
        let rsdp = board.install_acpi(&ram, &apic_ids).map_err(|error| error.to_string())?;
        if config.kernel.is_some() {
            open_kernel(config)?.load(&ram, Some(rsdp)).map_err(|error| error.to_string())?;
        }
        Ok(Self {
            platform,
            ram,
            board,
            processors: Processors::Absent(config.topology.count()),
            kvm: KvmInfo { present: Kvm::open().is_ok(), enabled: false },
            apic_ids,
            cpus_max: CPUS_MAX,
            output,
            requests,
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
    config: &Config,
    basics: Basics,
) -> Result<(Board, Arc<BytePort>, Arc<Requests>), String> {
    let (output, requests) = (BytePort::new(), Arc::new(Requests::default()));
    let cpus = config.topology.count();
    let from_guest = Arc::clone(&requests);
    let board = Board::new(BoardConfig {
        platform: basics.platform,
        pio: basics.pio,
        mmio: basics.mmio,
        ram_size: ram_bytes(config),
        cpus,
        cpus_max: cpus,
        pci64: layout::pci64_window(ram_bytes(config), memory::host_phys_bits()),
        clock: basics.clock,
        console: Arc::clone(&output) as _,
        debug_console: None,
        requests: Arc::new(move |request| from_guest.guest(request)),
    });
    Ok((board.map_err(|error| error.to_string())?, output, requests))
}

fn build_ram(config: &Config) -> Result<Arc<Ram>, String> {
    let memory = RamConfig { size: ram_bytes(config), ..config.memory.clone() };
    memory::build(&memory).map_err(|error| match &config.memory_backend {
        Some(id) => format!("Memory backend '{id}': {error}"),
        None => error.to_string(),
    })
}

/// A machine of nothing may have no memory that anybody sees; the least there can be is made.
fn ram_bytes(config: &Config) -> u64 {
    match config.machine {
        MachineType::Pc => config.memory.size,
        MachineType::None => config.memory.size.max(layout::MIN_RAM),
    }
}

fn open_kernel(config: &Config) -> Result<Boot, String> {
    let kernel = match &config.kernel {
        Some(path) => KernelSource::File(path.clone()),
        None => KernelSource::Embedded { name: "the embedded guest", bytes: guest::EMBEDDED },
    };
    let (initrd, cmdline) = (config.initrd.clone(), config.append.clone());
    let boot = BootConfig { kernel, initrd, cmdline };
    Boot::open(boot, config.memory.size).map_err(|error| error.to_string())
}

fn open_kvm(config: &Config) -> Result<Kvm, String> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    let (cpus, most) = (config.topology.count(), kvm.max_vcpus());
    if cpus > most {
        return Err(format!("-smp {cpus}: this host's KVM takes {most} vCPUs at most"));
    }
    Ok(kvm)
}

fn apic_ids(topology: Topology) -> Vec<u32> {
    (0..topology.count()).map(|cpu| topology.apic_id(cpu)).collect()
}
