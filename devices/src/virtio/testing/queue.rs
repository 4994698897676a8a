//! The driver's side of a split virtqueue.

use super::{EventVector, TestMachine};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Bytes, GuestAddress};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A descriptor as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawDescriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl RawDescriptor {
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u32,
    /// For the device to write.
    pub(crate) write: bool,
}

impl Buffer {
    pub(crate) fn readable(address: u64, len: u32) -> Self {
        Self { address, len, write: false }
    }

    pub(crate) fn writable(address: u64, len: u32) -> Self {
        Self { address, len, write: true }
    }
}

/// An entry of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) len: u32,
}

pub(crate) struct DriverQueue {
    machine: Arc<TestMachine>,
    pub(crate) size: u16,
    event_idx: bool,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    doorbell: u64,
    pub(crate) vector: Option<Arc<EventVector>>,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
    available_idx: u16,
    /// Where the device knows of.
    kicked_idx: u16,
    used_idx: u16,
    pub(crate) kicks: usize,
}

impl DriverQueue {
    pub(super) fn new(machine: &Arc<TestMachine>, size: u16, event_idx: bool) -> Self {
        let n = u64::from(size);
        let queue = Self {
            machine: Arc::clone(machine),
            size,
            event_idx,
            descriptors: machine.alloc(16 * n),
            available: machine.alloc(6 + 2 * n),
            used: machine.alloc(6 + 8 * n),
            doorbell: 0,
            vector: None,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); size.into()],
            available_idx: 0,
            kicked_idx: 0,
            used_idx: 0,
            kicks: 0,
        };
        for (address, len) in
            [(queue.descriptors, 16 * n), (queue.available, 6 + 2 * n), (queue.used, 6 + 8 * n)]
        {
            queue.write(address, &vec![0; len as usize]);
        }
        queue
    }

    pub(super) fn with_doorbell(mut self, doorbell: u64, vector: Arc<EventVector>) -> Self {
        self.doorbell = doorbell;
        self.vector = Some(vector);
        self
    }

    fn write(&self, address: u64, data: &[u8]) {
        self.machine.ram.write_slice(data, GuestAddress(address)).unwrap();
    }

    fn load(&self, address: u64) -> u16 {
        self.machine.ram.load(GuestAddress(address), Ordering::Acquire).unwrap()
    }

    fn store(&self, address: u64, value: u16) {
        self.machine.ram.store(value, GuestAddress(address), Ordering::Release).unwrap();
    }

    pub(crate) fn write_descriptor(&self, index: u16, descriptor: RawDescriptor) {
        self.write(self.descriptors + 16 * u64::from(index), &descriptor.bytes());
    }

    /// Adds a chain of descriptors in the table; returns its head.
    pub(crate) fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let chain: Vec<u16> = buffers.iter().map(|_| self.free.pop().unwrap()).collect();
        for (n, buffer) in buffers.iter().enumerate() {
            let next = chain.get(n + 1).copied();
            let flags = next.map_or(0, |_| NEXT) | if buffer.write { WRITE } else { 0 };
            let (address, len, next) = (buffer.address, buffer.len, next.unwrap_or(0));
            self.write_descriptor(chain[n], RawDescriptor { address, len, flags, next });
        }
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        self.offer(head);
        head
    }

    /// Adds a chain in a table of its own at `table`; returns its head.
    pub(crate) fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (n, buffer) in buffers.iter().enumerate() {
            let last = n + 1 == buffers.len();
            let flags = if last { 0 } else { NEXT } | if buffer.write { WRITE } else { 0 };
            let (address, len, next) = (buffer.address, buffer.len, n as u16 + 1);
            let descriptor = RawDescriptor { address, len, flags, next };
            self.write(table + 16 * n as u64, &descriptor.bytes());
        }
        let head = self.free.pop().unwrap();
        let len = 16 * buffers.len() as u32;
        let flags = INDIRECT;
        self.write_descriptor(head, RawDescriptor { address: table, len, flags, next: 0 });
        self.chains[usize::from(head)] = vec![head];
        self.offer(head);
        head
    }

    /// Puts `head` on the available ring, whatever it is.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available_idx % self.size);
        self.store(self.available + 4 + 2 * slot, head);
        self.available_idx = self.available_idx.wrapping_add(1);
        self.set_available_idx(self.available_idx);
    }

    pub(crate) fn set_available_idx(&self, idx: u16) {
        self.store(self.available + 2, idx);
    }

    /// Rings the doorbell if the device wants it (section 2.7.10.1).
    pub(crate) fn kick(&mut self) {
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = self.load(self.used + 4 + 8 * u64::from(self.size));
            let added = self.available_idx.wrapping_sub(self.kicked_idx);
            self.available_idx.wrapping_sub(event).wrapping_sub(1) < added
        } else {
            self.load(self.used) & 1 == 0
        };
        self.kicked_idx = self.available_idx;
        if wanted {
            self.ring();
        }
    }

    /// Rings the doorbell.
    pub(crate) fn ring(&mut self) {
        self.kicks += 1;
        self.machine.write(self.doorbell, &0u16.to_le_bytes());
    }

    pub(crate) fn used_idx(&self) -> u16 {
        self.load(self.used + 2)
    }

    pub(crate) fn avail_event(&self) -> u16 {
        self.load(self.used + 4 + 8 * u64::from(self.size))
    }

    /// Asks for no interrupt before `n` more entries are used.
    pub(crate) fn want_interrupt_after(&self, n: u16) {
        let event = self.used_idx.wrapping_add(n).wrapping_sub(1);
        self.store(self.available + 4 + 2 * u64::from(self.size), event);
        fence(Ordering::SeqCst);
    }

    /// Sets the flag that asks for no interrupts (without EVENT_IDX).
    pub(crate) fn set_no_interrupt(&self, on: bool) {
        self.store(self.available, u16::from(on));
    }

    /// Whether there is a used entry that was not taken yet.
    pub(crate) fn any_used(&self) -> bool {
        self.used_idx() != self.used_idx
    }

    /// The next used entry, if there is one; its descriptors are free again.
    pub(crate) fn pop_used(&mut self) -> Option<Used> {
        if !self.any_used() {
            return None;
        }
        let entry = self.used + 4 + 8 * u64::from(self.used_idx % self.size);
        let head: u32 = self.machine.ram.read_obj(GuestAddress(entry)).unwrap();
        let len: u32 = self.machine.ram.read_obj(GuestAddress(entry + 4)).unwrap();
        self.used_idx = self.used_idx.wrapping_add(1);
        let head = u16::try_from(head).unwrap();
        self.free.append(&mut self.chains[usize::from(head)]);
        Some(Used { head, len })
    }

    /// Waits for `n` used entries by interrupt.
    pub(crate) async fn wait_used(&mut self, n: usize) -> Vec<Used> {
        let vector = self.vector.clone().unwrap();
        let mut found = Vec::new();
        loop {
            found.extend(std::iter::from_fn(|| self.pop_used()));
            if found.len() >= n {
                return found;
            }
            if self.event_idx {
                self.want_interrupt_after((n - found.len()) as u16);
                if self.used_idx() != self.used_idx {
                    continue;
                }
            }
            vector.wait().await;
        }
    }
}
