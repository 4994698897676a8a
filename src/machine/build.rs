//! Building a machine: all that blocks, before the reactors start; the rest is plugged in `main`.

use super::requests::Requests;
use crate::config::Config;
use devices::board::{Board, BoardConfig};
use devices::chardev::BytePort;
use devices::clock::HostClock;
use std::sync::Arc;
use vcpu::address_space::AddressSpace;
use vcpu::boot::{Boot, BootConfig, BootState, KernelSource};
use vcpu::bus::Space;
use vcpu::cpuid::Topology;
use vcpu::irq::Platform;
use vcpu::kvm::{Kvm, Vm};
use vcpu::memory::{self, Ram, RamConfig, layout};
use vcpu::vcpus::{Vcpus, VcpusConfig};

/// A machine without its disks; its vCPUs stand still.
pub(crate) struct Prepared {
    pub(super) platform: Arc<dyn Platform>,
    pub(super) ram: Arc<Ram>,
    pub(super) boot: Arc<Boot>,
    pub(super) board: Board,
    pub(super) vcpus: Vcpus,
    pub(super) apic_ids: Vec<u32>,
    pub(super) cpus_max: u32,
    pub(super) output: Arc<BytePort>,
    pub(super) requests: Arc<Requests>,
}

impl Prepared {
    /// Opens KVM, reserves the guest's memory, makes the board and the vCPUs and reads the kernel
    /// into memory. Blocks; before any reactor. The error is one line for the user.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let boot = open_kernel(config)?;
        let kvm = open_kvm(config)?;
        let ram = memory::build(&RamConfig::new(config.ram_size))
            .map_err(|error| format!("-m: {error}"))?;
        let vm = Vm::new(kvm, Arc::clone(&ram)).map_err(|error| error.to_string())?;
        let platform: Arc<dyn Platform> = Arc::clone(&vm) as Arc<dyn Platform>;
        let (pio, mmio) = (AddressSpace::new(Space::Pio), AddressSpace::new(Space::Mmio));
        let (output, requests) = (BytePort::new(), Arc::new(Requests::default()));
        let cpus = config.topology.count();
        let from_guest = Arc::clone(&requests);
        let board = Board::new(BoardConfig {
            platform: Arc::clone(&platform),
            pio: Arc::clone(&pio),
            mmio: Arc::clone(&mmio),
            ram_size: config.ram_size,
            cpus,
            cpus_max: cpus,
            pci64: layout::pci64_window(config.ram_size, memory::host_phys_bits()),
            clock: Arc::new(HostClock::new()),
            console: Arc::clone(&output) as _,
            debug_console: None,
            requests: Arc::new(move |request| from_guest.guest(request)),
        })
        .map_err(|error| error.to_string())?;
        let apic_ids = apic_ids(config.topology);
        let state = install(&board, &ram, &boot, &apic_ids)?;
        let from_vcpus = Arc::clone(&requests);
        let vcpus = VcpusConfig {
            topology: config.topology,
            cpu: config.cpu.clone(),
            pio,
            mmio,
            events: Arc::new(move |event| from_vcpus.vcpu(event)),
        };
        let vcpus = Vcpus::new(&vm, vcpus, state).map_err(|error| error.to_string())?;
        let (boot, cpus_max) = (Arc::new(boot), vm.max_vcpus());
        Ok(Self { platform, ram, boot, board, vcpus, apic_ids, cpus_max, output, requests })
    }
}

fn open_kernel(config: &Config) -> Result<Boot, String> {
    let kernel = match &config.kernel {
        Some(path) => KernelSource::File(path.clone()),
        None => KernelSource::Embedded { name: "the embedded guest", bytes: guest::EMBEDDED },
    };
    let (initrd, cmdline) = (config.initrd.clone(), config.append.clone());
    let boot = BootConfig { kernel, initrd, cmdline };
    Boot::open(boot, config.ram_size).map_err(|error| error.to_string())
}

fn open_kvm(config: &Config) -> Result<Kvm, String> {
    let kvm = Kvm::open().map_err(|error| error.to_string())?;
    let (cpus, most) = (config.topology.count(), kvm.max_vcpus());
    if cpus > most {
        return Err(format!("-smp {cpus}: this host's KVM takes {most} vCPUs at most"));
    }
    // The embedded guest is made for every kind of host; others may need to be told.
    if let Some(limits) = kvm.kind().limits().filter(|_| config.kernel.is_some()) {
        eprintln!("ringvisor: {limits}");
    }
    Ok(kvm)
}

fn apic_ids(topology: Topology) -> Vec<u32> {
    (0..topology.count()).map(|cpu| topology.apic_id(cpu)).collect()
}

/// Writes the ACPI tables and the kernel into memory.
fn install(board: &Board, ram: &Ram, boot: &Boot, apic_ids: &[u32]) -> Result<BootState, String> {
    let rsdp = board.install_acpi(ram, apic_ids).map_err(|error| error.to_string())?;
    boot.load(ram, Some(rsdp)).map_err(|error| error.to_string())
}
