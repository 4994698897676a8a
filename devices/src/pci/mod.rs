//! PCI: the root bus, functions and what they are made of.
//!
//! - [`PciRoot`] knows which [`Function`] sits where and serves configuration accesses.
//! - A [`Function`] is declared by a [`FunctionSpec`] and backed by a [`PciDevice`]: registers in a
//!   [`ConfigSpace`], [`Bar`]s that are mapped and moved as the guest asks, [`Msix`], an
//!   [`IntxPin`].
//!
//! Threads: configuration accesses run on vCPU threads. Reads take no lock. Writes take one short
//! lock per function, because one write may move regions, doorbells and interrupt routes, which
//! belong together. Neither is on the data path. Plugging, unplugging and reset run in `main`.

mod bar;
mod config;
mod decode;
mod device;
mod function;
mod intx;
mod msix;
mod ports;
mod root;

pub use bar::{BAR_COUNT, Bar};
pub use config::{
    BAR0, COMMAND, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigBuilder,
    ConfigSpace, DEVICE_ID, INTERRUPT_LINE, INTERRUPT_PIN, Identity, LayoutError, REVISION_ID,
    STATUS, STATUS_CAPABILITIES, STATUS_INTERRUPT, SUBSYSTEM_VENDOR_ID, VENDOR_ID,
};
pub use decode::{BAR_PRIORITY, FIXED_PRIORITY, PciWindows};
pub use device::PciDevice;
pub use function::{Function, FunctionSpec};
pub use intx::{IntxPin, IntxRouter, PCI_GSI_BASE, PCI_GSI_COUNT, SharedLine, root_bus_gsi};
pub use msix::{MSIX_CAPABILITY, MSIX_ENABLE, MSIX_FUNCTION_MASK, Msix, MsixPlace};
pub use ports::{
    CONFIG_PORTS, CONFIG_PORTS_LEN, ConfigPorts, ECAM_LEN, Ecam, RESET_PORT, RESET_VALUE,
};
pub use root::{DEVICES_PER_BUS, FUNCTIONS_PER_DEVICE, PciRoot, PciRootConfig, PlugError, Slot};

#[cfg(test)]
mod tests;
