//! A driver of the memory balloon (virtio 1.3, section 5.5): gives pages away, polled.

use core::hint::spin_loop;

use super::blk::DiskError;
use super::device::{Device, DeviceError};
use super::feature;
use super::queue::{Chain, Queue};
use crate::cpu;
use crate::machine::Machine;
use crate::mem::Region;
use crate::pci::Function;
use crate::time::LIMIT_TICKS;

/// Queues by number, where statistics are agreed on and hints are not.
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATISTICS: u16 = 2;
const REPORTING: u16 = 3;
const QUEUE_SIZES: (u16, u16) = (1, 16);
/// Bytes of a page, whatever the guest's are.
pub(crate) const PAGE: usize = 4096;
/// Page numbers in one buffer.
const NUMBERS: usize = 256;

/// How pages are given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the balloon: they are not used until it is deflated.
    Inflate,
    /// Reported as free: they may be used again at once.
    Report,
}

/// A balloon, driven.
pub(crate) struct Balloon {
    device: Device,
    queues: [(Queue, Region); 4],
    numbers: Region,
}

impl Balloon {
    /// Resets the device and sets it up. The memory is taken from the machine's arena.
    pub fn open(machine: &mut Machine, function: &Function) -> Result<Self, DiskError> {
        let device = Device::open(machine, function)?;
        let wanted = feature::BALLOON_STATS | feature::BALLOON_REPORTING;
        let agreed = device.negotiate(wanted)?;
        if agreed & wanted != wanted {
            return Err(DeviceError::Features(agreed).into());
        }
        let mut make = |index| device.make_queue::<DiskError>(machine, index, QUEUE_SIZES, false);
        let queues = [make(INFLATE)?, make(DEFLATE)?, make(STATISTICS)?, make(REPORTING)?];
        let numbers = machine.arena.take(4 * NUMBERS, 64)?;
        device.start();
        Ok(Self { device, queues, numbers })
    }

    /// Gives the pages of `memory` away. What was in them is lost.
    pub fn give(&mut self, memory: Region, way: Way) -> Result<(), DiskError> {
        match way {
            Way::Report => self.exchange(REPORTING, memory.address(), memory.len() as u32, true),
            Way::Inflate => {
                let (first, pages) = (memory.address() / PAGE as u64, memory.len() / PAGE);
                for done in (0..pages).step_by(NUMBERS) {
                    let count = NUMBERS.min(pages - done);
                    for at in 0..count {
                        self.numbers.store(4 * at, first as u32 + (done + at) as u32);
                    }
                    self.exchange(INFLATE, self.numbers.address(), 4 * count as u32, false)?;
                }
                Ok(())
            }
        }
    }

    /// Has the device take one buffer from queue `index`, and waits until it has.
    fn exchange(
        &mut self,
        index: u16,
        address: u64,
        len: u32,
        write: bool,
    ) -> Result<(), DiskError> {
        let (queue, doorbell) = &mut self.queues[usize::from(index)];
        Chain::new(queue.descriptors(), 0).push(address, len, write);
        queue.add(0);
        if queue.publish() {
            doorbell.store(0, index);
        }
        let start = cpu::tsc();
        loop {
            if let Some(used) = queue.take() {
                return if used.head == 0 { Ok(()) } else { Err(DiskError::Stranger(used.head)) };
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
