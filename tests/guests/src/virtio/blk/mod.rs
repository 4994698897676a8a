//! The driver of the virtio block device (virtio 1.3, section 5.2): requests in fixed slots, each
//! with its own descriptors and data, spread over the queues.

mod error;
mod geometry;

use core::hint::spin_loop;

pub(crate) use self::error::DiskError;
pub(crate) use self::geometry::Geometry;

use super::device::{Device, queue_vector};
use super::queue::{Chain, DESCRIPTOR_LEN, Queue, flag};
use super::request::{Op, Split, Status};
use super::{feature, status};
use crate::cpu::{self, vector};
use crate::machine::Machine;
use crate::mem::Region;
use crate::pci::Function;
use crate::time::LIMIT_TICKS;

/// Most queues used of a device.
pub(crate) const QUEUES_MAX: usize = 16;
/// Most requests in flight.
pub(crate) const SLOTS_MAX: usize = 128;
/// Bytes of a sector, the unit of addresses whatever the block size.
pub(crate) const SECTOR: u64 = 512;

const QUEUE_SIZE_MAX: u16 = 256;
/// Descriptors a chain has apart from data: header and status.
const OVERHEAD: u16 = 2;
const HEADER_LEN: u32 = 16;
const STATUS_OFFSET: usize = 16;
const TABLE_OFFSET: usize = 32;
/// The timer that ends a wait without interrupts: a second of the APIC's nanoseconds.
const TIMER_COUNT: u32 = 1_000_000_000;

/// How completions are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By looking at the used rings.
    Poll,
    /// By interrupts, sleeping in between.
    Interrupt,
}

impl Mode {
    /// A word for the console.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Interrupt => "irq",
        }
    }
}

/// How a disk is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Queues at most; the device may have fewer.
    pub queues: u16,
    /// Requests in flight at most, over all queues.
    pub depth: u16,
    /// Bytes of data a request has room for.
    pub slot_bytes: u32,
    /// Data segments of a request at most.
    pub segments: u16,
    /// Whether chains go into tables of their own, where the device can do that.
    pub indirect: bool,
}

/// A finished request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The slot it was in, free again.
    pub slot: u16,
    /// How it ended.
    pub status: Status,
    /// Bytes the device says it has written.
    pub written: u32,
}

/// What driving a disk has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Costs {
    /// Doorbells rung.
    pub doorbells: u64,
    /// Queue interrupts taken.
    pub interrupts: u64,
}

/// The memory of the slots: control (header, status, table) and data, each cut evenly.
#[derive(Clone, Copy, Debug)]
struct Slots {
    control: Region,
    control_len: usize,
    data: Region,
    data_len: usize,
}

/// A virtio block device, driven.
pub(crate) struct Disk {
    device: Device,
    features: u64,
    geometry: Geometry,
    queues: [Option<Queue>; QUEUES_MAX],
    doorbells: [Region; QUEUES_MAX],
    queue_count: u16,
    slots: Slots,
    depth: u16,
    /// Descriptors of a chain at most, apart from an indirect table.
    chain: u16,
    segments: u16,
    in_flight: [bool; SLOTS_MAX],
    in_flight_count: u16,
    next_queue: u16,
    costs: Costs,
    interrupts_before: u32,
    /// Timer interrupts there were when the timer was last set.
    timer_armed_at: Option<u32>,
    closed: bool,
}

const WANTED: u64 = feature::EVENT_IDX
    | feature::MQ
    | feature::FLUSH
    | feature::BLK_SIZE
    | feature::SEG_MAX
    | feature::TOPOLOGY
    | feature::RO
    | feature::DISCARD
    | feature::WRITE_ZEROES;

