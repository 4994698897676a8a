//! A driver of the virtio SCSI host (virtio 1.3, section 5.6): one command at a time and
//! events, polled.

use core::fmt;
use core::hint::spin_loop;

use super::blk::DiskError;
use super::device::Device;
use super::feature;
use super::queue::{Chain, Queue};
use crate::cpu;
use crate::machine::Machine;
use crate::mem::Region;
use crate::pci::Function;
use crate::time::LIMIT_TICKS;

/// The control queue, the event queue, and the first request queue.
const QUEUES: u16 = 3;
/// Header, answer and data of one request.
const QUEUE_SIZES: (u16, u16) = (4, 16);
const HEADER_LEN: usize = 51;
const CDB_OFFSET: usize = 19;
const ANSWER_OFFSET: usize = 64;
const ANSWER_LEN: usize = 108;
const EVENT_QUEUE: u16 = 1;
const EVENT_LEN: usize = 16;
/// Events that may come before they are taken.
const EVENTS: u16 = 4;
/// Bytes of data that a command has room for.
pub(crate) const DATA_LEN: usize = 64 << 10;

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The target.
    pub target: u8,
    /// The unit, in the eight bytes of REPORT LUNS' first two.
    pub lun: [u8; 2],
}

/// Which way a command's data goes, and how many bytes it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// There is none.
    None,
    /// From the unit.
    In(u32),
    /// To the unit.
    Out(u32),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The host's response.
    pub response: u8,
    /// The unit's status.
    pub status: u8,
    /// Sense key, ASC and ASCQ.
    pub sense: [u8; 3],
    /// Bytes that were not moved.
    pub residual: u32,
}

impl Answer {
    /// The host knows no such target.
    pub const BAD_TARGET: u8 = 3;

    /// An error unless the command succeeded.
    pub fn good(self) -> Result<(), Self> {
        if self.response == 0 && self.status == 0 { Ok(()) } else { Err(self) }
    }

    /// Whether the unit said that something has happened to it.
    pub fn is_attention(self) -> bool {
        self.status == 2 && self.sense[0] == 6
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [key, asc, ascq] = self.sense;
        write!(f, "response {} status {} ", self.response, self.status)?;
        write!(f, "sense {key:02x}/{asc:02x}/{ascq:02x} residual {}", self.residual)
    }
}

/// What has happened to a unit (section 5.6.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The kind.
    pub kind: u32,
    /// The unit.
    pub place: Place,
    /// Why.
    pub reason: u32,
}

impl Event {
    /// The kind of event that tells of units that come and go.
    pub const TRANSPORT_RESET: u32 = 1;
    /// The reason where a unit is to be looked for.
    pub const RESCAN: u32 = 1;
    /// The reason where one is gone.
    pub const REMOVED: u32 = 2;
}

/// A virtio SCSI host, driven.
pub(crate) struct Host {
    device: Device,
    queue: Queue,
    doorbell: Region,
    events: (Queue, Region, Region),
    control: Region,
    /// The data of the command that is run.
    pub data: Region,
}

impl Host {
    /// Resets the host and sets it up. The memory is taken from the machine's arena, where it
    /// stays: mark and release around the host's use.
    pub fn open(machine: &mut Machine, function: &Function) -> Result<Self, DiskError> {
        let device = Device::open(machine, function)?;
        device.negotiate(feature::SCSI_HOTPLUG)?;
        let mut make = |index| device.make_queue::<DiskError>(machine, index, QUEUE_SIZES, false);
        let [_, (events, bell), (queue, doorbell)] =
            [make(0)?, make(EVENT_QUEUE)?, make(QUEUES - 1)?];
        let buffers = machine.arena.take(EVENT_LEN * usize::from(EVENTS), 64)?;
        let control = machine.arena.take(256, 64)?;
        let data = machine.arena.take(DATA_LEN, 4096)?;
        device.start();
        let mut host =
            Self { device, queue, doorbell, events: (events, bell, buffers), control, data };
        for index in 0..EVENTS {
            host.offer_event(index);
        }
        Ok(host)
    }

