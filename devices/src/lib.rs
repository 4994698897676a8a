//! The devices of the machine.
//!
//! | module | what lives there | which thread runs it |
//! |---|---|---|
//! | [`board`] | everything at fixed addresses, made and mapped in one go | `main` |
//! | [`pci`] | the root bus, functions, BARs, MSI-X, INTx | vCPU threads; changes in `main` |
//! | [`acpi`] | tables that describe the machine, power management registers | vCPU threads |
//! | [`virtio`] | virtio devices: transport, queues, the block device | vCPU threads; queues on cores |
//! | [`block`] | disks: images, locking, the way to storage | `main`; data on cores |
//! | [`scsi`] | logical units over disks, and their bus | any; changes in `main` |
//! | [`qdev`] | device types, the device tree, buses, hot-plug | `main`; look-ups any |
//! | [`objects`] | what users create beside devices: I/O threads, secrets, limits | `main`; look-ups any |
//! | [`qom`] | the object tree as clients walk it, types by name | any; changes in `main` |
//! | [`chardev`] | streams of bytes to the outside: sockets, terminals, files | `iohandler` |
//! | [`net`] | network back ends by id | `main`; data on cores |
//! | [`legacy`] | serial port, clock, keyboard controller, debug ports, fw_cfg | vCPU threads |
//! | [`clock`], [`request`] | the time devices see, what guests ask of the machine | any |
//! | [`fdset`] | files by path, descriptors that others have opened | any |
//! | [`error`] | why a command that acts on devices failed | any |
//! | [`text`], [`base64`] | what users write | any |
//!
//! Devices know `vcpu`'s address spaces and its [`Platform`](vcpu::irq::Platform), never KVM, and
//! never the monitor: what they have to say goes through callbacks that the program hands in.

pub mod acpi;
pub mod base64;
pub mod block;
pub mod board;
pub mod chardev;
pub mod clock;
pub mod error;
pub mod fdset;
pub mod legacy;
pub mod net;
pub mod objects;
pub mod pci;
pub mod qdev;
pub mod qom;
pub mod request;
pub mod scsi;
mod signal;
#[cfg(test)]
mod test_platform;
pub mod text;
pub mod virtio;

pub use clock::{Clock, HostClock, VirtualClock};
pub use error::{CommandError, ErrorClass};
pub use request::{GuestRequest, RequestSink};
