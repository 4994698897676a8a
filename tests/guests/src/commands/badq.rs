//! `badq`: malformed virtqueues. The device has to ask for a reset, and to work after it.

use core::fmt;

use super::proof::{self, BYTES, Broken};
use super::{Args, CommandError, Session, Tally, find_disk};
use crate::cpu::{self, vector};
use crate::machine::Machine;
use crate::mem::Region;
use crate::outln;
use crate::pci::{Bus, Function};
use crate::time::LIMIT_TICKS;
use crate::virtio::blk::{Disk, DiskError};
use crate::virtio::device::{DeviceError, QueueSetup};
use crate::virtio::feature;
use crate::virtio::queue::{Queue, flag, write_descriptor};
use crate::virtio::request::Op;

/// Beyond the RAM of any machine this runs on, and not a device.
const NOWHERE: u64 = 0x000f_ffff_0000_0000;
/// A way to get a queue wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Descriptors linked in a circle.
    Loop,
    /// A buffer where there is no memory.
    Address,
    /// A buffer whose end is beyond all addresses.
    Wrap,
    /// A buffer of no bytes.
    Zero,
    /// A buffer to read after one to write.
    Direction,
    /// A header that is for the device to write.
    Header,
    /// No byte for the status.
    Status,
    /// A link out of the table.
    Next,
    /// A chain that starts outside the table.
    Head,
    /// An available index ahead by more than the queue holds.
    Jump,
    /// An indirect table in an indirect table.
    Nested,
    /// An indirect table whose length is no multiple of a descriptor's.
    Table,
    /// Rings where there is no memory.
    Rings,
}

const KINDS: [(&str, Kind); 13] = [
    ("loop", Kind::Loop),
    ("addr", Kind::Address),
    ("wrap", Kind::Wrap),
    ("zero", Kind::Zero),
    ("direction", Kind::Direction),
    ("header", Kind::Header),
    ("status", Kind::Status),
    ("next", Kind::Next),
    ("head", Kind::Head),
    ("jump", Kind::Jump),
    ("nested", Kind::Nested),
    ("table", Kind::Table),
    ("rings", Kind::Rings),
];

/// Why a kind failed.
enum Failure {
    /// The device did not ask for a reset.
    NotNoticed(u8),
    /// It did, but did not interrupt for it.
    NoInterrupt,
    /// It did not work before.
    Before(DiskError),
    /// It did not work after the reset.
    After(Broken),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNoticed(status) => {
                write!(f, "device does not ask for a reset, status {status:#04x}")
            }
            Self::NoInterrupt => write!(f, "no configuration interrupt with the need of a reset"),
            Self::Before(error) => error.fmt(f),
            Self::After(broken) => write!(f, "after the reset: {broken}"),
        }
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Before(error)
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self::Before(error.into())
    }
}

pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    let number = args.get("disk")?.unwrap_or(0);
    args.allow(&["disk"], &KINDS.map(|(name, _)| name))?;
    let all = !KINDS.iter().any(|(name, _)| args.has(name));
    let function = find_disk(&Bus::scan(), number)?;
    let mut tally = Tally::default();
    for (name, kind) in KINDS.iter().filter(|(name, _)| all || args.has(name)) {
        let machine = &mut session.machine;
        let mark = machine.arena.mark();
        let result = break_and_mend(machine, &function, *kind);
        machine.arena.release(mark);
        let what = format_args!("badq disk{number} {name}: asks for a reset, works after it");
        match result {
            Ok(true) => tally.report(what, Ok::<(), Failure>(())),
            Ok(false) => outln!("skip badq disk{number} {name}: needs indirect descriptors"),
            Err(failure) => tally.report(what, Err(failure)),
        }
    }
    tally.finish(session, "badq");
    Ok(())
}

