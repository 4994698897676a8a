//! What a disk is called, and what it must refuse.

use super::transfer::{Failure, expect};
use crate::commands::Tally;
use crate::mem::Region;
use crate::outln;
use crate::virtio::blk::{Disk, DiskError, Options, SECTOR};
use crate::virtio::feature;
use crate::virtio::request::{Op, Status};

/// How the disk is opened for these checks.
pub(super) const OPTIONS: Options =
    Options { queues: 1, depth: 4, slot_bytes: 16_384, segments: 2, indirect: true };

const ID_LEN: u32 = 20;

/// Checks on the open disk; an error is one after which nothing else would work.
pub(super) fn check(disk: &mut Disk, number: u64, tally: &mut Tally) -> Result<(), DiskError> {
    identify(disk, number, tally)?;
    let capacity = disk.geometry().capacity;
    let block = disk.geometry().block;
    let blocks = u64::from(block) / SECTOR;
    let writes = !disk.has(feature::RO);
    let ops = if writes { &[Op::Read, Op::Write][..] } else { &[Op::Read] };
    for &op in ops {
        let mut out_of_range = || -> Result<(), Failure> {
            expect(disk, op, capacity, block, Status::IO_ERROR)?;
            expect(disk, op, capacity.saturating_sub(blocks), 2 * block, Status::IO_ERROR)?;
            expect(disk, op, u64::MAX - 7, block, Status::IO_ERROR)?;
            // And the disk goes on working.
            expect(disk, Op::Read, capacity.saturating_sub(blocks), block, Status::OK)
        };
        let result = out_of_range();
        tally.report(format_args!("disk{number} refuses an out-of-range {}", op.name()), result);
    }
    if !writes {
        let result = expect(disk, Op::Write, 0, block, Status::IO_ERROR)
            .and_then(|()| expect(disk, Op::Read, 0, block, Status::OK));
        tally.report(format_args!("disk{number} read-only refuses a write"), result);
    }
    if disk.has(feature::FLUSH) {
        let result = expect(disk, Op::Flush, 0, 0, Status::OK);
        tally.report(format_args!("disk{number} flush"), result);
    }
    if !disk.has(feature::DISCARD) && writes {
        let result = expect(disk, Op::Discard, 0, 16, Status::UNSUPPORTED);
        tally.report(format_args!("disk{number} refuses a discard it does not offer"), result);
    }
    Ok(())
}

/// Asks for the disk's identifier and shows it.
fn identify(disk: &mut Disk, number: u64, tally: &mut Tally) -> Result<(), DiskError> {
    let buffer = disk.data(0).slice(0, ID_LEN as usize);
    buffer.clear();
    let completion = disk.request(Op::GetId, 0, ID_LEN)?;
    let result = super::transfer::expect_status(completion, Op::GetId, 0, Status::OK);
    let mut id = [0u8; ID_LEN as usize];
    outln!("disk{number} id '{}'", id_text(buffer, &mut id));
    tally.report(format_args!("disk{number} get-id"), result);
    Ok(())
}

/// The printable beginning of an identifier.
fn id_text(buffer: Region, id: &mut [u8; ID_LEN as usize]) -> &str {
    let mut len = 0;
    for (offset, byte) in id.iter_mut().enumerate() {
        *byte = buffer.load(offset);
        if !(b' '..=b'~').contains(byte) {
            break;
        }
        len = offset + 1;
    }
    core::str::from_utf8(&id[..len]).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::test_memory;

    #[test]
    fn identifiers_end_at_the_first_odd_byte_or_fill_their_room() {
        let buffer = test_memory::region(ID_LEN as usize);
        let mut id = [0; ID_LEN as usize];
        assert_eq!(id_text(buffer, &mut id), "");
        for (offset, byte) in b"disk-0\x01rest".iter().enumerate() {
            buffer.store(offset, *byte);
        }
        assert_eq!(id_text(buffer, &mut id), "disk-0");
        (0..ID_LEN as usize).for_each(|offset| buffer.store(offset, b'x'));
        assert_eq!(id_text(buffer, &mut id), "xxxxxxxxxxxxxxxxxxxx");
    }
}
