//! Questions about the hardware that the guest sees.

use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{At, Command, Qapi, Registry, Type, Value};
use crate::wire::Writer;
use crate::{qapi_enum, qapi_struct};
use devices::objects::{Body, Object};
use std::sync::Arc;

qapi_struct! {
    /// The machine's identifier.
    pub struct UuidInfo {
        /// As text; zeros where none was given.
        pub uuid: String = "UUID",
    }
}

qapi_enum! {
    /// An architecture.
    pub enum SysEmuTarget {
        /// AMD64 and Intel 64.
        X86_64 = "x86_64",
    }
}

qapi_struct! {
    /// The architecture of the guest.
    pub struct TargetInfo {
        /// Which one.
        pub arch: SysEmuTarget = "arch",
    }
}

qapi_struct! {
    /// A kind of machine.
    pub struct MachineInfo {
        /// Its name, as for `-machine`.
        pub name: String = "name",
        /// Another name of it.
        pub alias: Option<String> = "alias",
        /// It is taken where none is asked for.
        pub is_default: Option<bool> = "is-default",
        /// It has so many vCPUs at most.
        pub cpu_max: i64 = "cpu-max",
        /// vCPUs can be plugged in while it runs.
        pub hotpluggable_cpus: bool = "hotpluggable-cpus",
        /// Its vCPUs and memory can be arranged in NUMA nodes.
        pub numa_mem_supported: bool = "numa-mem-supported",
        /// It will be removed.
        pub deprecated: bool = "deprecated",
        /// The CPU model that is taken where none is asked for.
        pub default_cpu_type: Option<String> = "default-cpu-type",
        /// The name of its memory.
        pub default_ram_id: Option<String> = "default-ram-id",
        /// It has ACPI tables.
        pub acpi: bool = "acpi",
    }
}

qapi_struct! {
    /// What this machine can do.
    pub struct CurrentMachineParams {
        /// `system_wakeup` can wake the guest up.
        pub wakeup_suspend_support: bool = "wakeup-suspend-support",
    }
}

qapi_struct! {
    /// Where a vCPU sits.
    pub struct CpuInstanceProperties {
        /// NUMA node.
        pub node_id: Option<i64> = "node-id",
        /// Drawer.
        pub drawer_id: Option<i64> = "drawer-id",
        /// Book in the drawer.
        pub book_id: Option<i64> = "book-id",
        /// Package.
        pub socket_id: Option<i64> = "socket-id",
        /// Die in the package.
        pub die_id: Option<i64> = "die-id",
        /// Cluster in the die.
        pub cluster_id: Option<i64> = "cluster-id",
        /// Module in the cluster.
        pub module_id: Option<i64> = "module-id",
        /// Core.
        pub core_id: Option<i64> = "core-id",
        /// Thread in the core.
        pub thread_id: Option<i64> = "thread-id",
    }
}

qapi_struct! {
    /// A vCPU.
    pub struct CpuInfoFast {
        /// Its index.
        pub cpu_index: i64 = "cpu-index",
        /// The path of its object.
        pub qom_path: String = "qom-path",
        /// The number of its thread on the host.
        pub thread_id: i64 = "thread-id",
        /// Where it sits.
        pub props: Option<CpuInstanceProperties> = "props",
        /// Its architecture.
        pub target: SysEmuTarget = "target",
    }
}

qapi_struct! {
    /// A place for vCPUs.
    pub struct HotpluggableCPU {
        /// The type of object to plug in there.
        pub ty: String = "type",
        /// How many vCPUs that is.
        pub vcpus_count: i64 = "vcpus-count",
        /// Where it is.
        pub props: CpuInstanceProperties = "props",
        /// The path of the object that is there.
        pub qom_path: Option<String> = "qom-path",
    }
}

qapi_struct! {
    /// The sizes of the guest's memory in bytes.
    pub struct MemorySizeInfo {
        /// What it was started with.
        pub base_memory: u64 = "base-memory",
        /// What was plugged in; absent where nothing can be.
        pub plugged_memory: Option<u64> = "plugged-memory",
    }
}

qapi_struct! {
    /// An I/O thread that was made as an object.
    pub struct IOThreadInfo {
        /// Its name.
        pub id: String = "id",
        /// The number of the thread on the host.
        pub thread_id: i64 = "thread-id",
        /// It polls for so long at most, in nanoseconds.
        pub poll_max_ns: i64 = "poll-max-ns",
        /// How its polling grows.
        pub poll_grow: i64 = "poll-grow",
        /// How its polling shrinks.
        pub poll_shrink: i64 = "poll-shrink",
        /// Requests it submits at once.
        pub aio_max_batch: i64 = "aio-max-batch",
    }
}

