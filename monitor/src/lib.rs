//! The monitor: QMP and HMP, as QEMU speaks them.
//!
//! | what | where | runs in |
//! |---|---|---|
//! | the monitor as a whole: [`Monitor`] | `monitor` | made and started in any context |
//! | what it acts on: [`Machine`], [`RunState`] | `machine` | see there |
//! | events: [`EventSink`], [`event`] | `event`, `session/hub` | emitted on any thread |
//! | JSON: [`wire`] | `wire/` | pure |
//! | declared commands and their types: [`registry`] | `registry/` | pure |
//! | from request to reply: [`dispatch`] | `dispatch/` | pure |
//! | sockets, sessions and where commands run | `session/` | *monitor* and *iohandler* |
//! | the commands | `commands/` | plain: *iohandler*; coroutine: *main* |
//! | the human monitor: [`HmpSession`] | `hmp/` | *main*; its sockets: *monitor* |
//!
//! Which context runs what is the point of this crate; the table is in `session/dispatcher`.

mod commands;
mod core;
pub mod dispatch;
mod error;
pub mod event;
mod hmp;
mod machine;
mod monitor;
pub mod registry;
mod session;
#[cfg(test)]
mod tests;
pub mod wire;

pub use commands::actions::{
    ActionSet, Actions, PanicAction, RebootAction, SetAction, ShutdownAction, WatchdogAction,
};
pub use commands::command_line::{
    CommandLineOptionInfo, CommandLineParameterInfo, CommandLineParameterType,
};
pub use commands::guest::{
    MachineInfo, MemorySizeInfo, PciBridgeInfo, PciBusInfo, PciDeviceClass, PciDeviceId,
    PciDeviceInfo, PciDevices, PciInfo, PciMemoryRange, PciMemoryRegion,
};
pub use commands::net_backend::{Netdev, NetdevBackend};
pub use error::{ErrorClass, QmpError};
pub use hmp::{Echo, HmpSession};
pub use machine::{Cpu, KvmInfo, Machine, RunState, Uuid, UuidError, reset_required};
pub use monitor::{LeavingPreconfig, Monitor};
pub use session::endpoint::Endpoint;
pub use session::hub::EventSink;

use std::pin::Pin;

/// A boxed future that may move between contexts.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
