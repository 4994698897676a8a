//! A driver of modern virtio devices over PCI (Virtual I/O Device 1.2, section 4.1).

use crate::machine::Machine;
use crate::pci::{Slot, WINDOW};
use crate::queue::Queue;

pub const ACKNOWLEDGE: u8 = 1;
pub const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
pub const FEATURES_OK: u8 = 8;
pub const NEEDS_RESET: u8 = 64;

pub const INDIRECT_DESC: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
pub const RING_RESET: u64 = 1 << 40;
pub const NO_VECTOR: u16 = 0xffff;

// Fields of the common configuration.
pub const FEATURE_SELECT: u64 = 0x00;
pub const FEATURE: u64 = 0x04;
pub const DRIVER_SELECT: u64 = 0x08;
pub const DRIVER_FEATURE: u64 = 0x0c;
pub const CONFIG_VECTOR: u64 = 0x10;
pub const NUM_QUEUES: u64 = 0x12;
pub const STATUS: u64 = 0x14;
pub const QUEUE_SELECT: u64 = 0x16;
pub const QUEUE_SIZE: u64 = 0x18;
pub const QUEUE_VECTOR: u64 = 0x1a;
pub const QUEUE_ENABLE: u64 = 0x1c;
pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
pub const QUEUE_DESC: u64 = 0x20;
pub const QUEUE_RESET: u64 = 0x3a;

const VENDOR_CAPABILITY: u8 = 0x09;
const MSIX_CAPABILITY: u8 = 0x11;

/// A structure as its capability places it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Structure {
    pub bar: u8,
    pub offset: u32,
    pub len: u32,
    /// What follows a notification capability.
    pub extra: u32,
}

/// A device with its BARs placed.
pub struct Device {
    pub slot: Slot,
    /// By type: common, notify, ISR, device.
    pub structures: [Structure; 4],
    pub common: u64,
    pub notify: u64,
    pub isr: u64,
    pub config: u64,
    /// Offset of the MSI-X capability.
    pub msix: u8,
    pub msix_table: u64,
    pub msix_pba: u64,
}

impl Device {
    /// Finds the structures of the device in `slot` and places its BARs.
    pub fn new(m: &mut Machine, slot: u8) -> Self {
        let slot = Slot(slot);
        let mut bars = [0; 6];
        let mut next = WINDOW + (u64::from(slot.0) << 20);
        for index in [1, 4] {
            bars[usize::from(index)] = next;
            slot.place(m, index, next);
            next += u64::from(slot.bar_size(m, index)).next_multiple_of(0x1_0000);
        }
        slot.enable(m);
        let mut structures = [Structure::default(); 4];
        for at in slot.capabilities(m, VENDOR_CAPABILITY) {
            let kind = slot.read8(m, at + 3);
            if let Some(structure) = structures.get_mut(usize::from(kind).wrapping_sub(1)) {
                *structure = Structure {
                    bar: slot.read8(m, at + 4),
                    offset: slot.read32(m, at + 8),
                    len: slot.read32(m, at + 12),
                    extra: if kind == 2 { slot.read32(m, at + 16) } else { 0 },
                };
            }
        }
        let address =
            |n: usize| bars[usize::from(structures[n].bar)] + u64::from(structures[n].offset);
        let [common, notify, isr, config] = [0, 1, 2, 3].map(address);
        let msix = slot.capabilities(m, MSIX_CAPABILITY)[0];
        let place = |word: u32| bars[(word & 7) as usize] + u64::from(word & !7);
        let msix_table = place(slot.read32(m, msix + 4));
        let msix_pba = place(slot.read32(m, msix + 8));
        Self { slot, structures, common, notify, isr, config, msix, msix_table, msix_pba }
    }

    pub fn status(&self, m: &mut Machine) -> u8 {
        m.readb(self.common + STATUS)
    }

    pub fn set_status(&self, m: &mut Machine, status: u8) {
        m.writeb(self.common + STATUS, status);
    }

    /// The features offered.
    pub fn offered(&self, m: &mut Machine) -> u64 {
        let mut half = |select| {
            m.writel(self.common + FEATURE_SELECT, select);
            u64::from(m.readl(self.common + FEATURE))
        };
        half(0) | half(1) << 32
    }

    pub fn accept(&self, m: &mut Machine, features: u64) {
        for select in [0, 1] {
            m.writel(self.common + DRIVER_SELECT, select);
            m.writel(self.common + DRIVER_FEATURE, (features >> (32 * select)) as u32);
        }
    }

    /// Everything up to FEATURES_OK; whether the device has agreed.
    pub fn negotiate(&self, m: &mut Machine, features: u64) -> bool {
        self.set_status(m, 0);
        self.set_status(m, ACKNOWLEDGE);
        self.set_status(m, ACKNOWLEDGE | DRIVER);
        self.accept(m, features);
        self.set_status(m, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status(m) & FEATURES_OK != 0
    }

    pub fn driver_ok(&self, m: &mut Machine) {
        self.set_status(m, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    pub fn select(&self, m: &mut Machine, queue: u16) {
        m.writew(self.common + QUEUE_SELECT, queue);
    }

    /// Sets queue `index` up with its largest size, up to 64, and enables it.
    pub fn queue(&self, m: &mut Machine, index: u16, event_idx: bool) -> Queue {
        self.select(m, index);
        let size = m.readw(self.common + QUEUE_SIZE).min(64);
        m.writew(self.common + QUEUE_SIZE, size);
        let offset = m.readw(self.common + QUEUE_NOTIFY_OFF);
        let doorbell = self.notify + u64::from(offset) * u64::from(self.structures[1].extra);
        let queue = Queue::new(m, index, size, doorbell, event_idx);
        for (n, address) in [queue.descriptors, queue.available, queue.used].into_iter().enumerate()
        {
            m.writeq(self.common + QUEUE_DESC + 8 * n as u64, address);
        }
        m.writew(self.common + QUEUE_ENABLE, 1);
        queue
    }

    /// Switches MSI-X on.
    pub fn enable_msix(&self, m: &mut Machine) {
        self.slot.write16(m, self.msix + 2, 1 << 15);
    }

    /// Gives vector `index` a message and its mask bit.
    pub fn set_vector(&self, m: &mut Machine, index: u16, address: u64, data: u32, masked: bool) {
        let entry = self.msix_table + 16 * u64::from(index);
        m.writel(entry, address as u32);
        m.writel(entry + 4, (address >> 32) as u32);
        m.writel(entry + 8, data);
        m.writel(entry + 12, u32::from(masked));
    }

    /// Has queue `queue` signal through `vector`; what the device says it does.
    pub fn use_vector(&self, m: &mut Machine, queue: u16, vector: u16) -> u16 {
        self.select(m, queue);
        m.writew(self.common + QUEUE_VECTOR, vector);
        m.readw(self.common + QUEUE_VECTOR)
    }
}
