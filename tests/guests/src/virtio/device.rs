//! The PCI transport (virtio 1.3, section 4.1): registers of a modern device.

use core::fmt;

use super::queue::{Layout, Queue};
use super::{feature, status};
use crate::cpu::{self, vector};
use crate::machine::Machine;
use crate::mem::{OutOfMemory, Region};
use crate::pci::msix::{self, Msix};
use crate::pci::{Function, Location};

const VENDOR: u16 = 0x1af4;
const VENDOR_CAPABILITY: u8 = 0x09;

/// Device types, as the identifier from 0x1040 on counts them.
pub(crate) const TYPE_NET: u16 = 1;
pub(crate) const TYPE_BLOCK: u16 = 2;
pub(crate) const TYPE_BALLOON: u16 = 5;
pub(crate) const TYPE_SCSI: u16 = 8;

const COMMON_LEN: usize = 56;
mod common {
    pub const DEVICE_FEATURE_SELECT: usize = 0;
    pub const DEVICE_FEATURE: usize = 4;
    pub const DRIVER_FEATURE_SELECT: usize = 8;
    pub const DRIVER_FEATURE: usize = 12;
    pub const CONFIG_MSIX_VECTOR: usize = 16;
    pub const NUM_QUEUES: usize = 18;
    pub const DEVICE_STATUS: usize = 20;
    pub const CONFIG_GENERATION: usize = 21;
    pub const QUEUE_SELECT: usize = 22;
    pub const QUEUE_SIZE: usize = 24;
    pub const QUEUE_MSIX_VECTOR: usize = 26;
    pub const QUEUE_ENABLE: usize = 28;
    pub const QUEUE_NOTIFY_OFF: usize = 30;
    pub const QUEUE_DESC: usize = 32;
    pub const QUEUE_DRIVER: usize = 40;
    pub const QUEUE_DEVICE: usize = 48;
}

/// Why a device cannot be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceError {
    /// A structure that every modern device has is missing or not accessible.
    NoStructure(&'static str),
    /// No MSI-X capability, or its table is not accessible.
    NoMsix,
    /// The device did not become ready for a driver after a reset.
    Reset(u8),
    /// The device does not offer virtio 1.x.
    Legacy,
    /// The device refused the features chosen among those it offers.
    Features(u64),
    /// The device did not take the interrupt vector of a queue, or of configuration changes.
    Vector,
    /// The queue does not exist or cannot be that large.
    Queue(u16),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStructure(name) => write!(f, "no accessible {name} structure"),
            Self::NoMsix => write!(f, "no accessible MSI-X table"),
            Self::Reset(status) => write!(f, "reset left device status {status:#04x}"),
            Self::Legacy => write!(f, "VERSION_1 is not offered"),
            Self::Features(features) => write!(f, "features {features:#x} refused"),
            Self::Vector => write!(f, "an interrupt vector was refused"),
            Self::Queue(index) => write!(f, "queue {index} cannot be set up"),
        }
    }
}

/// The virtio device type of a PCI function; of transitional devices, which have the modern
/// structures too, only block devices are known.
pub(crate) fn device_type(function: &Function) -> Option<u16> {
    match (function.vendor, function.device) {
        (VENDOR, 0x1001) => Some(TYPE_BLOCK),
        (VENDOR, modern @ 0x1040..0x1080) => Some(modern - 0x1040),
        _ => None,
    }
}

/// One of the structures that vendor capabilities point at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Structure {
    kind: u8,
    bar: u8,
    offset: u32,
    len: u32,
    /// Configuration offset of the capability.
    at: u8,
}

impl Structure {
    fn read(location: Location, at: u8) -> Self {
        let [head, place, offset, len] =
            [0, 4, 8, 12].map(|word| location.read32(at.saturating_add(word)));
        Self { kind: (head >> 24) as u8, bar: place as u8, offset, len, at }
    }

    fn find(location: Location, kind: u8) -> Option<Self> {
        location.find_capability(|id, at| {
            let found = (id == VENDOR_CAPABILITY).then(|| Self::read(location, at));
            found.filter(|structure| structure.kind == kind)
        })
    }
}

/// The registers of a virtio device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    common: Region,
    notify: Region,
    notify_multiplier: u32,
    config: Region,
    msix: Msix,
    apic_id: u32,
}

/// Where the device takes the addresses of a queue's parts from, and what it tells of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSetup {
    /// Entries.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub driver: u64,
    /// Used ring.
    pub device: u64,
}

