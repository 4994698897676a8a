//! Device tests: a machine with no processor, driven from outside over the qtest protocol.
//!
//! | what | where |
//! |---|---|
//! | the process, its protocol and its monitor | `machine` |
//! | PCI enumeration, BARs | `pci` |
//! | virtio over PCI, split queues | `virtio`, `queue` |
//! | suites | `protocol`, `pc`, `transport`, `hotplug`, `root_port`, `blk`, `scsi`, `drive`, |
//! | | `errors`, `throttle`, `images`, `net`, `balloon`, `console`, `rng`, `sg` |
//!
//! No test sleeps: it waits for a line, or reads until a value is there.

mod balloon;
mod blk;
mod console;
mod drive;
mod errors;
mod hotplug;
mod images;
mod machine;
mod media;
mod memory;
mod net;
mod pc;
mod pci;
mod protocol;
mod queue;
mod rehome;
mod rng;
mod root_port;
mod scsi;
mod sg;
mod throttle;
mod transport;
mod virtio;
