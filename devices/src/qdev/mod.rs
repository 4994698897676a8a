//! The device model: types with declared properties, instances in a tree, buses, hot-plug.
//!
//! | what | where | which thread |
//! |---|---|---|
//! | declared properties, their values and help | [`property`], [`value`] | any |
//! | device types by name: [`DeviceType`], [`Types`] | `types` | any |
//! | instances: [`Device`], [`Realized`] | `device` | any; changes in `main` |
//! | buses: [`Bus`], [`BusKind`] | `bus` | any; changes in `main` |
//! | the tree: add, remove, find, reset | [`DeviceTree`] | `main`; look-ups any |
//! | what a device is made from: [`Setup`], [`Resources`] | `setup` | `main` |
//! | the SCSI bus of an adapter | `scsi_bus` | `main` |
//! | the bus of a machine without devices | `system_bus` | `main` |
//! | the ports of a virtio console | `serial_bus` | `main` |
//!
//! Writers are in `main`. Readers walk a bus's children inside a read-side section, on any thread,
//! without a lock. A removed device is unlinked at once; after the grace period it is unrealized,
//! its id is free again, and only then [`TreeEvents::deleted`] is called.

mod bus;
mod device;
mod pci_bus;
pub mod property;
mod request;
mod scsi_bus;
mod serial_bus;
mod setup;
mod system_bus;
#[cfg(test)]
mod tests;
mod tree;
mod types;
pub mod value;

pub use bus::{Bus, BusKind, SlotHear, Unplug, Visit};
pub use device::{Device, DeviceState, Realized};
pub use pci_bus::{PciBus, SlotEvents};
pub use request::{DeviceRequest, keyval};
pub use setup::{Claim, PortSink, Resources, Setup};
pub(crate) use system_bus::is_system_bus;
pub use system_bus::system_bus;
pub use tree::{DeviceTree, TreeConfig, TreeEvents, WeakTree};
pub(crate) use types::TREE as TYPE_TREE;
pub use types::virtio_pci::{VIRTIO_PCI_PROPERTIES, VirtioFunction, realize_virtio};
pub use types::{DeviceType, PCI_PROPERTIES, Realize, TypeInfo, Types};

use std::future::Future;
use std::pin::Pin;

/// A boxed future that may move between contexts.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
