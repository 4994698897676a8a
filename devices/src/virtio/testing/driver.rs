//! The transport's driver: finds the structures, negotiates, sets queues up.

use super::queue::DriverQueue;
use super::{EventVector, TestMachine};
use crate::virtio::status;
use std::sync::Arc;

/// Where tests put a device's BARs, by slot.
const BARS: u64 = 0xe000_0000;
const BAR_STEP: u64 = 0x10_0000;

/// A structure: its BAR and its offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bar: u8,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

pub(crate) struct Driver {
    pub(crate) machine: Arc<TestMachine>,
    pub(crate) slot: u8,
    pub(crate) common: Place,
    pub(crate) isr: Place,
    pub(crate) device: Place,
    pub(crate) notify: Place,
    pub(crate) notify_step: u64,
    /// Offset of the configuration access capability.
    pub(crate) window: u16,
    bars: [u64; 6],
    /// Number of the device's first vector on the platform.
    first_vector: usize,
}

impl Driver {
    /// Takes the device at `slot` into use: places its BARs, reads its capabilities, enables and
    /// unmasks all MSI-X vectors. `first_vector`: how many vectors other devices took before.
    pub(crate) fn new(machine: &Arc<TestMachine>, slot: u8, first_vector: usize) -> Self {
        let nowhere = Place { bar: 0, offset: 0, length: 0 };
        let mut driver = Self {
            machine: Arc::clone(machine),
            slot,
            common: nowhere,
            isr: nowhere,
            device: nowhere,
            notify: nowhere,
            notify_step: 0,
            window: 0,
            bars: [0; 6],
            first_vector,
        };
        let base = BARS + BAR_STEP * u64::from(slot);
        driver.place_bar(1, base);
        driver.place_bar(4, base + BAR_STEP / 2);
        driver.config_write(0x04, &[0x06, 0x00]);
        driver.read_capabilities();
        driver
    }

    pub(crate) fn config<const N: usize>(&self, offset: u16) -> [u8; N] {
        self.machine.config_read(self.slot, offset)
    }

    pub(crate) fn config_write(&self, offset: u16, data: &[u8]) {
        self.machine.config_write(self.slot, offset, data);
    }

    /// As many drivers do, writes only the low half of a 64-bit BAR.
    pub(crate) fn place_bar(&mut self, bar: u8, base: u64) {
        self.config_write(0x10 + 4 * u16::from(bar), &(base as u32).to_le_bytes());
        self.bars[usize::from(bar)] = base;
    }

    fn read_capabilities(&mut self) {
        let [mut at] = self.config::<1>(0x34);
        while at != 0 {
            let offset = u16::from(at);
            let [id, next, _, kind] = self.config(offset);
            let [bar] = self.config(offset + 4);
            let place = Place {
                bar,
                offset: u32::from_le_bytes(self.config(offset + 8)).into(),
                length: u32::from_le_bytes(self.config(offset + 12)).into(),
            };
            match (id, kind) {
                (0x09, 1) => self.common = place,
                (0x09, 2) => {
                    self.notify = place;
                    self.notify_step = u32::from_le_bytes(self.config(offset + 16)).into();
                }
                (0x09, 3) => self.isr = place,
                (0x09, 4) => self.device = place,
                (0x09, 5) => self.window = offset,
                (0x11, _) => self.enable_msix(offset),
                _ => panic!("capability {id:#x} of kind {kind}"),
            }
            at = next;
        }
    }

    fn enable_msix(&mut self, offset: u16) {
        let control = u16::from_le_bytes(self.config(offset + 2));
        let table = u32::from_le_bytes(self.config(offset + 4));
        let base = self.bars[(table & 7) as usize] + u64::from(table & !7);
        for vector in 0..=control & 0x7ff {
            let entry = base + 16 * u64::from(vector);
            self.machine.write(entry, &0xfee0_0000u64.to_le_bytes());
            self.machine.write(entry + 8, &(0x40 + u32::from(vector)).to_le_bytes());
            self.machine.write(entry + 12, &0u32.to_le_bytes());
        }
        self.config_write(offset + 2, &(control | 1 << 15).to_le_bytes());
    }

