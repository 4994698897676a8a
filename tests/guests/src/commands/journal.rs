//! A load for crash tests: records that are written once, and told of when they are durable.

use super::{Args, CommandError, Session, find_disk};
use crate::outln;
use crate::pattern;
use crate::pci::Bus;
use crate::virtio::blk::{Disk, DiskError, Mode, Options, SECTOR};
use crate::virtio::request::{Op, Split, Status};

/// Bytes of a record.
const BYTES: u32 = 4096;
/// Records between two flushes.
const BATCH: u16 = 8;
/// Record `n` goes to block `n * STRIDE` modulo the number of blocks: odd, so that a power of two
/// of blocks is used up without two records in one.
const STRIDE: u64 = 7919;

/// Writes records until the disk is full. After each flush one line tells how many are durable:
/// `journal: N`. Each word of record `n` is `n + 1`.
pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&["disk"], &[])?;
    let number = args.get("disk")?.unwrap_or(0);
    let function = find_disk(&Bus::scan(), number)?;
    let options =
        Options { queues: 1, depth: BATCH, slot_bytes: BYTES, segments: 1, indirect: false };
    let machine = &mut session.machine;
    let mark = machine.arena.mark();
    let result = Disk::open(machine, &function, &options).and_then(|mut disk| {
        let failed = drive(&mut disk)?;
        disk.close()?;
        Ok(failed)
    });
    machine.arena.release(mark);
    let failed = result.map_err(|error| CommandError::Disk(number, error))?;
    session.failed |= failed != 0;
    outln!("journal ends, errors {failed}");
    Ok(())
}

/// Returns how many requests failed.
fn drive(disk: &mut Disk) -> Result<u64, DiskError> {
    let blocks = disk.requests(BYTES)?;
    let (mut record, mut failed) = (0, 0);
    while record + u64::from(BATCH) <= blocks {
        for slot in 0..BATCH {
            pattern::fill_with(disk.data(slot).slice(0, BYTES as usize), record + 1);
            let sector = record * STRIDE % blocks * u64::from(BYTES) / SECTOR;
            disk.submit(slot, Op::Write, sector, BYTES, Split::WHOLE)?;
            record += 1;
        }
        disk.ring();
        while disk.in_flight() > 0 {
            let completion = disk.wait(Mode::Interrupt)?;
            failed += u64::from(completion.status != Status::OK);
        }
        let flushed = disk.request(Op::Flush, 0, 0)?;
        failed += u64::from(flushed.status != Status::OK);
        if failed > 0 {
            return Ok(failed);
        }
        outln!("journal: {record}");
    }
    Ok(failed)
}
