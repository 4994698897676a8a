//! Moving the test data: many requests in flight, each result looked at.

use core::fmt;

use super::Pass;
use super::extents::{Extent, Extents};
use crate::pattern::{self, Mismatch, POISON};
use crate::virtio::blk::{Completion, Disk, DiskError, Mode, SECTOR, SLOTS_MAX};
use crate::virtio::feature;
use crate::virtio::request::{Op, Split, Status};

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The disk could not be driven on.
    Disk(DiskError),
    /// A request ended otherwise than expected.
    Status {
        /// What it was.
        op: Op,
        /// Its first sector.
        sector: u64,
        /// How it should have ended.
        expected: Status,
        /// How it did.
        found: Status,
    },
    /// The device says it has written another number of bytes than it should have.
    Length {
        /// What the request was.
        op: Op,
        /// The bytes it should have written, status byte included.
        expected: u32,
        /// What the used ring says.
        found: u32,
    },
    /// Data is not what was written.
    Data(Mismatch),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Status { op, sector, expected, found } => {
                write!(f, "{} at sector {sector}: status {found}, not {expected}", op.name())
            }
            Self::Length { op, expected, found } => {
                write!(f, "{}: used length {found}, not {expected}", op.name())
            }
            Self::Data(mismatch) => mismatch.fmt(f),
        }
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<Mismatch> for Failure {
    fn from(mismatch: Mismatch) -> Self {
        Self::Data(mismatch)
    }
}

/// The part of a disk that is used: bytes, multiples of the block size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// Bytes of a block.
    pub block: u32,
}

/// Writes the pattern of `seed` over the area; returns the number of requests.
pub(super) fn write(disk: &mut Disk, pass: &Pass, area: &Area, seed: u64) -> Result<u64, Failure> {
    transfer(disk, pass, Op::Write, area, seed)
}

/// Reads the area, cut otherwise than when it was written, and compares.
pub(super) fn read_back(
    disk: &mut Disk,
    pass: &Pass,
    area: &Area,
    seed: u64,
) -> Result<u64, Failure> {
    transfer(disk, pass, Op::Read, area, seed)
}

/// Makes what was written durable, where the device has a command for it.
pub(super) fn flush(disk: &mut Disk) -> Result<(), Failure> {
    if !disk.has(feature::FLUSH) {
        return Ok(());
    }
    let completion = disk.request(Op::Flush, 0, 0)?;
    expect_status(completion, Op::Flush, 0, Status::OK)
}

/// Checks how a request ended.
pub(super) fn expect_status(
    completion: Completion,
    op: Op,
    sector: u64,
    expected: Status,
) -> Result<(), Failure> {
    let found = completion.status;
    if found == expected {
        return Ok(());
    }
    Err(Failure::Status { op, sector, expected, found })
}

fn transfer(disk: &mut Disk, pass: &Pass, op: Op, area: &Area, seed: u64) -> Result<u64, Failure> {
    let order = seed * 2 + u64::from(op == Op::Read);
    let mut extents = Extents::new(area.start, area.end, area.block, pass.sizes, order);
    let split = Split { segments: pass.segments, unit: pass.unit };
    let mut places = [Extent { start: 0, bytes: 0 }; SLOTS_MAX];
    let mut free = [0u16; SLOTS_MAX];
    let mut free_count = usize::from(disk.depth());
    for (entry, slot) in free.iter_mut().zip(0..disk.depth()) {
        *entry = slot;
    }
    let mut requests = 0;
    loop {
        while free_count > 0 {
            let Some(extent) = extents.next() else { break };
            free_count -= 1;
            let slot = free[free_count];
            places[usize::from(slot)] = extent;
            prepare(disk, slot, op, &extent, seed);
            disk.submit(slot, op, extent.start / SECTOR, extent.bytes, split)?;
            requests += 1;
        }
        disk.ring();
        if disk.in_flight() == 0 {
            return Ok(requests);
        }
        let mut completion = Some(disk.wait(pass.mode)?);
        while let Some(done) = completion {
            finish(disk, op, &places[usize::from(done.slot)], done, seed)?;
            free[free_count] = done.slot;
            free_count += 1;
            completion = disk.take()?;
        }
    }
}

fn prepare(disk: &Disk, slot: u16, op: Op, extent: &Extent, seed: u64) {
    let buffer = disk.data(slot).slice(0, extent.bytes as usize);
    if op == Op::Write {
        pattern::fill(buffer, extent.start, seed);
    } else {
        pattern::fill_with(buffer, POISON);
    }
}

fn finish(
    disk: &Disk,
    op: Op,
    extent: &Extent,
    completion: Completion,
    seed: u64,
) -> Result<(), Failure> {
    expect_status(completion, op, extent.start / SECTOR, Status::OK)?;
    let expected = if op.fills_data() { extent.bytes + 1 } else { 1 };
    if completion.written != expected {
        return Err(Failure::Length { op, expected, found: completion.written });
    }
    if op == Op::Read {
        let buffer = disk.data(completion.slot).slice(0, extent.bytes as usize);
        pattern::compare(buffer, extent.start, seed)?;
    }
    Ok(())
}

/// Does one polled request in slot 0 and checks how it ended.
pub(super) fn expect(
    disk: &mut Disk,
    op: Op,
    sector: u64,
    bytes: u32,
    expected: Status,
) -> Result<(), Failure> {
    disk.submit(0, op, sector, bytes, Split::WHOLE)?;
    disk.ring();
    let completion = disk.wait(Mode::Poll)?;
    expect_status(completion, op, sector, expected)
}
