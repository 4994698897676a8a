//! The common configuration structure (section 4.1.4.3).

use super::super::NO_VECTOR;
use super::super::queue::QueueLayout;
use super::super::status::{self, Change};
use super::life::Life;
use super::{Transport, features};
use std::task::Waker;

/// Bytes of the structure.
pub(super) const LEN: u64 = 0x3c;

// Offsets of the fields.
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
// At 0x38: queue_notif_config_data, of a feature that is not offered.
const QUEUE_RESET: u64 = 0x3a;

/// What the driver has set for one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueRegisters {
    /// The largest size; what the size is after a reset.
    pub(super) max: u16,
    pub(super) layout: QueueLayout,
    pub(super) enabled: bool,
    /// The driver has reset the queue, and its task has not ended yet.
    pub(super) resetting: bool,
}

impl QueueRegisters {
    pub(super) fn new(max: u16) -> Self {
        let layout = QueueLayout { size: max, descriptors: 0, available: 0, used: 0 };
        Self { max, layout, enabled: false, resetting: false }
    }
}

/// Everything behind the transport's lock.
pub(super) struct Registers {
    pub(super) status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    pub(super) queues: Vec<QueueRegisters>,
    pub(super) life: Life,
    /// Queue `i` lives on number `i`, counted round.
    pub(super) cores: Vec<reactor::Context>,
    /// Queues move to other contexts: those that have paused wait.
    pub(super) moving: bool,
    /// Tasks that wait for the end of a reset, of the device or of a queue.
    pub(super) waiters: Vec<Waker>,
}

impl Registers {
    pub(super) fn new(queue_sizes: &[u16], cores: Vec<reactor::Context>) -> Self {
        Self {
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: queue_sizes.iter().copied().map(QueueRegisters::new).collect(),
            life: Life::Idle,
            cores,
            moving: false,
            waiters: Vec::new(),
        }
    }

    pub(super) fn queue_select(&self) -> u16 {
        self.queue_select
    }

    pub(super) fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Power-on values; the life goes its own way.
    pub(super) fn reset(&mut self) {
        (self.status, self.driver_features, self.queue_select) = (0, 0, 0);
        (self.device_feature_select, self.driver_feature_select) = (0, 0);
        for queue in &mut self.queues {
            *queue = QueueRegisters::new(queue.max);
        }
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// The selected queue, if the driver may still change it.
    fn changeable(&mut self) -> Option<&mut QueueRegisters> {
        self.queues.get_mut(usize::from(self.queue_select)).filter(|queue| !queue.enabled)
    }
}

/// The half of a 64-bit feature set that a selector shows; past it there is nothing.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, high: bool, half: u32) {
    let shift = if high { 32 } else { 0 };
    *value = (*value & !(0xffff_ffff << shift)) | (u64::from(half) << shift);
}

