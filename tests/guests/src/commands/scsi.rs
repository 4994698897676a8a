//! `scsi`: finds the units of a SCSI host, and writes, reads back and compares them.

use core::fmt;

use super::{Args, CommandError, Session, Tally};
use crate::outln;
use crate::pattern::{self, Mismatch};
use crate::pci::{Bus, Function};
use crate::text::Bytes;
use crate::virtio::blk::DiskError;
use crate::virtio::device::{self, TYPE_SCSI};
use crate::virtio::scsi::{Answer, DATA_LEN, Data, Host, Place};

const SEED: u64 = 0x5c51;
/// Units of a target at most.
const LUNS_MAX: usize = 16;
/// Unit attentions in a row at most.
const ATTENTIONS_MAX: usize = 8;

/// Why a check failed.
pub(super) enum Wrong {
    Host(DiskError),
    Answer(Answer),
    Bytes(Mismatch),
    Other(&'static str),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Answer(answer) => answer.fmt(f),
            Self::Bytes(mismatch) => mismatch.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<DiskError> for Wrong {
    fn from(error: DiskError) -> Self {
        Self::Host(error)
    }
}

impl From<Mismatch> for Wrong {
    fn from(mismatch: Mismatch) -> Self {
        Self::Bytes(mismatch)
    }
}

pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&["host", "targets", "kib"], &[])?;
    let number = args.get("host")?.unwrap_or(0);
    let targets = args.get_within("targets", 8, 1, 256)?;
    let span = args.get_within("kib", 1024, 64, 1 << 20)? << 10;
    let function = find_host(&Bus::scan(), number)?;
    let machine = &mut session.machine;
    let mark = machine.arena.mark();
    let mut tally = Tally::default();
    let result = Host::open(machine, &function).and_then(|mut host| {
        for target in 0..targets {
            check_target(&mut host, &mut tally, target as u8, span)?;
        }
        host.close()
    });
    machine.arena.release(mark);
    result.map_err(|error| CommandError::Host(number, error))?;
    tally.finish(session, "scsi");
    Ok(())
}

/// The host `number` counts, in the order of the bus.
pub(super) fn find_host<'a>(bus: &Bus, number: u64) -> Result<Function, CommandError<'a>> {
    let hosts = bus.functions().iter();
    let mut hosts = hosts.filter(|it| device::device_type(it) == Some(TYPE_SCSI));
    let found = hosts.nth(usize::try_from(number).unwrap_or(usize::MAX));
    found.copied().ok_or(CommandError::NoHost(number))
}

/// Checks every unit that REPORT LUNS names.
fn check_target(
    host: &mut Host,
    tally: &mut Tally,
    target: u8,
    span: u64,
) -> Result<(), DiskError> {
    let place = |lun| Place { target, lun };
    let report = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 8 + 8 * LUNS_MAX as u8, 0, 0];
    let answer = host.run(place([0, 0]), &report, Data::In(8 + 8 * LUNS_MAX as u32))?;
    if answer.response == Answer::BAD_TARGET {
        return Ok(());
    }
    let bytes = big_endian(host, 0, 4) as usize;
    let mut luns = [[0; 2]; LUNS_MAX];
    let count = (bytes / 8).min(LUNS_MAX);
    for (n, lun) in luns[..count].iter_mut().enumerate() {
        *lun = [host.data.load(8 + 8 * n), host.data.load(9 + 8 * n)];
    }
    for lun in &luns[..count] {
        let number = u16::from_be_bytes(*lun) & 0x3fff;
        let result = check_unit(host, place(*lun), span);
        tally.report(format_args!("unit {target}:{number}"), result);
    }
    Ok(())
}

/// Runs a command that has to succeed.
fn good(host: &mut Host, place: Place, cdb: &[u8], data: Data) -> Result<(), Wrong> {
    host.run(place, cdb, data)?.good().map_err(Wrong::Answer)
}

