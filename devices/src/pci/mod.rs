//! PCI: the root bus, bridges, functions and what they are made of.
//!
//! - [`PciRoot`] knows which [`Function`] sits where and serves configuration accesses.
//! - A [`PciSegment`] is one bus: the root's, or the one below a [`PciBridge`]; [`RootPort`] is a bridge
//!   whose slot the guest is told about.
//! - A [`Function`] is declared by a [`FunctionSpec`] and backed by a [`PciDevice`]: registers in a
//!   [`ConfigSpace`], [`Bar`]s that are mapped and moved as the guest asks, [`Msix`], an
//!   [`IntxPin`].
//!
//! Threads: configuration accesses run on vCPU threads. Reads take no lock. Writes take one short
//! lock per function, because one write may move regions, doorbells and interrupt routes, which
//! belong together. Neither is on the data path. Plugging, unplugging and reset run in `main`.

mod bar;
mod bridge;
mod config;
mod decode;
mod device;
mod function;
mod intx;
mod msix;
mod port;
mod ports;
mod root;
mod segment;
mod slot;

pub use bar::{BAR_COUNT, Bar};
pub use bridge::{BridgeView, BridgeWindow, PciBridge};
pub use config::{
    BAR0, COMMAND, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigBuilder,
    ConfigSpace, DEVICE_ID, INTERRUPT_LINE, INTERRUPT_PIN, Identity, LayoutError, REVISION_ID,
    STATUS, STATUS_CAPABILITIES, STATUS_INTERRUPT, SUBSYSTEM_VENDOR_ID, VENDOR_ID,
};
pub use decode::{BAR_PRIORITY, FIXED_PRIORITY, PciWindows};
pub use device::PciDevice;
pub use function::{Function, FunctionSpec};
pub use intx::{IntxPin, IntxRouter, PCI_GSI_BASE, PCI_GSI_COUNT, SharedLine, root_bus_gsi};
pub(crate) use msix::signal;
pub use msix::{MSIX_CAPABILITY, MSIX_ENABLE, MSIX_FUNCTION_MASK, Msix, MsixPlace};
pub use port::{PortAnswer, RootPort, RootPortConfig, RootPortError};
pub use ports::{
    CONFIG_PORTS, CONFIG_PORTS_LEN, ConfigPorts, ECAM_LEN, Ecam, RESET_PORT, RESET_VALUE,
};
pub use root::{DEVICES_PER_BUS, FUNCTIONS_PER_DEVICE, PciRoot, PciRootConfig, PlugError, Slot};
pub use segment::PciSegment;
pub use slot::{SlotAnswer, SlotRequest};

#[cfg(test)]
mod tests;
