//! `check`: writes, flushes, reads back and compares every byte, in many ways.

mod extents;
mod limits;
mod transfer;
mod zeroes;

use core::fmt;

use self::extents::Sizes;
use self::transfer::Failure;
use super::{Args, CommandError, Session, Tally, disks};
use crate::machine::Machine;
use crate::outln;
use crate::pci::{Bus, Function};
use crate::text::Bytes;
use crate::virtio::blk::{Disk, DiskError, Mode, Options, QUEUES_MAX, SECTOR};
use crate::virtio::feature;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// How much of a disk is used unless `mib=` says otherwise.
const MIB_DEFAULT: u64 = 64;

/// One way of writing and reading back part of a disk.
struct Pass {
    mode: Mode,
    depth: u16,
    sizes: Sizes,
    /// How much of the disk, from the first block.
    span: u64,
    /// Blocks left out at the start, so that requests are not aligned to 4 KiB.
    skip: u64,
    segments: u16,
    /// What segments but the last are a multiple of.
    unit: u32,
    indirect: bool,
}

const POLL: Mode = Mode::Poll;
const IRQ: Mode = Mode::Interrupt;
const SMALL: &[u32] = &[512, 1024, 1536, 4096, 8192, 20_480];
const MIXED: &[u32] = &[512, 4096, 12_800, 65_536, 131_072, 262_144];
const LARGE: &[u32] = &[131_072, 262_144, 258_048, 196_608];

const PASSES: [Pass; 11] = [
    pass(POLL, 1, &[512], 64 * KIB, 0),
    pass(IRQ, 1, &[4096], 256 * KIB, 0),
    Pass { segments: 4, ..pass(POLL, 4, &[16_384], 8 * MIB, 1) },
    Pass { segments: 3, indirect: true, ..pass(IRQ, 4, SMALL, 2 * MIB, 3) },
    Pass { segments: 4, unit: 1, ..pass(POLL, 4, &[4096, 1024], MIB, 7) },
    Pass { segments: 2, ..pass(POLL, 32, &[4096], 8 * MIB, 5) },
    Pass { segments: 5, ..pass(IRQ, 32, MIXED, u64::MAX, 1) },
    Pass { segments: 8, indirect: true, ..pass(POLL, 32, LARGE, u64::MAX, 0) },
    Pass { segments: 16, indirect: true, ..pass(IRQ, 4, LARGE, u64::MAX, 2) },
    Pass { indirect: true, ..pass(POLL, 128, &[4096, 512], 4 * MIB, 0) },
    Pass { indirect: true, segments: 2, ..pass(IRQ, 128, &[8192], 8 * MIB, 9) },
];

const fn pass(mode: Mode, depth: u16, sizes: Sizes, span: u64, skip: u64) -> Pass {
    Pass { mode, depth, sizes, span, skip, segments: 1, unit: SECTOR as u32, indirect: false }
}

impl Pass {
    fn size_max(&self) -> u32 {
        self.sizes.iter().copied().max().unwrap_or(0)
    }

    fn options(&self, target: &Target) -> Options {
        Options {
            queues: target.queues,
            depth: self.depth,
            slot_bytes: self.size_max().next_multiple_of(4096),
            segments: self.segments,
            indirect: self.indirect,
        }
    }
}

/// The sizes of a pass, for its line.
struct SizesText(Sizes);

impl fmt::Display for SizesText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().min().copied().unwrap_or(0);
        let most = self.0.iter().max().copied().unwrap_or(0);
        write!(f, "{}", Bytes(least.into()))?;
        if least == most { Ok(()) } else { write!(f, " to {}", Bytes(most.into())) }
    }
}

/// The disk being checked, and how much of it.
struct Target<'m> {
    machine: &'m mut Machine,
    function: Function,
    number: u64,
    queues: u16,
    /// Bytes at the start of the disk that may be used.
    limit: u64,
}

impl Target<'_> {
    /// Opens the disk, has `work` done and closes it again.
    fn with_disk<T>(
        &mut self,
        options: &Options,
        work: impl FnOnce(&mut Disk) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mark = self.machine.arena.mark();
        let result = Disk::open(self.machine, &self.function, options)
            .map_err(Failure::from)
            .and_then(|mut disk| {
                let result = work(&mut disk);
                disk.close()?;
                result
            });
        self.machine.arena.release(mark);
        result
    }
}

pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&["disk", "queues", "mib"], &[])?;
    let only = args.get("disk")?;
    let queues = args.get_within("queues", QUEUES_MAX as u64, 1, QUEUES_MAX as u64)? as u16;
    let mib = args.get_within("mib", MIB_DEFAULT, 1, 1 << 30)?;
    let bus = Bus::scan();
    let mut tally = Tally::default();
    let chosen = |(number, _): &(u64, &Function)| only.is_none_or(|only| only == *number);
    let mut checked = 0;
    for (number, function) in (0..).zip(disks(&bus)).filter(chosen) {
        let machine = &mut session.machine;
        let function = *function;
        let mut target = Target { machine, function, number, queues, limit: mib * MIB };
        if let Err(error) = check_disk(&mut target, &mut tally) {
            tally.report(format_args!("disk{number}"), Err(error));
        }
        checked += 1;
    }
    if checked == 0 {
        return Err(CommandError::NoDisk(only.unwrap_or(0)));
    }
    tally.finish(session, "check");
    Ok(())
}

/// Runs everything on one disk; an error is one that kept the disk from being set up at all.
fn check_disk(target: &mut Target<'_>, tally: &mut Tally) -> Result<(), DiskError> {
    let number = target.number;
    let mark = target.machine.arena.mark();
    let mut disk = Disk::open(target.machine, &target.function, &limits::OPTIONS)?;
    let geometry = *disk.geometry();
    let read_only = disk.has(feature::RO);
    let queues = geometry.queues.min(target.queues).min(QUEUES_MAX as u16);
    outln!(
        "disk{number} at {}: {}, block {}, queues {queues} of {}, features{}",
        target.function.location,
        Bytes(geometry.capacity * SECTOR),
        geometry.block,
        geometry.queues,
        Features(&disk)
    );
    let limits = limits::check(&mut disk, number, tally);
    let closed = disk.close();
    target.machine.arena.release(mark);
    limits.and(closed)?;
    if read_only {
        return Ok(());
    }
    let block = u64::from(geometry.block);
    target.limit = target.limit.min(geometry.capacity * SECTOR) / block * block;
    for (pass, seed) in PASSES.iter().zip(1..) {
        check_pass(target, pass, seed, geometry.block, tally);
    }
    zeroes::check(target, tally);
    Ok(())
}

fn check_pass(target: &mut Target<'_>, pass: &Pass, seed: u64, block: u32, tally: &mut Tally) {
    let number = target.number;
    let span = pass.span.min(target.limit);
    let start = (pass.skip * u64::from(block)).min(span);
    let area = transfer::Area { start, end: span, block };
    let options = pass.options(target);
    let mut summary = (pass.depth, 0, 0);
    let result = target.with_disk(&options, |disk| {
        let write = transfer::write(disk, pass, &area, seed);
        summary = (disk.depth(), disk.queue_count(), *write.as_ref().unwrap_or(&0));
        write?;
        transfer::flush(disk)?;
        summary.2 += transfer::read_back(disk, pass, &area, seed)?;
        Ok(())
    });
    let (depth, queues, requests) = summary;
    tally.report(
        format_args!(
            "disk{number} {} qd={depth} queues={queues} segments={}{}{} {}: {} in {requests} requests",
            pass.mode.name(),
            pass.segments,
            if pass.unit == 1 { " odd" } else { "" },
            if pass.indirect { " indirect" } else { "" },
            SizesText(pass.sizes),
            Bytes(area.end - area.start),
        ),
        result,
    );
}

/// The features agreed upon, each with a space before it.
struct Features<'d>(&'d Disk);

impl fmt::Display for Features<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (feature::EVENT_IDX, "event-idx"),
            (feature::INDIRECT_DESC, "indirect"),
            (feature::MQ, "mq"),
            (feature::FLUSH, "flush"),
            (feature::TOPOLOGY, "topology"),
            (feature::DISCARD, "discard"),
            (feature::WRITE_ZEROES, "write-zeroes"),
            (feature::RO, "read-only"),
        ];
        let mut agreed = names.iter().filter(|(bit, _)| self.0.has(*bit));
        agreed.try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_depths_modes_and_sizes() {
        let deep = |depth, mode| PASSES.iter().any(|it| it.depth == depth && it.mode == mode);
        assert!([1, 4, 32, 128].into_iter().all(|depth| deep(depth, POLL) && deep(depth, IRQ)));
        let sizes = || PASSES.iter().flat_map(|it| it.sizes);
        assert_eq!((sizes().min(), sizes().max()), (Some(&512), Some(&262_144)));
        assert!(sizes().all(|size| size.is_multiple_of(512)));
        assert!(PASSES.iter().any(|it| it.skip % 8 != 0 && it.segments > 1));
    }

    #[test]
    fn buffers_of_a_pass_fit_a_small_guest() {
        for pass in &PASSES {
            let bytes = u64::from(pass.size_max()) * u64::from(pass.depth);
            assert!(bytes <= 8 * MIB, "{} of {}", pass.depth, pass.size_max());
        }
    }

    #[test]
    fn sizes_are_shown_as_a_range() {
        assert_eq!(SizesText(&[4096]).to_string(), "4 KiB");
        assert_eq!(SizesText(&[4096, 512, 1024]).to_string(), "512 B to 4 KiB");
    }
}
