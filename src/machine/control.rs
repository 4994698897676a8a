//! What monitors may do with the machine.

use super::{Machine, pci};
use crate::config::MachineType;
use devices::block::graph::BlockGraph;
use devices::chardev::Chardevs;
use devices::net::Network;
use devices::qdev::DeviceTree;
use devices::virtio::balloon::BalloonSlot;
use monitor::event::{Powerdown, ShutdownCause};
use monitor::{
    Actions, BoxFuture, CommandLineOptionInfo, Cpu, KvmInfo, MachineInfo, MemorySizeInfo, PciInfo,
    QmpError, RunState, Uuid, reset_required,
};
use std::sync::Arc;
use vcpu::cpuid::Topology;
use vcpu::linear::Linear;
use vcpu::memory::Ram;

impl monitor::Machine for Machine {
    fn devices(&self) -> Option<&DeviceTree> {
        Some(&self.devices)
    }

    fn name(&self) -> Option<String> {
        self.name.clone()
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn chardevs(&self) -> &Chardevs {
        &self.chardevs
    }

    fn network(&self) -> Option<&Arc<Network>> {
        Some(&self.network)
    }

    fn balloon(&self) -> Option<&BalloonSlot> {
        Some(&self.devices.resources().balloon)
    }

    fn run_state(&self) -> RunState {
        self.state.get()
    }

    fn kvm(&self) -> KvmInfo {
        self.kvm.clone()
    }

    fn block(&self) -> &Arc<BlockGraph> {
        &self.block
    }

    fn actions(&self) -> &Actions {
        &self.actions
    }

    fn cpus(&self) -> Vec<Cpu> {
        let Topology { cores, threads, .. } = self.topology;
        let (cores, threads) = (cores.max(1), threads.max(1));
        let cpu = |(thread_id, index): (i32, u32)| Cpu {
            thread_id,
            socket: index / threads / cores,
            core: index / threads % cores,
            thread: index % threads,
        };
        self.processors.thread_ids().into_iter().zip(0..).map(cpu).collect()
    }

    fn ram(&self) -> Option<&Ram> {
        Some(&self.ram)
    }

    fn linear(&self, cpu: u32) -> BoxFuture<'_, Result<Linear, QmpError>> {
        Box::pin(async move {
            let linear = self.processors.linear(cpu).await;
            linear.map_err(|why| QmpError::generic(format!("CPU {cpu}: {why}")))
        })
    }

    fn inject_nmi(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async { self.processors.nmi().await.map_err(QmpError::generic) })
    }

    fn memory_size(&self) -> MemorySizeInfo {
        MemorySizeInfo { base_memory: self.ram_size, plugged_memory: Some(0) }
    }

    fn command_line_options(&self) -> Vec<CommandLineOptionInfo> {
        crate::cli::options::describe()
    }

    fn machine_types(&self) -> Vec<MachineInfo> {
        let machine = |name: &str, cpu_max: u32, acpi: bool| MachineInfo {
            name: name.to_owned(),
            alias: None,
            is_default: None,
            cpu_max: cpu_max.into(),
            hotpluggable_cpus: false,
            numa_mem_supported: false,
            deprecated: false,
            default_cpu_type: None,
            default_ram_id: None,
            acpi,
        };
        let pc = MachineInfo { is_default: Some(true), ..machine("pc", self.cpus_max, true) };
        vec![pc, machine("none", 1, false)]
    }

    fn pci(&self) -> Vec<PciInfo> {
        match self.kind {
            MachineType::Pc => vec![pci::root_bus(&self.board.pci, &self.devices)],
            MachineType::None => Vec::new(),
        }
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.pause(RunState::Paused).await;
            Ok(())
        })
    }

    fn cont(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async { if self.resume().await { Ok(()) } else { Err(reset_required()) } })
    }

    fn system_reset(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.requests.reset(ShutdownCause::HostQmpSystemReset);
            Ok(())
        })
    }

    fn system_powerdown(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.board.pm.press_power_button();
            self.events.emit(&Powerdown {});
            Ok(())
        })
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        Box::pin(async {
            self.requests.exit(ShutdownCause::HostQmpQuit, 0);
            Ok(())
        })
    }
}