qapi_struct! {
    /// A base address register.
    pub struct PciMemoryRegion {
        /// Its number.
        pub bar: i64 = "bar",
        /// `io` or `memory`.
        pub ty: String = "type",
        /// Where it decodes; -1: nowhere.
        pub address: i64 = "address",
        /// Bytes or ports.
        pub size: i64 = "size",
        /// Memory: reads have no side effects.
        pub prefetch: Option<bool> = "prefetch",
        /// Memory: it may lie above 4 GiB.
        pub mem_type_64: Option<bool> = "mem_type_64",
    }
}

qapi_struct! {
    /// What a function is for.
    pub struct PciDeviceClass {
        /// In words.
        pub desc: Option<String> = "desc",
        /// Base class and sub-class.
        pub class: i64 = "class",
    }
}

impl PciDeviceClass {
    /// The class in the upper two bytes of the Class Code register, with QEMU's words for it
    /// (PCI Code and ID Assignment 1.11, section 1).
    pub fn new(class: u16) -> Self {
        let desc = match class {
            0x0100 => "SCSI controller",
            0x0101 => "IDE controller",
            0x0106 => "SATA controller",
            0x0200 => "Ethernet controller",
            0x0300 => "VGA controller",
            0x0600 => "Host bridge",
            0x0601 => "ISA bridge",
            0x0604 => "PCI bridge",
            0x0c03 => "USB controller",
            0x0c05 => "SMBus",
            _ => return Self { desc: None, class: class.into() },
        };
        Self { desc: Some(desc.to_owned()), class: class.into() }
    }
}

qapi_struct! {
    /// Who made a function.
    pub struct PciDeviceId {
        /// Device ID.
        pub device: i64 = "device",
        /// Vendor ID.
        pub vendor: i64 = "vendor",
        /// Subsystem ID.
        pub subsystem: Option<i64> = "subsystem",
        /// Subsystem vendor ID.
        pub subsystem_vendor: Option<i64> = "subsystem-vendor",
    }
}

qapi_struct! {
    /// A function of PCI.
    pub struct PciDeviceInfo {
        /// Bus number.
        pub bus: i64 = "bus",
        /// Device number.
        pub slot: i64 = "slot",
        /// Function number.
        pub function: i64 = "function",
        /// What it is for.
        pub class_info: PciDeviceClass = "class_info",
        /// Who made it.
        pub id: PciDeviceId = "id",
        /// The Interrupt Line register, where it has a pin.
        pub irq: Option<i64> = "irq",
        /// The pin: 0 none, 1 INTA to 4 INTD.
        pub irq_pin: i64 = "irq_pin",
        /// The device's id; empty where it was given none.
        pub qdev_id: String = "qdev_id",
        /// What is behind it, where it is a bridge.
        pub pci_bridge: Option<PciBridgeInfo> = "pci_bridge",
        /// Its base address registers.
        pub regions: Vec<PciMemoryRegion> = "regions",
    }
}

qapi_struct! {
    /// A range of addresses that a bridge forwards; none where the limit is below the base.
    pub struct PciMemoryRange {
        /// The first address.
        pub base: i64 = "base",
        /// The last one.
        pub limit: i64 = "limit",
    }
}

qapi_struct! {
    /// A bridge's bus numbers and windows.
    pub struct PciBusInfo {
        /// Number of the bus that the bridge is on.
        pub number: i64 = "number",
        /// Number of the bus below.
        pub secondary: i64 = "secondary",
        /// The highest number below.
        pub subordinate: i64 = "subordinate",
        /// Ports that it forwards.
        pub io_range: PciMemoryRange = "io_range",
        /// Memory that it forwards.
        pub memory_range: PciMemoryRange = "memory_range",
        /// Prefetchable memory that it forwards.
        pub prefetchable_range: PciMemoryRange = "prefetchable_range",
    }
}

qapi_struct! {
    /// What is behind a bridge.
    pub struct PciBridgeInfo {
        /// The bus below.
        pub bus: PciBusInfo = "bus",
        /// The functions on it, once the guest has given it a number.
        pub devices: Option<PciDevices> = "devices",
    }
}

/// Functions below a bridge, which are described as those above.
#[derive(Clone, Debug, PartialEq)]
pub struct PciDevices(pub Vec<PciDeviceInfo>);

impl Qapi for PciDevices {
    const TYPE: Type = Type::Later(|| <Vec<PciDeviceInfo>>::TYPE);

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        Qapi::read(value, at).map(Self)
    }

    fn write(&self, writer: &mut Writer) {
        self.0.write(writer);
    }
}