impl Disk {
    /// Resets the device and sets it up. The memory is taken from the machine's arena, where it
    /// stays: mark and release around the disk's use.
    pub fn open(
        machine: &mut Machine,
        function: &Function,
        options: &Options,
    ) -> Result<Self, DiskError> {
        let device = Device::open(machine, function)?;
        let wanted = WANTED | if options.indirect { feature::INDIRECT_DESC } else { 0 };
        let features = device.negotiate(wanted)?;
        let geometry = device.read_config(|config| Geometry::read(config, features));
        let queue_count = geometry
            .queues
            .min(device.num_queues())
            .min(options.queues)
            .clamp(1, QUEUES_MAX as u16);
        let mut disk = Self {
            device,
            features,
            geometry,
            queues: [None; QUEUES_MAX],
            doorbells: [Region::EMPTY; QUEUES_MAX],
            queue_count,
            slots: Slots {
                control: Region::EMPTY,
                control_len: 0,
                data: Region::EMPTY,
                data_len: 0,
            },
            depth: 0,
            chain: 0,
            segments: 0,
            in_flight: [false; SLOTS_MAX],
            in_flight_count: 0,
            next_queue: 0,
            costs: Costs::default(),
            interrupts_before: 0,
            timer_armed_at: None,
            closed: false,
        };
        let size = disk.set_queues(machine)?;
        disk.set_slots(machine, options, size)?;
        disk.interrupts_before = disk.queue_interrupts();
        device.start();
        Ok(disk)
    }

    /// Sets up the queues and returns the size of the smallest.
    fn set_queues(&mut self, machine: &mut Machine) -> Result<u16, DiskError> {
        let event_idx = self.features & feature::EVENT_IDX != 0;
        let mut smallest = QUEUE_SIZE_MAX;
        for index in 0..self.queue_count {
            let sizes = (OVERHEAD + 1, QUEUE_SIZE_MAX);
            let (queue, doorbell) =
                self.device.make_queue::<DiskError>(machine, index, sizes, event_idx)?;
            smallest = smallest.min(queue.size());
            self.doorbells[usize::from(index)] = doorbell;
            self.queues[usize::from(index)] = Some(queue);
        }
        Ok(smallest)
    }

    /// Shares descriptors and memory out among the slots: as many as asked for and possible.
    fn set_slots(
        &mut self,
        machine: &mut Machine,
        options: &Options,
        queue_size: u16,
    ) -> Result<(), DiskError> {
        let indirect = self.features & feature::INDIRECT_DESC != 0;
        let segments_max = self.geometry.segments_max.min(64) as u16;
        let chain_least = if indirect { 1 } else { OVERHEAD + 1 };
        let possible = (queue_size / chain_least).saturating_mul(self.queue_count);
        self.depth = options.depth.clamp(1, SLOTS_MAX as u16).min(possible);
        let slots_a_queue = self.depth.div_ceil(self.queue_count);
        let room = queue_size / slots_a_queue;
        let wanted = options.segments.clamp(1, segments_max);
        (self.chain, self.segments) = if indirect {
            (1, wanted)
        } else {
            let chain = room.min(wanted + OVERHEAD);
            (chain, chain - OVERHEAD)
        };
        let table_len = DESCRIPTOR_LEN * usize::from(self.segments + OVERHEAD);
        let control_len = (TABLE_OFFSET + table_len).next_multiple_of(64);
        let data_len = options.slot_bytes as usize;
        let depth = usize::from(self.depth);
        self.slots = Slots {
            control: machine.arena.take(control_len * depth, 64)?,
            control_len,
            data: machine.arena.take(data_len * depth, 4096)?,
            data_len,
        };
        Ok(())
    }

    /// What the device says of itself.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// How many requests of `bytes` fit on the disk side by side.
    pub fn requests(&self, bytes: u32) -> Result<u64, DiskError> {
        let count = self.geometry.capacity.saturating_mul(SECTOR) / u64::from(bytes);
        let whole = bytes.is_multiple_of(self.geometry.block);
        if count == 0 || !whole { Err(DiskError::TooSmall) } else { Ok(count) }
    }

    /// Whether all of `features` were agreed upon.
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    /// The transport.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Queues in use.
    pub fn queue_count(&self) -> u16 {
        self.queue_count
    }

