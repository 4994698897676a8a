//! virtio: devices that share memory queues with their drivers
//! (OASIS Virtual I/O Device 1.2, committee specification 01).
//!
//! | module | what lives there | which thread runs it |
//! |---|---|---|
//! | [`device`](VirtioDevice) | what a device type implements | vCPU threads, cores |
//! | [`pci`] | the PCI transport: registers, capabilities, doorbells (section 4.1) | vCPU threads |
//! | `status` | the device status machine (section 2.1) | vCPU threads |
//! | [`queue`](Virtqueue) | a split virtqueue, its notifications (section 2.7) | the queue's core |
//! | `serve` | what the task of every queue does | the queue's core |
//! | `interrupt` | ISR, MSI-X vectors, NEEDS_RESET | any |
//! | [`blk`] | the block device (section 5.2) | the queue's core |
//! | [`rng`] | the entropy device (section 5.4) | the queue's core |
//! | [`scsi`] | the SCSI host device (section 5.6) | the queues' cores |
//! | [`net`] | the network device (section 5.1) | the queue's core |
//! | [`console`] | the console device and its ports (section 5.3) | the queue's core |
//! | [`balloon`] | the memory balloon (section 5.5) | the queue's core |
//!
//! A guest's writes to registers end in the transport, under one short lock per device, and never
//! wait. Each live queue is one task on one core context: it takes requests from the available
//! ring, submits them, and puts completions on the used ring, without a lock or an allocation a
//! request. A reset tells the tasks to stop and shows 0 in the status register once the last one
//! has let go of guest memory.

pub mod balloon;
pub mod blk;
mod chain;
pub mod console;
mod device;
mod interrupt;
mod metrics;
pub mod net;
pub mod pci;
mod queue;
pub mod rng;
pub mod scsi;
mod serve;
mod status;
#[cfg(test)]
pub(crate) mod testing;

pub use device::{QueueSetup, Stop, VirtioDevice};
pub use interrupt::{ConfigNotifier, Fault, QueueInterrupt};
pub use metrics::{QueueCounters, QueueMetrics};
pub use queue::{ChainFault, Virtqueue, gather};

/// Guest RAM as the devices see it.
pub type Ram = vm_memory::GuestMemoryMmap<()>;

/// Feature bits of every device type (section 6).
pub mod features {
    use virtio_bindings::virtio_config::{VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1};
    use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

    /// Descriptors may point to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
    /// Notifications are asked for by ring index.
    pub const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
    /// The device follows version 1 of the specification or later.
    pub const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

    /// A queue can be reset alone.
    pub const RING_RESET: u64 = 1 << VIRTIO_F_RING_RESET;

    /// What the transport and the queues do for every device.
    pub const COMMON: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_RESET;
}

/// The vector number that means "none" (section 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;