    /// Gives the device buffer `index` for an event.
    fn offer_event(&mut self, index: u16) {
        let (queue, doorbell, buffers) = &mut self.events;
        let buffer = buffers.slice(usize::from(index) * EVENT_LEN, EVENT_LEN);
        Chain::new(queue.descriptors(), index).push(buffer.address(), EVENT_LEN as u32, true);
        queue.add(index);
        if queue.publish() {
            doorbell.store(0, EVENT_QUEUE);
        }
    }

    /// Takes the next event, when there is one.
    pub fn take_event(&mut self) -> Result<Option<Event>, DiskError> {
        let (queue, _, buffers) = &mut self.events;
        let Some(used) = queue.take() else { return Ok(None) };
        let stranger = DiskError::Stranger(used.head);
        let index =
            u16::try_from(used.head).ok().filter(|index| *index < EVENTS).ok_or(stranger)?;
        let buffer = buffers.slice(usize::from(index) * EVENT_LEN, EVENT_LEN);
        let place = Place { target: buffer.load(5), lun: [buffer.load(6), buffer.load(7)] };
        let event = Event { kind: buffer.load(0), place, reason: buffer.load(12) };
        self.offer_event(index);
        Ok(Some(event))
    }

    /// Runs one command on `data`.
    pub fn run(&mut self, place: Place, cdb: &[u8], data: Data) -> Result<Answer, DiskError> {
        self.control.clear();
        let [high, low] = place.lun;
        for (offset, byte) in [1, place.target, high, low].into_iter().enumerate() {
            self.control.store(offset, byte);
        }
        for (offset, byte) in cdb.iter().enumerate() {
            self.control.store(CDB_OFFSET + offset, *byte);
        }
        let (answer, buffer) = (self.control.address() + ANSWER_OFFSET as u64, self.data.address());
        let mut chain = Chain::new(self.queue.descriptors(), 0);
        chain.push(self.control.address(), HEADER_LEN as u32, false);
        match data {
            Data::Out(len) => {
                chain.push(buffer, len, false);
                chain.push(answer, ANSWER_LEN as u32, true);
            }
            Data::In(len) => {
                chain.push(answer, ANSWER_LEN as u32, true);
                chain.push(buffer, len, true);
            }
            Data::None => chain.push(answer, ANSWER_LEN as u32, true),
        }
        self.queue.add(0);
        if self.queue.publish() {
            self.doorbell.store(0, QUEUES - 1);
        }
        self.finish()
    }

    /// Waits for the answer and reads it.
    fn finish(&mut self) -> Result<Answer, DiskError> {
        let start = cpu::tsc();
        let used = loop {
            if let Some(used) = self.queue.take() {
                break used;
            }
            if cpu::tsc() - start > LIMIT_TICKS {
                return Err(DiskError::Timeout { status: self.device.status(), missing: 1 });
            }
            spin_loop();
        };
        if used.head != 0 {
            return Err(DiskError::Stranger(used.head));
        }
        let byte = |at: usize| self.control.load::<u8>(ANSWER_OFFSET + at);
        let sense = if byte(0) == 0 { [0; 3] } else { [byte(14) & 0xf, byte(24), byte(25)] };
        let residual = self.control.load(ANSWER_OFFSET + 4);
        Ok(Answer { response: byte(11), status: byte(10), sense, residual })
    }

    /// Resets the host.
    pub fn close(&self) -> Result<(), DiskError> {
        Ok(self.device.reset()?)
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn answers_say_what_went_wrong() {
        let answer = Answer { response: 0, status: 2, sense: [5, 0x24, 0], residual: 512 };
        assert_eq!(answer.good(), Err(answer));
        assert!(!answer.is_attention());
        assert_eq!(answer.to_string(), "response 0 status 2 sense 05/24/00 residual 512");
        assert!(Answer { sense: [6, 0x29, 0], ..answer }.is_attention());
    }
}
