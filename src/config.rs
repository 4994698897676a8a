//! What a machine is made of, checked and free of option syntax.

use devices::block::graph::{self, DriveOptions};
use devices::chardev::Backend;
use devices::net::NetdevOptions;
use devices::qdev::DeviceRequest;
use devices::qdev::value::Syntax;
use monitor::wire::Style;
use monitor::{ActionSet, Endpoint, Uuid};
use reactor::Fd;
use serde_json::{Map, Value};
use std::path::PathBuf;
use vcpu::cpuid::{CpuModel, Topology};
use vcpu::memory::RamConfig;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) name: Option<String>,
    pub(crate) uuid: Uuid,
    pub(crate) machine: MachineType,
    pub(crate) memory: RamConfig,
    /// The id of the object that is the machine's memory.
    pub(crate) memory_backend: Option<String>,
    pub(crate) topology: Topology,
    pub(crate) cpu: CpuModel,
    /// `None`: the embedded guest.
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) append: String,
    /// Block nodes, made before the drives.
    pub(crate) nodes: Vec<NodeConfig>,
    pub(crate) drives: Vec<DriveConfig>,
    /// Made before the devices, in this order.
    pub(crate) netdevs: Vec<NetdevConfig>,
    /// Made before the devices.
    pub(crate) objects: Vec<ObjectConfig>,
    /// In the order of their making.
    pub(crate) devices: Vec<DeviceConfig>,
    /// In the order in which they are to be made.
    pub(crate) chardevs: Vec<ChardevConfig>,
    pub(crate) monitors: Vec<MonitorConfig>,
    pub(crate) listen: Vec<ListenConfig>,
    pub(crate) add_fds: Vec<AddFd>,
    /// The character device of COM1; `None`: its output goes nowhere.
    pub(crate) serial: Option<String>,
    /// `-S`.
    pub(crate) start_paused: bool,
    /// `-preconfig`: wait for `x-exit-preconfig` first.
    pub(crate) preconfig: bool,
    pub(crate) actions: ActionSet,
    pub(crate) reactor: ReactorConfig,
    /// In the order of preference; the first usable one wins.
    pub(crate) accels: Vec<Accel>,
    /// `-qtest`.
    pub(crate) qtest: Option<QtestConfig>,
}

/// What does the guest's accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    /// A program outside; no vCPU runs.
    Qtest,
}

/// What there is beside processors and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MachineType {
    /// A board with a PCI bus.
    #[default]
    Pc,
    /// Nothing, not even processors: a monitor to ask what this program has.
    None,
}

/// Where the qtest protocol is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QtestConfig {
    /// What the user wrote, for messages.
    pub(crate) option: String,
    /// The id of its character device.
    pub(crate) chardev: String,
    /// `-qtest-log`.
    pub(crate) log: Option<String>,
}

/// A block node to make.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    /// What asked for it, for messages.
    pub(crate) option: String,
    pub(crate) options: graph::Options,
}

/// A drive that devices find by its id.
#[derive(Debug)]
pub(crate) struct DriveConfig {
    /// What asked for it, for messages.
    pub(crate) option: String,
    pub(crate) id: String,
    pub(crate) drive: DriveOptions,
}

/// An object to make.
#[derive(Debug)]
pub(crate) struct ObjectConfig {
    /// What asked for it, for messages.
    pub(crate) option: String,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) syntax: Syntax,
}

/// A network back end.
#[derive(Debug)]
pub(crate) struct NetdevConfig {
    /// What asked for it, for messages.
    pub(crate) option: String,
    pub(crate) id: String,
    pub(crate) options: NetdevOptions,
    /// The inherited descriptors that it needs, by their numbers.
    pub(crate) descriptors: Vec<(String, Fd)>,
}

/// A device to plug in.
#[derive(Debug)]
pub(crate) struct DeviceConfig {
    /// What asked for it, for messages.
    pub(crate) option: String,
    pub(crate) request: DeviceRequest,
}

/// A character device.
#[derive(Debug)]
pub(crate) struct ChardevConfig {
    /// The option that asks for it, for messages.
    pub(crate) option: String,
    pub(crate) id: String,
    pub(crate) backend: Backend,
}

/// What a monitor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Qmp(Style),
    Hmp,
}

/// A monitor on a character device.
#[derive(Debug)]
pub(crate) struct MonitorConfig {
    /// The option that asks for it, for messages.
    pub(crate) option: String,
    pub(crate) chardev: String,
    pub(crate) protocol: Protocol,
}

/// A socket on which monitors serve any number of clients.
#[derive(Debug)]
pub(crate) struct ListenConfig {
    /// The option that asks for it, for messages.
    pub(crate) option: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) protocol: Protocol,
}

/// A descriptor for a set (`-add-fd`).
#[derive(Debug)]
pub(crate) struct AddFd {
    pub(crate) fd: Fd,
    pub(crate) set: i64,
    pub(crate) opaque: Option<String>,
}

/// `-reactor`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReactorConfig {
    /// Host CPUs; `None`: all that the process may use.
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) poll_ns_max: u64,
}
