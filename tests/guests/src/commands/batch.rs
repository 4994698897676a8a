//! Batches of reads: how many doorbells and interrupts they take.

use super::{Args, CommandError, Session, find_disk};
use crate::outln;
use crate::pattern::Random;
use crate::pci::Bus;
use crate::virtio::blk::{Disk, DiskError, Mode, Options, SECTOR, SLOTS_MAX};
use crate::virtio::request::{Op, Split, Status};

const BYTES: u32 = 4096;

pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&["disk", "n", "rounds"], &["first"])?;
    let number = args.get("disk")?.unwrap_or(0);
    let count = args.get_within("n", 32, 1, SLOTS_MAX as u64)? as u16;
    let rounds = args.get_within("rounds", 100, 1, 1_000_000)?;
    let function = find_disk(&Bus::scan(), number)?;
    let options = Options {
        queues: 1,
        depth: count,
        slot_bytes: BYTES,
        segments: 1,
        indirect: u64::from(count) * 3 > 256,
    };
    let machine = &mut session.machine;
    let mark = machine.arena.mark();
    let first_only = args.has("first");
    let result = Disk::open(machine, &function, &options).and_then(|mut disk| {
        let failed = drive(&mut disk, rounds, first_only)?;
        let (costs, reads) = (disk.costs(), disk.depth());
        outln!(
            "batch: disk{number} {rounds} rounds of {reads} reads: doorbells {} interrupts {} errors {failed}",
            costs.doorbells,
            costs.interrupts
        );
        disk.close()?;
        Ok(failed)
    });
    machine.arena.release(mark);
    let failed = result.map_err(|error| CommandError::Disk(number, error))?;
    session.failed |= failed != 0;
    Ok(())
}

/// Rounds of as many reads as there are slots, each ended by the one interrupt after all of them;
/// or (`first_only`) with an interrupt asked for at the next to finish whenever there is nothing
/// to take, as Linux does. Returns how many reads failed.
fn drive(disk: &mut Disk, rounds: u64, first_only: bool) -> Result<u64, DiskError> {
    let blocks = disk.requests(BYTES)?;
    let depth = disk.depth();
    let mut random = Random::new(rounds);
    let mut failed = 0;
    for _ in 0..rounds {
        for slot in 0..depth {
            let sector = random.below(blocks) * u64::from(BYTES) / SECTOR;
            disk.submit(slot, Op::Read, sector, BYTES, Split::WHOLE)?;
        }
        if first_only {
            disk.ring();
        } else {
            disk.ring_and_sleep()?;
        }
        while disk.in_flight() > 0 {
            let completion = disk.wait(Mode::Interrupt)?;
            failed += u64::from(completion.status != Status::OK);
        }
    }
    Ok(failed)
}
