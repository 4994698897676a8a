//! The proof that a disk works: some data goes there and comes back.

use core::fmt;

use crate::machine::Machine;
use crate::pattern::{self, Mismatch, POISON};
use crate::pci::Function;
use crate::virtio::blk::{Disk, DiskError, Options};
use crate::virtio::feature;
use crate::virtio::request::{Op, Status};

/// How much data.
pub(super) const BYTES: u32 = 65_536;
const SEED: u64 = 0xbad;

/// How the disk is opened.
pub(super) const OPTIONS: Options =
    Options { queues: 1, depth: 1, slot_bytes: BYTES, segments: 1, indirect: true };

/// Why the disk does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It cannot be driven.
    Disk(DiskError),
    /// A request fails.
    Status(Op, Status),
    /// Other data comes back.
    Data(Mismatch),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Status(op, status) => write!(f, "{} ends {status}", op.name()),
            Self::Data(mismatch) => mismatch.fmt(f),
        }
    }
}

impl From<DiskError> for Broken {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// Sets the disk up, writes its first 64 KiB and reads them back; only reads when the disk is
/// read only.
pub(super) fn prove(machine: &mut Machine, function: &Function) -> Result<(), Broken> {
    let mark = machine.arena.mark();
    let result =
        Disk::open(machine, function, &OPTIONS).map_err(Broken::from).and_then(|mut disk| {
            let result = move_data(&mut disk);
            disk.close()?;
            result
        });
    machine.arena.release(mark);
    result
}

fn move_data(disk: &mut Disk) -> Result<(), Broken> {
    let block = disk.geometry().block;
    let blocks = disk.requests(block)?.min(u64::from(BYTES / block).max(1)) as u32;
    let data = disk.data(0).slice(0, (blocks * block) as usize);
    let read_only = disk.has(feature::RO);
    if !read_only {
        pattern::fill(data, 0, SEED);
        request(disk, Op::Write, blocks * block)?;
    }
    pattern::fill_with(data, POISON);
    request(disk, Op::Read, blocks * block)?;
    if read_only { Ok(()) } else { pattern::compare(data, 0, SEED).map_err(Broken::Data) }
}

fn request(disk: &mut Disk, op: Op, bytes: u32) -> Result<(), Broken> {
    match disk.request(op, 0, bytes)?.status {
        Status::OK => Ok(()),
        status => Err(Broken::Status(op, status)),
    }
}