impl Device {
    /// Maps the structures of `function`, and lets it use memory and interrupts.
    pub fn open(machine: &mut Machine, function: &Function) -> Result<Self, DeviceError> {
        let location = function.location;
        location.enable();
        let mut map = |kind, name, least: usize| {
            let structure = Structure::find(location, kind);
            let mapped = structure.and_then(|it| {
                let region = machine.map_bar(function, it.bar, it.offset, it.len as usize)?;
                (region.len() >= least).then_some((region, it.at))
            });
            mapped.ok_or(DeviceError::NoStructure(name))
        };
        let (common, _) = map(1, "common configuration", COMMON_LEN)?;
        let (notify, at) = map(2, "notification", 2)?;
        let (config, _) = map(4, "device configuration", 8)?;
        let notify_multiplier = location.read32(at.saturating_add(16));
        let msix = Msix::open(machine, function).ok_or(DeviceError::NoMsix)?;
        msix.enable();
        let apic_id = cpu::apic_id();
        Ok(Self { common, notify, notify_multiplier, config, msix, apic_id })
    }

    /// Resets the device and waits until it is.
    pub fn reset(&self) -> Result<(), DeviceError> {
        self.common.store(common::DEVICE_STATUS, 0u8);
        let mut left = self.status();
        for _ in 0..10_000 {
            if left == 0 {
                return Ok(());
            }
            left = self.status();
        }
        Err(DeviceError::Reset(left))
    }

    /// The device status.
    pub fn status(&self) -> u8 {
        self.common.load(common::DEVICE_STATUS)
    }

    /// Address of the device status, for timing accesses.
    pub fn status_address(&self) -> u64 {
        (self.common.address() + common::DEVICE_STATUS as u64) & !3
    }

    fn add_status(&self, bits: u8) {
        self.common.store(common::DEVICE_STATUS, self.status() | bits);
    }

    /// Resets the device and agrees on VERSION_1 and those of `wanted` that it offers, which are
    /// returned. Configuration changes come by `vector::CONFIG`.
    pub fn negotiate(&self, wanted: u64) -> Result<u64, DeviceError> {
        self.reset()?;
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        let offered = self.offered();
        if offered & feature::VERSION_1 == 0 {
            return Err(DeviceError::Legacy);
        }
        let agreed = offered & (wanted | feature::VERSION_1);
        for (half, bits) in [(0u32, agreed as u32), (1, (agreed >> 32) as u32)] {
            self.common.store(common::DRIVER_FEATURE_SELECT, half);
            self.common.store(common::DRIVER_FEATURE, bits);
        }
        self.add_status(status::FEATURES_OK);
        if self.status() & status::FEATURES_OK == 0 {
            return Err(DeviceError::Features(agreed));
        }
        self.msix.set(0, vector::CONFIG, self.apic_id);
        self.common.store(common::CONFIG_MSIX_VECTOR, 0u16);
        match self.common.load(common::CONFIG_MSIX_VECTOR) {
            0u16 => Ok(agreed),
            _ => Err(DeviceError::Vector),
        }
    }

    /// The features the device offers.
    pub fn offered(&self) -> u64 {
        [1u32, 0].into_iter().fold(0, |bits, half| {
            self.common.store(common::DEVICE_FEATURE_SELECT, half);
            bits << 32 | u64::from(self.common.load::<u32>(common::DEVICE_FEATURE))
        })
    }

    /// How many queues the device has.
    pub fn num_queues(&self) -> u16 {
        self.common.load(common::NUM_QUEUES)
    }

    /// The largest size of queue `index`; zero when there is no such queue.
    pub fn queue_size_max(&self, index: u16) -> u16 {
        self.common.store(common::QUEUE_SELECT, index);
        self.common.load(common::QUEUE_SIZE)
    }

    /// Sets up queue `index`, interrupting by `vector::QUEUE0 + index` as far as the device can
    /// tell so many apart. Returns its doorbell.
    pub fn set_queue(&self, index: u16, setup: &QueueSetup) -> Result<Region, DeviceError> {
        let last_entry = self.msix.entries().saturating_sub(1);
        let entry = (index + 1).min(last_entry);
        self.msix.set(entry, queue_vector(entry.saturating_sub(1)), self.apic_id);
        self.common.store(common::QUEUE_SELECT, index);
        self.common.store(common::QUEUE_SIZE, setup.size);
        self.common.store(common::QUEUE_MSIX_VECTOR, entry);
        if self.common.load::<u16>(common::QUEUE_MSIX_VECTOR) == msix::NO_VECTOR {
            return Err(DeviceError::Vector);
        }
        for (offset, address) in [
            (common::QUEUE_DESC, setup.descriptors),
            (common::QUEUE_DRIVER, setup.driver),
            (common::QUEUE_DEVICE, setup.device),
        ] {
            self.common.store(offset, address as u32);
            self.common.store(offset + 4, (address >> 32) as u32);
        }
        let notify_offset: u16 = self.common.load(common::QUEUE_NOTIFY_OFF);
        let doorbell = u64::from(notify_offset) * u64::from(self.notify_multiplier);
        let doorbell = self.notify.part(doorbell, 2).ok_or(DeviceError::Queue(index))?;
        self.common.store(common::QUEUE_ENABLE, 1u16);
        Ok(doorbell)
    }