/// The number in `len` bytes of data from `at` on.
fn big_endian(host: &Host, at: usize, len: usize) -> u64 {
    (at..at + len).fold(0, |number, at| number << 8 | u64::from(host.data.load::<u8>(at)))
}

/// Checks a unit that nothing was asked before, over `span` bytes.
pub(super) fn check_unit(host: &mut Host, place: Place, span: u64) -> Result<(), Wrong> {
    good(host, place, &[0x12, 0, 0, 0, 36, 0], Data::In(36))?;
    let kind = host.data.load::<u8>(0);
    if kind == 0x3f {
        outln!("scsi: {}: no unit 0", place.target);
        return Ok(());
    }
    if !hear_attentions(host, place)? {
        return Err(Wrong::Other("the first command brought no unit attention"));
    }
    let capacity = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    good(host, place, &capacity, Data::In(32))?;
    let (blocks, block) = (big_endian(host, 0, 8) + 1, big_endian(host, 8, 4));
    if !matches!(block, 512..=4096) {
        return Err(Wrong::Other("blocks of an odd size"));
    }
    let what = if kind == 0 { "disk" } else { "cd" };
    outln!("scsi: {}: {what} of {blocks} blocks of {block}", place.target);
    if kind == 5 {
        return check_cd(host, place, block);
    }
    check_disk(host, place, (blocks, block), span)
}

/// Asks until the unit has nothing new to tell; whether it had.
pub(super) fn hear_attentions(host: &mut Host, place: Place) -> Result<bool, Wrong> {
    let mut heard = false;
    for _ in 0..ATTENTIONS_MAX {
        let answer = host.run(place, &[0; 6], Data::None)?;
        if !answer.is_attention() {
            answer.good().map_err(Wrong::Answer)?;
            return Ok(heard);
        }
        heard = true;
    }
    Err(Wrong::Other("unit attentions without end"))
}

/// READ(16), WRITE(16).
pub(super) fn transfer(code: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = code;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn check_disk(
    host: &mut Host,
    place: Place,
    (blocks, block): (u64, u64),
    span: u64,
) -> Result<(), Wrong> {
    let piece = DATA_LEN as u64 / block;
    let covered = blocks.min(span / block);
    // The start, and the very end.
    let places = || (0..covered).step_by(piece as usize).chain([blocks.saturating_sub(piece)]);
    for lba in places() {
        let n = piece.min(blocks - lba);
        pattern::fill(host.data, lba * block, SEED);
        let bytes = Data::Out((n * block) as u32);
        good(host, place, &transfer(0x8a, lba, n as u32), bytes)?;
    }
    good(host, place, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None)?;
    for lba in places() {
        let n = piece.min(blocks - lba);
        pattern::fill_with(host.data, pattern::POISON);
        let bytes = Data::In((n * block) as u32);
        good(host, place, &transfer(0x88, lba, n as u32), bytes)?;
        let read = host.data.slice(0, (n * block) as usize);
        pattern::compare(read, lba * block, SEED)?;
    }
    let past = host.run(place, &transfer(0x88, blocks, 1), Data::In(block as u32))?;
    if past.sense != [5, 0x21, 0] {
        return Err(Wrong::Answer(past));
    }
    outln!("scsi: {}: {} compared", place.target, Bytes(covered * block));
    Ok(())
}

/// Checks that the host knows no such target any more.
pub(super) fn check_gone(host: &mut Host, place: Place) -> Result<(), Wrong> {
    let answer = host.run(place, &[0; 6], Data::None)?;
    if answer.response == Answer::BAD_TARGET { Ok(()) } else { Err(Wrong::Answer(answer)) }
}

fn check_cd(host: &mut Host, place: Place, block: u64) -> Result<(), Wrong> {
    good(host, place, &transfer(0x88, 0, 1), Data::In(block as u32))?;
    let refused = host.run(place, &transfer(0x8a, 0, 1), Data::Out(block as u32))?;
    if refused.sense == [7, 0x27, 0] { Ok(()) } else { Err(Wrong::Answer(refused)) }
}