    /// Turns MSI-X off: the device falls back to INTx.
    pub(crate) fn disable_msix(&self) {
        let [mut at] = self.config::<1>(0x34);
        while at != 0 {
            let [id, next] = self.config(at.into());
            if id == 0x11 {
                self.config_write(u16::from(at) + 2, &[0, 0]);
            }
            at = next;
        }
    }

    pub(crate) fn address(&self, place: Place) -> u64 {
        self.bars[usize::from(place.bar)] + place.offset
    }

    pub(crate) fn read8(&self, offset: u64) -> u8 {
        u8::from_le_bytes(self.machine.read(self.address(self.common) + offset))
    }

    pub(crate) fn read16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.machine.read(self.address(self.common) + offset))
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.machine.read(self.address(self.common) + offset))
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        self.machine.write(self.address(self.common) + offset, data);
    }

    pub(crate) fn read_isr(&self) -> u8 {
        let [isr] = self.machine.read(self.address(self.isr));
        isr
    }

    pub(crate) fn device_config<const N: usize>(&self, offset: u64) -> [u8; N] {
        self.machine.read(self.address(self.device) + offset)
    }

    pub(crate) fn device_config_write(&self, offset: u64, data: &[u8]) {
        self.machine.write(self.address(self.device) + offset, data);
    }

    pub(crate) fn status(&self) -> u8 {
        self.read8(0x14)
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.write(0x14, &[status]);
    }

    pub(crate) fn offered(&self) -> u64 {
        self.write(0x00, &0u32.to_le_bytes());
        let low = self.read32(0x04);
        self.write(0x00, &1u32.to_le_bytes());
        u64::from(self.read32(0x04)) << 32 | u64::from(low)
    }

    pub(crate) fn accept(&self, features: u64) {
        self.write(0x08, &0u32.to_le_bytes());
        self.write(0x0c, &(features as u32).to_le_bytes());
        self.write(0x08, &1u32.to_le_bytes());
        self.write(0x0c, &((features >> 32) as u32).to_le_bytes());
    }

    /// Up to FEATURES_OK; whether the device agreed.
    pub(crate) fn negotiate(&self, features: u64) -> bool {
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        self.accept(features);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        self.status() & status::FEATURES_OK != 0
    }

    pub(crate) fn driver_ok(&self) {
        self.set_status(self.status() | status::DRIVER_OK);
    }

    /// Vector 0 for configuration changes, vector `n + 1` for queue `n`.
    pub(crate) fn use_vectors(&self, queues: u16) {
        self.write(0x10, &0u16.to_le_bytes());
        for queue in 0..queues {
            self.write(0x16, &queue.to_le_bytes());
            self.write(0x1a, &(queue + 1).to_le_bytes());
        }
    }

    pub(crate) fn config_vector(&self) -> Arc<EventVector> {
        self.machine.platform.vector(self.first_vector)
    }

    pub(crate) fn queue_vector(&self, queue: u16) -> Arc<EventVector> {
        self.machine.platform.vector(self.first_vector + 1 + usize::from(queue))
    }

    /// Makes rings of `size` entries for `queue` and enables it.
    pub(crate) fn set_up_queue(&self, queue: u16, size: u16, event_idx: bool) -> DriverQueue {
        let rings = DriverQueue::new(&self.machine, size, event_idx);
        self.write(0x16, &queue.to_le_bytes());
        self.write(0x18, &size.to_le_bytes());
        self.write(0x20, &rings.descriptors.to_le_bytes());
        self.write(0x28, &rings.available.to_le_bytes());
        self.write(0x30, &rings.used.to_le_bytes());
        self.write(0x1c, &1u16.to_le_bytes());
        let step = u64::from(self.read16(0x1e)) * self.notify_step;
        rings.with_doorbell(self.address(self.notify) + step, self.queue_vector(queue))
    }

    /// Resets the device as a driver does: writes 0 and reads until it shows.
    pub(crate) async fn reset(&self) {
        self.set_status(0);
        while self.status() != 0 {
            reactor::yield_now().await;
        }
    }
}
