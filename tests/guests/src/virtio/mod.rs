//! virtio 1.x over PCI: the transport, split virtqueues, drivers of the block device, of the SCSI host,
//! of the network device and of the memory balloon.

pub(crate) mod balloon;
pub(crate) mod blk;
pub(crate) mod device;
pub(crate) mod net;
pub(crate) mod queue;
pub(crate) mod request;
pub(crate) mod scsi;

/// Feature bits (virtio 1.3, sections 5.2.3 and 6).
pub(crate) mod feature {
    /// Balloon: there is a queue for statistics.
    pub const BALLOON_STATS: u64 = 1 << 1;
    /// Balloon: free pages may be reported.
    pub const BALLOON_REPORTING: u64 = 1 << 5;
    /// SCSI: units that come and go are told.
    pub const SCSI_HOTPLUG: u64 = 1 << 1;
    /// Network: the device has an address.
    pub const NET_MAC: u64 = 1 << 5;
    /// Block: the largest number of segments is given.
    pub const SEG_MAX: u64 = 1 << 2;
    /// Block: read only.
    pub const RO: u64 = 1 << 5;
    /// Block: the block size is given.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Block: has a write cache and the flush command.
    pub const FLUSH: u64 = 1 << 9;
    /// Block: topology is given.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// Block: several queues.
    pub const MQ: u64 = 1 << 12;
    /// Block: the discard command.
    pub const DISCARD: u64 = 1 << 13;
    /// Block: the write-zeroes command.
    pub const WRITE_ZEROES: u64 = 1 << 14;
    /// Chains may be in tables of their own.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are asked for by index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
}

/// Device status bits (virtio 1.3, section 2.1).
pub(crate) mod status {
    /// The driver has seen the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed upon.
    pub const FEATURES_OK: u8 = 8;
    /// The device has met an error it does not recover from without a reset.
    pub const NEEDS_RESET: u8 = 0x40;
}
