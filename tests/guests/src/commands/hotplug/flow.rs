//! Requests without end on one disk: each block is written, read back and compared.

use crate::commands::scsi::Wrong;
use crate::machine::Machine;
use crate::pattern::{self, POISON, Random};
use crate::pci::Function;
use crate::virtio::blk::{Completion, Disk, Mode, Options, SECTOR};
use crate::virtio::request::{Op, Split, Status};

const BYTES: u32 = 4096;
const DEPTH: usize = 4;

/// What the request in a slot is about.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    block: u64,
    seed: u64,
    reading: bool,
}

/// The disk and its requests.
pub(super) struct Flow {
    disk: Disk,
    random: Random,
    blocks: u64,
    lanes: [Lane; DEPTH],
}

impl Flow {
    /// Sets the disk up and begins.
    pub fn open(machine: &mut Machine, function: &Function) -> Result<Self, Wrong> {
        let options = Options {
            queues: 1,
            depth: DEPTH as u16,
            slot_bytes: BYTES,
            segments: 1,
            indirect: false,
        };
        let disk = Disk::open(machine, function, &options)?;
        let blocks = disk.requests(BYTES)? / u64::from(disk.depth());
        let mut flow = Self { disk, random: Random::new(1), blocks, lanes: Default::default() };
        for slot in 0..flow.disk.depth() {
            flow.write(slot)?;
        }
        flow.disk.ring();
        Ok(flow)
    }

    /// Waits for a request, and goes on with what has finished. How many blocks were verified.
    pub fn step(&mut self) -> Result<u64, Wrong> {
        let mut verified = 0;
        let mut done = Some(self.disk.wait(Mode::Interrupt)?);
        while let Some(completion) = done {
            verified += u64::from(self.go_on(completion)?);
            done = self.disk.take()?;
        }
        self.disk.ring();
        Ok(verified)
    }

    /// Lets the last requests finish and stops the disk.
    pub fn close(mut self) -> Result<(), Wrong> {
        while self.disk.in_flight() > 0 {
            self.disk.wait(Mode::Poll)?;
        }
        Ok(self.disk.close()?)
    }

    /// Reads what was written, or compares what was read and writes another block.
    fn go_on(&mut self, completion: Completion) -> Result<bool, Wrong> {
        if completion.status != Status::OK {
            return Err(Wrong::Other("a request of the disk failed"));
        }
        let slot = completion.slot;
        let lane = &mut self.lanes[usize::from(slot)];
        if lane.reading {
            let at = lane.block * u64::from(BYTES);
            pattern::compare(self.disk.data(slot), at, lane.seed)?;
            self.write(slot)?;
            return Ok(true);
        }
        lane.reading = true;
        let sector = lane.block * u64::from(BYTES) / SECTOR;
        pattern::fill_with(self.disk.data(slot), POISON);
        self.disk.submit(slot, Op::Read, sector, BYTES, Split::WHOLE)?;
        Ok(false)
    }

    /// Writes a block that only this slot uses.
    fn write(&mut self, slot: u16) -> Result<(), Wrong> {
        let lane = &mut self.lanes[usize::from(slot)];
        let block = self.random.below(self.blocks) * u64::from(self.disk.depth()) + u64::from(slot);
        *lane = Lane { block, seed: lane.seed + 1, reading: false };
        pattern::fill(self.disk.data(slot), block * u64::from(BYTES), lane.seed);
        let sector = block * u64::from(BYTES) / SECTOR;
        Ok(self.disk.submit(slot, Op::Write, sector, BYTES, Split::WHOLE)?)
    }
}
