//! Discard and write-zeroes: what they clear, and what they leave alone.

use super::Target;
use super::transfer::{Failure, expect};
use crate::commands::Tally;
use crate::pattern::{self, POISON};
use crate::virtio::blk::{Disk, Options, SECTOR};
use crate::virtio::feature;
use crate::virtio::request::{Op, Status};

const AREA: u32 = 256 << 10;
const SEED: u64 = 0x5eed;
/// Lets the device give up blocks that are set to zero.
const UNMAP: u32 = 1;

const OPTIONS: Options =
    Options { queues: 1, depth: 1, slot_bytes: AREA, segments: 1, indirect: false };

/// What must be where blocks were given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Zeroes,
    /// The specification leaves it open.
    Anything,
}

struct Case {
    name: &'static str,
    op: Op,
    flags: u32,
    offered: u64,
    after: After,
}

const CASES: [Case; 3] = [
    Case {
        name: "write-zeroes",
        op: Op::WriteZeroes,
        flags: 0,
        offered: feature::WRITE_ZEROES,
        after: After::Zeroes,
    },
    Case {
        name: "write-zeroes unmap",
        op: Op::WriteZeroes,
        flags: UNMAP,
        offered: feature::WRITE_ZEROES,
        after: After::Zeroes,
    },
    Case {
        name: "discard",
        op: Op::Discard,
        flags: 0,
        offered: feature::DISCARD,
        after: After::Anything,
    },
];

pub(super) fn check(target: &mut Target<'_>, tally: &mut Tally) {
    let number = target.number;
    if target.limit < AREA.into() {
        return;
    }
    for case in &CASES {
        let mut zero = false;
        let result = target.with_disk(&OPTIONS, |disk| {
            if !disk.has(case.offered) {
                return Ok(false);
            }
            zero = run(disk, case)?;
            Ok(true)
        });
        let note = if zero { "reads zero" } else { "keeps its contents" };
        match result {
            Ok(false) => {}
            Ok(true) => {
                tally.report(
                    format_args!("disk{number} {} {note}", case.name),
                    Ok::<(), Failure>(()),
                );
            }
            Err(error) => tally.report(format_args!("disk{number} {}", case.name), Err(error)),
        }
    }
}

/// Fills the area, clears its middle half and looks at all of it. Whether the middle reads zero.
fn run(disk: &mut Disk, case: &Case) -> Result<bool, Failure> {
    let whole = disk.data(0);
    pattern::fill(whole, 0, SEED);
    expect(disk, Op::Write, 0, AREA, Status::OK)?;
    let quarter = AREA / 4;
    let most = match case.op {
        Op::Discard => disk.geometry().discard_sectors,
        _ => disk.geometry().zeroes_sectors,
    };
    let block_sectors = disk.geometry().block / SECTOR as u32;
    let sectors = (2 * quarter / SECTOR as u32).min(most) / block_sectors * block_sectors;
    let first = u64::from(quarter) / SECTOR;
    let segment = whole.slice(0, 16);
    segment.store(0, first);
    segment.store(8, sectors);
    segment.store(12, case.flags);
    expect(disk, case.op, 0, 16, Status::OK)?;
    // A range beyond the end is refused.
    segment.store(0, disk.geometry().capacity);
    expect(disk, case.op, 0, 16, Status::IO_ERROR)?;
    // So are flags that do not exist, or not for this command.
    segment.store(0, first);
    segment.store(12, if case.op == Op::Discard { UNMAP } else { 0x80 });
    expect(disk, case.op, 0, 16, Status::UNSUPPORTED)?;
    pattern::fill_with(whole, POISON);
    expect(disk, Op::Read, 0, AREA, Status::OK)?;
    let start = quarter as usize;
    let end = start + (u64::from(sectors) * SECTOR) as usize;
    let tail = AREA as usize - end;
    pattern::compare(whole.slice(0, start), 0, SEED)?;
    pattern::compare(whole.slice(end, tail), end as u64, SEED)?;
    let middle = whole.slice(start, end - start);
    match pattern::compare_value(middle, start as u64, 0) {
        Ok(()) => Ok(true),
        Err(mismatch) if case.after == After::Zeroes => Err(mismatch.into()),
        // Not zeroes: then it has to be what was there.
        Err(_) => pattern::compare(middle, start as u64, SEED).map(|()| false).map_err(Into::into),
    }
}