/// Whether the device could be got wrong that way; an error when it did not take it well.
fn break_and_mend(machine: &mut Machine, function: &Function, kind: Kind) -> Result<bool, Failure> {
    let mut disk = Disk::open(machine, function, &proof::OPTIONS)?;
    if matches!(kind, Kind::Nested | Kind::Table) && !disk.has(feature::INDIRECT_DESC) {
        disk.close()?;
        return Ok(false);
    }
    let interrupts = cpu::interrupts(vector::CONFIG);
    if kind == Kind::Rings {
        misplace_rings(&disk)?;
    }
    let data = disk.data(0);
    if let Some((queue, doorbell)) = disk.queue_mut(0) {
        misuse(queue, kind, data);
        queue.publish();
        doorbell.store(0, 0u16);
    }
    expect_reset_wanted(&disk, interrupts)?;
    disk.close()?;
    proof::prove(machine, function).map_err(Failure::After)?;
    Ok(true)
}

/// Starts the device anew with its first queue where there is no memory.
fn misplace_rings(disk: &Disk) -> Result<(), Failure> {
    let device = disk.device();
    device.negotiate(0)?;
    let size = device.queue_size_max(0);
    let (descriptors, driver) = (NOWHERE, NOWHERE + 0x10_0000);
    let setup = QueueSetup { size, descriptors, driver, device: NOWHERE + 0x20_0000 };
    device.set_queue(0, &setup)?;
    device.start();
    Ok(())
}

/// Adds the malformed chain. `data` has room for the parts of a request.
fn misuse(queue: &mut Queue, kind: Kind, data: Region) {
    let table = queue.descriptors();
    let size = queue.size();
    let (header, buffer) = (data.address(), data.address() + 4096);
    let status = data.address() + 64;
    data.store(0, Op::Read.code());
    data.store(4, 0u32);
    data.store(8, 0u64);
    // A read of one sector, right but for what `kind` says.
    let next_write = flag::NEXT | flag::WRITE;
    let mut chain =
        [(header, 16, flag::NEXT, 1), (buffer, 512, next_write, 2), (status, 1, flag::WRITE, 0)];
    match kind {
        Kind::Loop => chain[2] = (status, 1, next_write, 1),
        Kind::Address => chain[1] = (NOWHERE, BYTES, next_write, 2),
        Kind::Wrap => chain[1] = (u64::MAX - 511, BYTES, next_write, 2),
        Kind::Zero => chain[1].1 = 0,
        Kind::Direction => (chain[1].2, chain[0].2) = (flag::NEXT, next_write),
        Kind::Header => chain[0].2 = next_write,
        Kind::Status => (chain[1].2, chain[2].2) = (flag::NEXT, 0),
        Kind::Next => chain[1].3 = size,
        Kind::Nested | Kind::Table => {
            // The inner table is right, so that a device which follows it shows itself.
            let (outer, inner) = (data.slice(128, 16), data.slice(256, 64));
            for ((address, len, flags, next), index) in chain.into_iter().zip(0..) {
                write_descriptor(inner, index, address, len, flags, next);
            }
            write_descriptor(outer, 0, inner.address(), 48, flag::INDIRECT, 0);
            chain[0] = match kind {
                Kind::Nested => (outer.address(), 16, flag::INDIRECT, 0),
                _ => (inner.address(), 56, flag::INDIRECT, 0),
            };
        }
        Kind::Head | Kind::Jump | Kind::Rings => {}
    }
    for ((address, len, flags, next), index) in chain.into_iter().zip(0..) {
        write_descriptor(table, index, address, len, flags, next);
    }
    queue.add(if kind == Kind::Head { size } else { 0 });
    if kind == Kind::Jump {
        queue.skip(size);
    }
}

/// Waits until the device asks for a reset, by its status and by a configuration interrupt.
fn expect_reset_wanted(disk: &Disk, interrupts: u32) -> Result<(), Failure> {
    let start = cpu::tsc();
    let within_limit = || cpu::tsc() - start < LIMIT_TICKS / 4;
    while !disk.needs_reset() {
        if !within_limit() {
            return Err(Failure::NotNoticed(disk.device().status()));
        }
    }
    while cpu::interrupts(vector::CONFIG) == interrupts {
        if !within_limit() {
            return Err(Failure::NoInterrupt);
        }
    }
    Ok(())
}