qapi_struct! {
    /// A bus of PCI.
    pub struct PciInfo {
        /// Its number.
        pub bus: i64 = "bus",
        /// The functions on it.
        pub devices: Vec<PciDeviceInfo> = "devices",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let uuid = Command::plain("query-uuid", "The machine's identifier.", query_uuid);
    registry.add(uuid.allow_preconfig());
    registry.add(Command::plain("query-target", "The architecture of the guest.", query_target));
    registry.add(Command::plain("query-machines", "The kinds of machine.", query_machines));
    registry.add(Command::plain(
        "query-current-machine",
        "What this machine can do.",
        query_current_machine,
    ));
    registry.add(Command::plain("query-cpus-fast", "The vCPUs.", query_cpus_fast));
    registry.add(Command::plain(
        "query-hotpluggable-cpus",
        "Places for vCPUs. All are taken: none can be plugged in while the machine runs.",
        query_hotpluggable_cpus,
    ));
    registry.add(Command::plain(
        "query-memory-size-summary",
        "The sizes of the guest's memory.",
        query_memory_size_summary,
    ));
    let iothreads = Command::plain(
        "query-iothreads",
        "The I/O threads that were made as objects. The contexts are in query-reactors.",
        query_iothreads,
    );
    registry.add(iothreads.allow_preconfig());
    registry.add(Command::plain("query-pci", "The buses of PCI and what is on them.", query_pci));
}

pub(crate) fn query_uuid(env: &Env, (): ()) -> Result<UuidInfo, QmpError> {
    let uuid = env.core.machine.get().map(|machine| machine.uuid()).unwrap_or_default();
    Ok(UuidInfo { uuid: uuid.to_string() })
}

fn query_target(_: &Env, (): ()) -> Result<TargetInfo, QmpError> {
    Ok(TargetInfo { arch: SysEmuTarget::X86_64 })
}

fn query_machines(env: &Env, (): ()) -> Result<Vec<MachineInfo>, QmpError> {
    Ok(env.machine()?.machine_types())
}

fn query_current_machine(env: &Env, (): ()) -> Result<CurrentMachineParams, QmpError> {
    Ok(CurrentMachineParams { wakeup_suspend_support: env.machine()?.can_wake_up() })
}

pub(crate) fn query_cpus_fast(env: &Env, (): ()) -> Result<Vec<CpuInfoFast>, QmpError> {
    let cpus = env.machine()?.cpus();
    let info = |(index, cpu): (usize, &crate::Cpu)| CpuInfoFast {
        cpu_index: i64::try_from(index).unwrap_or(i64::MAX),
        qom_path: format!("/machine/unattached/cpu[{index}]"),
        thread_id: cpu.thread_id.into(),
        props: Some(CpuInstanceProperties {
            node_id: None,
            drawer_id: None,
            book_id: None,
            socket_id: Some(cpu.socket.into()),
            die_id: None,
            cluster_id: None,
            module_id: None,
            core_id: Some(cpu.core.into()),
            thread_id: Some(cpu.thread.into()),
        }),
        target: SysEmuTarget::X86_64,
    };
    Ok(cpus.iter().enumerate().map(info).collect())
}

/// The last one first, as in QEMU.
pub(crate) fn query_hotpluggable_cpus(env: &Env, (): ()) -> Result<Vec<HotpluggableCPU>, QmpError> {
    let places = query_cpus_fast(env, ())?.into_iter().rev().filter_map(|cpu| {
        Some(HotpluggableCPU {
            ty: "host-x86_64-cpu".to_owned(),
            vcpus_count: 1,
            props: cpu.props?,
            qom_path: Some(cpu.qom_path),
        })
    });
    Ok(places.collect())
}

pub(crate) fn query_memory_size_summary(env: &Env, (): ()) -> Result<MemorySizeInfo, QmpError> {
    Ok(env.machine()?.memory_size())
}

pub(crate) fn query_iothreads(env: &Env, (): ()) -> Result<Vec<IOThreadInfo>, QmpError> {
    let tree = env.core.machine.get().and_then(|machine| machine.devices());
    let objects = tree.map(|tree| tree.resources().objects.all()).unwrap_or_default();
    let info = |object: &Arc<Object>| {
        let Body::IoThread { thread_id, .. } = object.body() else { return None };
        let properties = object.properties();
        Some(IOThreadInfo {
            id: object.id().to_owned(),
            thread_id: (*thread_id).into(),
            poll_max_ns: properties.int("poll-max-ns"),
            poll_grow: properties.int("poll-grow"),
            poll_shrink: properties.int("poll-shrink"),
            aio_max_batch: properties.int("aio-max-batch"),
        })
    };
    Ok(objects.iter().filter_map(info).collect())
}

pub(crate) fn query_pci(env: &Env, (): ()) -> Result<Vec<PciInfo>, QmpError> {
    Ok(env.machine()?.pci())
}