    /// Requests that can be in flight.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u16 {
        self.in_flight_count
    }

    /// Queue `index` and its doorbell, to be misused.
    pub fn queue_mut(&mut self, index: u16) -> Option<(&mut Queue, Region)> {
        let doorbell = *self.doorbells.get(usize::from(index))?;
        let queue = self.queues.get_mut(usize::from(index))?.as_mut()?;
        Some((queue, doorbell))
    }

    /// What was rung and taken since the disk was opened.
    pub fn costs(&self) -> Costs {
        let interrupts = self.queue_interrupts().wrapping_sub(self.interrupts_before);
        Costs { interrupts: interrupts.into(), ..self.costs }
    }

    fn queue_interrupts(&self) -> u32 {
        let counts = (0..self.queue_count).map(|index| cpu::interrupts(queue_vector(index)));
        counts.fold(0, u32::wrapping_add)
    }

    /// The data buffer of `slot`.
    pub fn data(&self, slot: u16) -> Region {
        self.slots.data.slice(usize::from(slot) * self.slots.data_len, self.slots.data_len)
    }

    fn control(&self, slot: u16) -> Region {
        self.slots.control.slice(usize::from(slot) * self.slots.control_len, self.slots.control_len)
    }

    /// Puts a request for `bytes` of the slot's data at `sector` into the slot's queue. `ring`
    /// shows it to the device.
    pub fn submit(
        &mut self,
        slot: u16,
        op: Op,
        sector: u64,
        bytes: u32,
        split: Split,
    ) -> Result<(), DiskError> {
        let free = slot < self.depth && !self.in_flight[usize::from(slot)];
        if !free || bytes as usize > self.slots.data_len {
            return Err(DiskError::Slot);
        }
        let control = self.control(slot);
        control.store(0, op.code());
        control.store(4, 0u32);
        control.store(8, sector);
        control.store(STATUS_OFFSET, Status::UNWRITTEN.0);
        let (index, head) = self.place(slot);
        let indirect = self.features & feature::INDIRECT_DESC != 0;
        let queue = self.queues[usize::from(index)].as_mut().ok_or(DiskError::Slot)?;
        let mut chain = if indirect {
            Chain::new(control.slice(TABLE_OFFSET, control.len() - TABLE_OFFSET), 0)
        } else {
            Chain::new(queue.descriptors(), head)
        };
        chain.push(control.address(), HEADER_LEN, false);
        let split = Split { segments: split.segments.min(self.segments), ..split };
        let data = self.slots.data.address() + u64::from(slot) * self.slots.data_len as u64;
        let mut at = 0;
        for len in split.lengths(bytes) {
            chain.push(data + at, len, op.fills_data());
            at += u64::from(len);
        }
        chain.push(control.address() + STATUS_OFFSET as u64, 1, true);
        if indirect {
            let len = DESCRIPTOR_LEN as u32 * u32::from(chain.len());
            let table = control.address() + TABLE_OFFSET as u64;
            Chain::new(queue.descriptors(), head).push_raw(table, len, flag::INDIRECT);
        }
        queue.add(head);
        self.in_flight[usize::from(slot)] = true;
        self.in_flight_count += 1;
        Ok(())
    }

    /// Queue and first descriptor of a slot.
    fn place(&self, slot: u16) -> (u16, u16) {
        (slot % self.queue_count, slot / self.queue_count * self.chain)
    }

    /// Shows the devices what was submitted, and notifies it where it wants that.
    pub fn ring(&mut self) {
        for index in 0..self.queue_count {
            let Some((queue, doorbell)) = self.queue_mut(index) else { continue };
            if queue.publish() {
                doorbell.store(0, index);
                self.costs.doorbells += 1;
            }
        }
    }

    /// Takes a finished request, if there is one.
    pub fn take(&mut self) -> Result<Option<Completion>, DiskError> {
        for _ in 0..self.queue_count {
            let index = self.next_queue;
            let queue = self.queues[usize::from(index)].as_mut();
            if let Some(used) = queue.and_then(Queue::take) {
                return self.finish(index, used.head, used.len).map(Some);
            }
            self.next_queue = (index + 1) % self.queue_count;
        }
        Ok(None)
    }

    fn finish(&mut self, queue: u16, head: u32, written: u32) -> Result<Completion, DiskError> {
        let stranger = DiskError::Stranger(head);
        let aligned = head.is_multiple_of(self.chain.into());
        let slot = head / u32::from(self.chain) * u32::from(self.queue_count) + u32::from(queue);
        if !aligned || slot >= self.depth.into() || !self.in_flight[slot as usize] {
            return Err(stranger);
        }
        self.in_flight[slot as usize] = false;
        self.in_flight_count -= 1;
        let slot = slot as u16;
        let status = Status(self.control(slot).load(STATUS_OFFSET));
        Ok(Completion { slot, status, written })
    }

    /// Waits for a finished request.
    pub fn wait(&mut self, mode: Mode) -> Result<Completion, DiskError> {
        match mode {
            Mode::Poll => self.wait_polling(),
            Mode::Interrupt => self.wait_sleeping(),
        }
    }

    fn wait_polling(&mut self) -> Result<Completion, DiskError> {
        let mut start = None;
        loop {
            for _ in 0..1000 {
                if let Some(completion) = self.take()? {
                    self.suppress();
                    return Ok(completion);
                }
                spin_loop();
            }
            let now = cpu::tsc();
            if now - *start.get_or_insert(now) > LIMIT_TICKS {
                return Err(self.timeout());
            }
        }
    }

    fn wait_sleeping(&mut self) -> Result<Completion, DiskError> {
        if let Some(completion) = self.take()? {
            return Ok(completion);
        }
        let start = cpu::tsc();
        let result = loop {
            let seen = cpu::interrupts(0);
            if !self.queues.iter().flatten().any(|queue| queue.arm(1))
                && let Err(error) = self.sleep(seen, 1)
            {
                break Err(error);
            }
            match self.take() {
                Ok(Some(completion)) => break Ok(completion),
                Err(error) => break Err(error),
                Ok(None) if cpu::tsc() - start > LIMIT_TICKS => break Err(self.timeout()),
                Ok(None) => {}
            }
        };
        self.suppress();
        result
    }

    /// Rings, having asked queue 0 for one interrupt after all of the requests submitted, and
    /// sleeps until they are finished and that interrupt has come. For disks with one queue.
    pub fn ring_and_sleep(&mut self) -> Result<(), DiskError> {
        let count = self.in_flight_count;
        let interrupts = self.queue_interrupts();
        let start = cpu::tsc();
        let _ = self.queues[0].is_some_and(|queue| queue.arm(count));
        self.ring();
        loop {
            let seen = cpu::interrupts(0);
            let finished = self.queues[0].is_none_or(|queue| queue.ready() >= count);
            if finished && self.queue_interrupts() != interrupts {
                self.suppress();
                return Ok(());
            }
            self.sleep(seen, count)?;
            if cpu::tsc() - start > LIMIT_TICKS {
                return Err(self.timeout());
            }
        }
    }

    /// Sleeps until any interrupt has come since there were `seen`. An error when it was the
    /// timer, and the interrupt that `owing` finished requests owe does not come.
    fn sleep(&mut self, seen: u32, owing: u16) -> Result<(), DiskError> {
        let interrupts = self.queue_interrupts();
        self.arm_timer();
        let timer = cpu::interrupts(vector::TIMER);
        cpu::wait(seen);
        let late = cpu::interrupts(vector::TIMER) != timer;
        let lost = late && self.interrupt_is_lost(interrupts, owing);
        if lost { Err(DiskError::NoInterrupt) } else { Ok(()) }
    }

    /// Has the timer end a sleep within a second; it goes on over several sleeps.
    fn arm_timer(&mut self) {
        let fired = cpu::interrupts(vector::TIMER);
        if self.timer_armed_at != Some(fired) {
            self.timer_armed_at = Some(fired);
            cpu::set_timer(TIMER_COUNT);
        }
    }

    /// Whether `owing` requests of a queue are finished, but no interrupt has come since there
    /// were `before`, nor does in a while.
    fn interrupt_is_lost(&self, before: u32, owing: u16) -> bool {
        let start = cpu::tsc();
        while self.queues.iter().flatten().any(|queue| queue.ready() >= owing) {
            if self.queue_interrupts() != before {
                return false;
            }
            if cpu::tsc() - start > LIMIT_TICKS / 100 {
                return true;
            }
        }
        false
    }

    fn timeout(&self) -> DiskError {
        DiskError::Timeout { status: self.device.status(), missing: self.in_flight_count }
    }

    fn suppress(&self) {
        self.queues.iter().flatten().for_each(Queue::suppress);
    }

    /// Whether the device has given up until a reset.
    pub fn needs_reset(&self) -> bool {
        self.device.status() & status::NEEDS_RESET != 0
    }

    /// Does one request in slot 0 by itself.
    pub fn request(&mut self, op: Op, sector: u64, bytes: u32) -> Result<Completion, DiskError> {
        self.submit(0, op, sector, bytes, Split::WHOLE)?;
        self.ring();
        self.wait(Mode::Poll)
    }

    /// Stops the device, so that it uses no memory from then on, as dropping it does; but says
    /// whether that worked.
    pub fn close(&mut self) -> Result<(), DiskError> {
        self.closed = true;
        if self.timer_armed_at.take().is_some() {
            cpu::set_timer(0);
        }
        Ok(self.device.reset()?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.closed {
            // After an error that is already being reported.
            let _ = self.close();
        }
    }
}
