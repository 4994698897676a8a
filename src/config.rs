//! What a machine is made of, checked and free of option syntax.

use devices::block::FileOptions;
use devices::qdev::DeviceRequest;
use devices::qdev::value::Syntax;
use monitor::{ActionSet, Endpoint};
use serde_json::{Map, Value};
use std::path::PathBuf;
use vcpu::cpuid::{CpuModel, Topology};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) name: Option<String>,
    /// Bytes.
    pub(crate) ram_size: u64,
    pub(crate) topology: Topology,
    pub(crate) cpu: CpuModel,
    /// `None`: the embedded guest.
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) append: String,
    pub(crate) drives: Vec<DriveConfig>,
    /// Made before the devices.
    pub(crate) objects: Vec<ObjectConfig>,
    /// In the order of their making.
    pub(crate) devices: Vec<DeviceConfig>,
    pub(crate) qmp: Vec<Endpoint>,
    pub(crate) hmp: Vec<Endpoint>,
    pub(crate) serial: Serial,
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

/// Where the qtest protocol is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QtestConfig {
    pub(crate) address: crate::qtest::Address,
    /// Listen instead of connecting.
    pub(crate) server: bool,
    /// `-qtest-log`.
    pub(crate) log: Option<String>,
}

/// A disk that devices find by its id.
#[derive(Debug)]
pub(crate) struct DriveConfig {
    pub(crate) id: String,
    pub(crate) image: Image,
}

/// An object to make.
#[derive(Debug)]
pub(crate) struct ObjectConfig {
    /// What asked for it, for messages.
    pub(crate) option: String,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) syntax: Syntax,
}

/// A device to plug in.
#[derive(Debug)]
pub(crate) struct DeviceConfig {
    /// What asked for it, for messages.
    pub(crate) option: String,
    pub(crate) request: DeviceRequest,
}

/// Where a disk's bytes are.
#[derive(Debug)]
pub(crate) enum Image {
    File(FileOptions),
    /// Anonymous, of so many bytes, gone with the process.
    Scratch(u64),
}

/// Where COM1 goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Serial {
    /// The terminal; with a monitor behind Ctrl-A C when `mux` is set.
    Stdio { mux: bool },
    /// Into a file.
    File(PathBuf),
    /// Nowhere.
    Null,
}

/// `-reactor`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReactorConfig {
    /// Host CPUs; `None`: all that the process may use.
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) poll_ns_max: u64,
}
