//! Building a machine, in two steps: what can be refused before anything exists, then the machine.

use super::Machine;
use super::disks;
use super::requests::Requests;
use crate::config::Config;
use crate::console::Output;
use devices::block::Disk;
use devices::board::{Board, BoardConfig};
use devices::clock::HostClock;
use monitor::{EventSink, RunState};
use reactor::Reactors;
use std::sync::{Arc, Mutex};
use vcpu::address_space::AddressSpace;
use vcpu::boot::{Boot, BootConfig, KernelSource};
use vcpu::bus::Space;
use vcpu::irq::Platform;
use vcpu::kvm::{Kvm, Vm};
use vcpu::memory::{self, Ram, RamConfig, layout};
use vcpu::vcpus::{Vcpus, VcpusConfig};

/// What has been checked and reserved before the reactors start.
pub(crate) struct Prepared {
    vm: Arc<Vm>,
    ram: Arc<Ram>,
    boot: Arc<Boot>,
}

impl Prepared {
    /// Opens KVM, reserves the guest's memory and reads the kernel's headers. Blocks; before any
    /// reactor. The error is one line for the user.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let kernel = match &config.kernel {
            Some(path) => KernelSource::File(path.clone()),
            None => KernelSource::Embedded { name: "the embedded guest", bytes: guest::EMBEDDED },
        };
        let embedded = config.kernel.is_none();
        let boot =
            BootConfig { kernel, initrd: config.initrd.clone(), cmdline: config.append.clone() };
        let boot = Boot::open(boot, config.ram_size).map_err(|error| error.to_string())?;
        let kvm = Kvm::open().map_err(|error| error.to_string())?;
        let cpus = config.topology.count();
        if cpus > kvm.max_vcpus() {
            return Err(format!(
                "-smp {cpus}: this host's KVM takes {} vCPUs at most",
                kvm.max_vcpus()
            ));
        }
        if let Some(limits) = kvm.kind().limits().filter(|_| !embedded) {
            eprintln!("ringvisor: {limits}");
        }
        let ram = memory::build(&RamConfig::new(config.ram_size))
            .map_err(|error| format!("-m: {error}"))?;
        let vm = Vm::new(kvm, Arc::clone(&ram)).map_err(|error| error.to_string())?;
        Ok(Self { vm, ram, boot: Arc::new(boot) })
    }

    /// Makes the devices and the vCPUs, which stand still. Reads the kernel into memory: blocks
    /// for that long, before the machine runs.
    pub(super) fn build(
        self,
        config: &Config,
        reactors: &Reactors,
        images: Vec<Arc<dyn Disk>>,
        events: EventSink,
        output: &Arc<Output>,
        requests: &Arc<Requests>,
    ) -> Result<Machine, String> {
        let cpus = config.topology.count();
        let apic_ids: Vec<u32> = (0..cpus).map(|cpu| config.topology.apic_id(cpu)).collect();
        let platform: Arc<dyn Platform> = Arc::clone(&self.vm) as Arc<dyn Platform>;
        let (pio, mmio) = (AddressSpace::new(Space::Pio), AddressSpace::new(Space::Mmio));
        let from_guest = Arc::clone(requests);
        let board = Board::new(BoardConfig {
            platform: Arc::clone(&platform),
            pio: Arc::clone(&pio),
            mmio: Arc::clone(&mmio),
            ram_size: config.ram_size,
            cpus,
            cpus_max: cpus,
            pci64: layout::pci64_window(config.ram_size, memory::host_phys_bits()),
            clock: Arc::new(HostClock::new()),
            console: Arc::clone(output) as _,
            debug_console: None,
            requests: Arc::new(move |request| from_guest.guest(request)),
        })
        .map_err(|error| error.to_string())?;
        let mut devices = Vec::new();
        for (disk, image) in config.disks.iter().zip(images) {
            let device =
                disks::plug(disk, image, cpus, reactors, &self.ram, &platform, &board.pci)?;
            devices.push(device);
        }
        let boot = install(&board, &self.ram, &self.boot, &apic_ids)?;
        let from_vcpus = Arc::clone(requests);
        let vcpus = VcpusConfig {
            topology: config.topology,
            cpu: config.cpu.clone(),
            pio,
            mmio,
            events: Arc::new(move |event| from_vcpus.vcpu(event)),
        };
        let vcpus = Vcpus::new(&self.vm, vcpus, boot).map_err(|error| error.to_string())?;
        Ok(Machine {
            name: config.name.clone(),
            no_reboot: config.no_reboot,
            no_shutdown: config.no_shutdown,
            ram: self.ram,
            boot: self.boot,
            board,
            vcpus,
            apic_ids,
            disks: devices,
            events,
            requests: Arc::clone(requests),
            state: Mutex::new(RunState::Prelaunch),
            transition: reactor::sync::Mutex::new(()),
        })
    }
}

/// Writes the ACPI tables and the kernel into memory.
fn install(
    board: &Board,
    ram: &Ram,
    boot: &Boot,
    apic_ids: &[u32],
) -> Result<vcpu::boot::BootState, String> {
    let rsdp = board.install_acpi(ram, apic_ids).map_err(|error| error.to_string())?;
    boot.load(ram, Some(rsdp)).map_err(|error| error.to_string())
}
