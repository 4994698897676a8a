//! The driver's side of a split virtqueue (section 2.7).

use crate::machine::Machine;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
const NO_INTERRUPT: u16 = 1;

/// A buffer: address, bytes, whether the device writes it.
pub type Buffer = (u64, u32, bool);

/// A queue in guest memory.
pub struct Queue {
    pub index: u16,
    pub size: u16,
    pub doorbell: u64,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    event_idx: bool,
    next_descriptor: u16,
    /// Chains made available and taken back.
    pub available_index: u16,
    pub used_index: u16,
}

impl Queue {
    pub fn new(m: &mut Machine, index: u16, size: u16, doorbell: u64, event_idx: bool) -> Self {
        let entries = u64::from(size);
        Self {
            index,
            size,
            doorbell,
            descriptors: m.alloc(16 * entries),
            available: m.alloc(6 + 2 * entries),
            used: m.alloc(6 + 8 * entries),
            event_idx,
            next_descriptor: 0,
            available_index: 0,
            used_index: 0,
        }
    }

    /// Writes descriptor `n`.
    pub fn describe(&self, m: &mut Machine, n: u16, buffer: (u64, u32), flags: u16, next: u16) {
        m.write(self.descriptors + 16 * u64::from(n), &descriptor(buffer, flags, next));
    }

    /// Writes a chain into the descriptor table and returns its head, without offering it.
    pub fn chain(&mut self, m: &mut Machine, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (n, (address, len, write)) in buffers.iter().enumerate() {
            let at = self.next_descriptor;
            self.next_descriptor = (at + 1) % self.size;
            let more = if n + 1 < buffers.len() { NEXT } else { 0 };
            let flags = more | if *write { WRITE } else { 0 };
            self.describe(m, at, (*address, *len), flags, self.next_descriptor);
        }
        head
    }

    /// Writes an indirect chain and returns its head, without offering it.
    pub fn indirect(&mut self, m: &mut Machine, buffers: &[Buffer]) -> u16 {
        let table = m.alloc(16 * buffers.len() as u64);
        for (n, (address, len, write)) in buffers.iter().enumerate() {
            let more = if n + 1 < buffers.len() { NEXT } else { 0 };
            let flags = more | if *write { WRITE } else { 0 };
            let bytes = descriptor((*address, *len), flags, n as u16 + 1);
            m.write(table + 16 * n as u64, &bytes);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        self.describe(m, head, (table, 16 * buffers.len() as u32), INDIRECT, 0);
        head
    }

    /// Offers the chain that begins at `head`, without ringing.
    pub fn offer(&mut self, m: &mut Machine, head: u16) {
        let slot = u64::from(self.available_index % self.size);
        m.writew(self.available + 4 + 2 * slot, head);
        self.available_index = self.available_index.wrapping_add(1);
        m.writew(self.available + 2, self.available_index);
    }

    /// Rings the doorbell.
    pub fn ring(&self, m: &mut Machine) {
        m.writew(self.doorbell, self.index);
    }

    /// The device's used index.
    pub fn device_used(&self, m: &mut Machine) -> u16 {
        m.readw(self.used + 2)
    }

    /// Takes the next used chain back, waiting for it; its head and the bytes written.
    pub fn take(&mut self, m: &mut Machine) -> (u16, u32) {
        let (at, before) = (self.used + 2, self.used_index);
        m.until("a used buffer", |m| m.readw(at) != before);
        let entry = self.used + 4 + 8 * u64::from(before % self.size);
        self.used_index = before.wrapping_add(1);
        if self.event_idx {
            self.set_used_event(m, self.used_index);
        }
        (m.readl(entry) as u16, m.readl(entry + 4))
    }

    /// The used index at which the driver wants an interrupt.
    pub fn set_used_event(&self, m: &mut Machine, index: u16) {
        m.writew(self.available + 4 + 2 * u64::from(self.size), index);
    }

    /// The available index at which the device wants a notification.
    pub fn available_event(&self, m: &mut Machine) -> u16 {
        m.readw(self.used + 4 + 8 * u64::from(self.size))
    }

    /// Asks for no interrupts, or for them again.
    pub fn suppress(&self, m: &mut Machine, on: bool) {
        m.writew(self.available, if on { NO_INTERRUPT } else { 0 });
    }
}

fn descriptor((address, len): (u64, u32), flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
