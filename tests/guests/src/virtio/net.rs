//! A driver of the virtio network device (virtio 1.3, section 5.1): one frame at a time, polled.

use core::hint::spin_loop;

use super::blk::DiskError;
use super::device::Device;
use super::feature;
use super::queue::{Chain, Queue};
use crate::cpu;
use crate::machine::Machine;
use crate::mem::Region;
use crate::pattern::{self, Mismatch};
use crate::pci::Function;
use crate::time::LIMIT_TICKS;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_SIZES: (u16, u16) = (2, 16);
/// Bytes ahead of each frame, which ask for nothing (section 5.1.6).
const HEADER: usize = 12;
const MAC_LEN: usize = 6;
/// An EtherType for experiments (IEEE 802).
const ETHERTYPE: u16 = 0x88b5;
/// Header and frame together, and where the frame's content begins in them: at a multiple of eight.
const BUFFER: usize = 512;
const CONTENT: usize = 32;

/// What came of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// It came back as it was sent.
    Same,
    /// Something of another length came.
    Length(u32),
    /// Something else came.
    Other(Mismatch),
}

/// A virtio network device, driven.
pub(crate) struct Net {
    device: Device,
    queues: [(Queue, Region); 2],
    sent: Region,
    received: Region,
    mac: [u8; MAC_LEN],
}

impl Net {
    /// Resets the device and sets it up. The memory is taken from the machine's arena.
    pub fn open(machine: &mut Machine, function: &Function) -> Result<Self, DiskError> {
        let device = Device::open(machine, function)?;
        device.negotiate(feature::NET_MAC)?;
        let mac = device.read_config(|config| core::array::from_fn(|at| config.load(at)));
        let receive = device.make_queue::<DiskError>(machine, RECEIVE, QUEUE_SIZES, false)?;
        let transmit = device.make_queue::<DiskError>(machine, TRANSMIT, QUEUE_SIZES, false)?;
        let sent = machine.arena.take(BUFFER, 64)?;
        let received = machine.arena.take(BUFFER, 64)?;
        device.start();
        Ok(Self { device, queues: [receive, transmit], sent, received, mac })
    }

    /// Sends a frame with content that `seed` makes to the device's own address, and compares it with
    /// what comes back: for wires that end where they begin.
    pub fn echo(&mut self, seed: u64) -> Result<Echo, DiskError> {
        self.sent.clear();
        self.received.clear();
        for (at, byte) in self.mac.into_iter().chain(self.mac).enumerate() {
            self.sent.store(HEADER + at, byte);
        }
        let kind = ETHERTYPE.to_be_bytes();
        for (at, byte) in kind.into_iter().enumerate() {
            self.sent.store(HEADER + 2 * MAC_LEN + at, byte);
        }
        pattern::fill(self.sent.slice(CONTENT, BUFFER - CONTENT), 0, seed);
        let buffers = [(self.received, true), (self.sent, false)];
        for (index, (buffer, write)) in buffers.into_iter().enumerate() {
            let (queue, doorbell) = &mut self.queues[index];
            Chain::new(queue.descriptors(), 0).push(buffer.address(), BUFFER as u32, write);
            queue.add(0);
            if queue.publish() {
                doorbell.store(0, index as u16);
            }
        }
        self.finish(usize::from(TRANSMIT))?;
        let len = self.finish(usize::from(RECEIVE))?;
        if len != BUFFER as u32 {
            return Ok(Echo::Length(len));
        }
        let content = self.received.slice(CONTENT, BUFFER - CONTENT);
        Ok(pattern::compare(content, 0, seed).map_or_else(Echo::Other, |()| Echo::Same))
    }

    /// Waits for the buffer of queue `index`; how many bytes of it were written.
    fn finish(&mut self, index: usize) -> Result<u32, DiskError> {
        let start = cpu::tsc();
        loop {
            if let Some(used) = self.queues[index].0.take() {
                return if used.head == 0 {
                    Ok(used.len)
                } else {
                    Err(DiskError::Stranger(used.head))
                };
            }
            if cpu::tsc() - start > LIMIT_TICKS {
                return Err(DiskError::Timeout { status: self.device.status(), missing: 1 });
            }
            spin_loop();
        }
    }

    /// Resets the device.
    pub fn close(&self) -> Result<(), DiskError> {
        Ok(self.device.reset()?)
    }
}