fn put(image: &mut [u8; LEN as usize], offset: u64, bytes: &[u8]) {
    let offset = offset as usize;
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Transport {
    /// Fills `data`, zeroed by the caller, from `offset`.
    pub(super) fn read_common(&self, offset: u64, data: &mut [u8]) {
        let image = self.common_image();
        let from = image.get(offset as usize..).unwrap_or_default();
        let n = data.len().min(from.len());
        data[..n].copy_from_slice(&from[..n]);
    }

    /// The whole structure as the driver would read it now.
    fn common_image(&self) -> [u8; LEN as usize] {
        let offered = self.offered_features();
        let regs = self.lock();
        let mut image = [0; LEN as usize];
        put(&mut image, DEVICE_FEATURE_SELECT, &regs.device_feature_select.to_le_bytes());
        put(&mut image, DEVICE_FEATURE, &half(offered, regs.device_feature_select).to_le_bytes());
        put(&mut image, DRIVER_FEATURE_SELECT, &regs.driver_feature_select.to_le_bytes());
        let accepted = half(regs.driver_features, regs.driver_feature_select);
        put(&mut image, DRIVER_FEATURE, &accepted.to_le_bytes());
        put(&mut image, CONFIG_VECTOR, &self.interrupts.vector(None).to_le_bytes());
        put(&mut image, NUM_QUEUES, &(regs.queues.len() as u16).to_le_bytes());
        let needs_reset = if self.interrupts.needs_reset() { status::NEEDS_RESET } else { 0 };
        put(&mut image, DEVICE_STATUS, &[regs.status | needs_reset]);
        put(&mut image, CONFIG_GENERATION, &[self.interrupts.generation()]);
        put(&mut image, QUEUE_SELECT, &regs.queue_select.to_le_bytes());
        // A queue that does not exist has size 0 (section 4.1.4.3.1) and no vector.
        put(&mut image, QUEUE_VECTOR, &NO_VECTOR.to_le_bytes());
        if let Some(queue) = regs.selected() {
            let vector = self.interrupts.vector(Some(regs.queue_select));
            put(&mut image, QUEUE_SIZE, &queue.layout.size.to_le_bytes());
            put(&mut image, QUEUE_VECTOR, &vector.to_le_bytes());
            put(&mut image, QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
            put(&mut image, QUEUE_NOTIFY_OFF, &regs.queue_select.to_le_bytes());
            put(&mut image, QUEUE_DESC, &queue.layout.descriptors.to_le_bytes());
            put(&mut image, QUEUE_DRIVER, &queue.layout.available.to_le_bytes());
            put(&mut image, QUEUE_DEVICE, &queue.layout.used.to_le_bytes());
            put(&mut image, QUEUE_RESET, &u16::from(queue.resetting).to_le_bytes());
        }
        image
    }

    /// Takes a write of a field of 1, 2 or 4 bytes, or of half or all of one of 8. Others are no
    /// accesses that a driver may make (section 4.1.3.1) and change nothing.
    pub(super) fn write_common(&self, offset: u64, data: &[u8]) {
        match *data {
            [value] if offset == DEVICE_STATUS => self.write_status(value),
            [a, b] => self.write_u16(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write_u32(offset, u32::from_le_bytes([a, b, c, d])),
            _ => {
                let Ok(bytes) = <[u8; 8]>::try_from(data) else { return };
                let value = u64::from_le_bytes(bytes);
                self.write_u32(offset, value as u32);
                self.write_u32(offset + 4, (value >> 32) as u32);
            }
        }
    }

    fn write_u16(&self, offset: u64, value: u16) {
        let mut regs = self.lock();
        if regs.life.is_resetting() {
            return;
        }
        match offset {
            QUEUE_SELECT => regs.queue_select = value,
            CONFIG_VECTOR => self.interrupts.set_vector(None, value),
            QUEUE_VECTOR => self.interrupts.set_vector(Some(regs.queue_select), value),
            QUEUE_SIZE => {
                if let Some(queue) = regs.changeable()
                    && value.is_power_of_two()
                    && value <= queue.max
                {
                    queue.layout.size = value;
                }
            }
            QUEUE_ENABLE if value == 1 => self.enable_queue(&mut regs),
            QUEUE_RESET if value == 1 => {
                if regs.driver_features & features::RING_RESET != 0 {
                    self.reset_queue(regs);
                }
            }
            _ => self.refused(offset, value.into()),
        }
    }

    fn write_u32(&self, offset: u64, value: u32) {
        let mut regs = self.lock();
        if regs.life.is_resetting() {
            return;
        }
        match offset {
            DEVICE_FEATURE_SELECT => regs.device_feature_select = value,
            DRIVER_FEATURE_SELECT => regs.driver_feature_select = value,
            DRIVER_FEATURE => {
                let select = regs.driver_feature_select;
                if regs.status & status::FEATURES_OK == 0 && select < 2 {
                    set_half(&mut regs.driver_features, select == 1, value);
                }
            }
            QUEUE_DESC..0x38 if offset.is_multiple_of(4) => {
                let Some(queue) = regs.changeable() else { return };
                let field = match offset & !4 {
                    QUEUE_DESC => &mut queue.layout.descriptors,
                    QUEUE_DRIVER => &mut queue.layout.available,
                    _ => &mut queue.layout.used,
                };
                set_half(field, offset & 4 != 0, value);
            }
            _ => self.refused(offset, value.into()),
        }
    }

    fn refused(&self, offset: u64, value: u64) {
        tracing::debug!(device = %self.name, offset, value, "an impossible register write");
    }

    fn enable_queue(&self, regs: &mut Registers) {
        let index = regs.queue_select;
        let Some(queue) = regs.changeable() else { return };
        if let Err(fault) = queue.layout.check(&self.ram) {
            return self.interrupts.fail(&format_args!("queue {index}: {fault}"));
        }
        queue.enabled = true;
        self.queue_enabled(regs, index);
    }

    fn write_status(&self, written: u8) {
        let mut regs = self.lock();
        if regs.life.is_resetting() {
            return;
        }
        let shown = written & !status::NEEDS_RESET;
        match status::change(regs.status, written) {
            Change::Reset => {
                drop(regs);
                self.begin_reset();
            }
            Change::Show => regs.status = shown,
            Change::CheckFeatures if self.acceptable(regs.driver_features) => regs.status = shown,
            Change::CheckFeatures => {
                let features = regs.driver_features;
                tracing::debug!(device = %self.name, "features {features:#x} are refused");
            }
            Change::GoLive => {
                regs.status = shown;
                self.go_live(&mut regs);
            }
            Change::Refuse => {
                let status = regs.status;
                tracing::debug!(device = %self.name, "status {status:#x} to {written:#x} is refused");
            }
        }
    }

    /// Section 2.2.2: nothing that was not offered, and no driver of the time before version 1.
    fn acceptable(&self, accepted: u64) -> bool {
        accepted & !self.offered_features() == 0 && accepted & features::VERSION_1 != 0
    }
}