    /// Makes and sets up queue `index`, as large as the device and `most` allow, but not below
    /// `least`. Returns it with its doorbell. The memory is the arena's.
    pub fn make_queue<E: From<DeviceError> + From<OutOfMemory>>(
        &self,
        machine: &mut Machine,
        index: u16,
        (least, most): (u16, u16),
        event_idx: bool,
    ) -> Result<(Queue, Region), E> {
        let most = self.queue_size_max(index).min(most);
        if most < least {
            return Err(DeviceError::Queue(index).into());
        }
        let size = 1 << most.ilog2();
        let memory = machine.arena.take(Layout::new(size).len, 4096)?;
        let queue = Queue::new(memory, size, event_idx);
        let setup = QueueSetup {
            size,
            descriptors: queue.descriptors().address(),
            driver: queue.driver().address(),
            device: queue.device().address(),
        };
        let doorbell = self.set_queue(index, &setup)?;
        Ok((queue, doorbell))
    }

    /// Lets the device begin.
    pub fn start(&self) {
        self.add_status(status::DRIVER_OK);
    }

    /// Programs nonsense into every writable register of the common configuration, queue by
    /// queue, reserved values of the status included. Wants a reset afterwards.
    pub fn scramble_common(&self) {
        for value in [u32::MAX, 0, 0x5a5a_a5a5] {
            self.common.store(common::DEVICE_FEATURE_SELECT, value);
            self.common.store(common::DRIVER_FEATURE_SELECT, value);
            self.common.store(common::DRIVER_FEATURE, value);
            self.common.store(common::CONFIG_MSIX_VECTOR, value as u16);
            for queue in [0u16, 1, 0x8000, 0xffff] {
                self.common.store(common::QUEUE_SELECT, queue);
                self.common.store(common::QUEUE_SIZE, value as u16);
                self.common.store(common::QUEUE_MSIX_VECTOR, value as u16);
                for offset in (common::QUEUE_DESC..COMMON_LEN).step_by(4) {
                    self.common.store(offset, value);
                }
                self.common.store(common::QUEUE_ENABLE, value as u16);
                self.common.store(common::NUM_QUEUES, value as u16);
            }
            self.common.store(common::DEVICE_STATUS, value as u8 | status::FEATURES_OK);
            self.notify.store(0, value as u16);
        }
        self.common.store(common::DEVICE_STATUS, 0u8);
    }

    /// Fills the interrupt table with nonsense, masked, and the capability with all its states.
    pub fn scramble_interrupts(&self) {
        self.msix.scramble();
        self.msix.enable();
    }

    /// The device-specific configuration, read consistently by `read`.
    pub fn read_config<T>(&self, read: impl Fn(Region) -> T) -> T {
        let generation = || self.common.load::<u8>(common::CONFIG_GENERATION);
        let mut before = generation();
        let mut value = read(self.config);
        for _ in 0..100 {
            let after = generation();
            if before == after {
                break;
            }
            before = after;
            value = read(self.config);
        }
        value
    }
}

/// The interrupt vector of queue `index`.
pub(crate) fn queue_vector(index: u16) -> u8 {
    vector::QUEUE0.saturating_add(index as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_functions_have_a_type() {
        let function = |vendor, device| Function { vendor, device, ..Function::default() };
        assert_eq!(device_type(&function(0x1af4, 0x1042)), Some(TYPE_BLOCK));
        assert_eq!(device_type(&function(0x1af4, 0x1001)), Some(TYPE_BLOCK), "transitional");
        assert_eq!(device_type(&function(0x1af4, 0x1048)), Some(TYPE_SCSI));
        assert_eq!(device_type(&function(0x1af4, 0x1041)), Some(TYPE_NET));
        assert_eq!(device_type(&function(0x1af4, 0x1000)), None);
        assert_eq!(device_type(&function(0x8086, 0x1042)), None);
    }

    #[test]
    fn queues_have_vectors_of_their_own() {
        assert_eq!(queue_vector(0), vector::QUEUE0);
        assert_eq!(queue_vector(3), vector::QUEUE0 + 3);
    }
}
