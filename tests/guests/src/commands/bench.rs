//! `bench`: random 4 KiB requests, or flushes, a fixed number in flight.
//!
//! With `hist`, all latencies follow: `hist: khz=N`, then lines `hist: TICKS*COUNT ...`, then `hist: end`.

use super::{Args, CommandError, Session, find_disk};
use crate::histogram::Histogram;
use crate::machine::Machine;
use crate::pattern::{self, Random};
use crate::pci::{Bus, Function};
use crate::text::Micros;
use crate::virtio::blk::{Disk, DiskError, Mode, Options, QUEUES_MAX, SECTOR, SLOTS_MAX};
use crate::virtio::request::{Op, Split, Status};
use crate::{cpu, out, outln};

const BYTES: u32 = 4096;
const DEPTHS: [u16; 2] = [1, 32];
/// Requests before the measurement begins.
const WARM_UP: u64 = 200;

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Run {
    op: Op,
    mode: Mode,
    queues: u16,
    depth: u16,
    /// How long, in TSC ticks.
    ticks: u64,
}

/// What a measurement has found.
struct Findings {
    histogram: Histogram,
    depth: u16,
    queues: u16,
    ticks: u64,
    doorbells: u64,
    interrupts: u64,
    errors: u64,
}

pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(
        &["disk", "queues", "qd", "secs", "ms"],
        &["poll", "irq", "write", "flush", "hist"],
    )?;
    let number = args.get("disk")?.unwrap_or(0);
    let queues = args.get_within("queues", 1, 1, QUEUES_MAX as u64)? as u16;
    let seconds = args.get_within("secs", 1, 1, 3600)?;
    let milliseconds = args.get_within("ms", seconds * 1000, 1, 3_600_000)?;
    let depth = args.get_within("qd", 0, 0, SLOTS_MAX as u64)? as u16;
    let op = match (args.has("write"), args.has("flush")) {
        (_, true) => Op::Flush,
        (true, false) => Op::Write,
        (false, false) => Op::Read,
    };
    let khz = session.machine.frequency().ok_or(CommandError::NoFrequency)?.khz;
    let function = find_disk(&Bus::scan(), number)?;
    let only = (depth != 0).then_some(depth);
    let both = args.has("poll") == args.has("irq");
    for (word, mode) in [("poll", Mode::Poll), ("irq", Mode::Interrupt)] {
        if !both && !args.has(word) {
            continue;
        }
        for depth in DEPTHS.iter().copied().filter(|_| depth == 0).chain(only) {
            let run = Run { op, mode, queues, depth, ticks: milliseconds * khz };
            let findings = measure(&mut session.machine, &function, &run)
                .map_err(|error| CommandError::Disk(number, error))?;
            show(number, &run, &findings, khz);
            if args.has("hist") {
                show_all(&findings.histogram, khz);
            }
            session.failed |= findings.errors != 0;
        }
    }
    Ok(())
}

fn measure(machine: &mut Machine, function: &Function, run: &Run) -> Result<Findings, DiskError> {
    let options = Options {
        queues: run.queues,
        depth: run.depth,
        slot_bytes: BYTES,
        segments: 1,
        indirect: u32::from(run.depth) * 3 > 256,
    };
    let mark = machine.arena.mark();
    let result = Disk::open(machine, function, &options).and_then(|mut disk| {
        for slot in 0..disk.depth() {
            pattern::fill(disk.data(slot), 0, 0);
        }
        let findings = drive(&mut disk, run)?;
        disk.close()?;
        Ok(findings)
    });
    machine.arena.release(mark);
    result
}

/// What is in flight, and where the next request goes.
struct Load {
    op: Op,
    blocks: u64,
    random: Random,
    /// When each slot's request was submitted.
    started: [u64; SLOTS_MAX],
}

impl Load {
    fn new(disk: &Disk, op: Op) -> Result<Self, DiskError> {
        let blocks = disk.requests(BYTES)?;
        Ok(Self { op, blocks, random: Random::new(cpu::tsc()), started: [0; SLOTS_MAX] })
    }

    fn submit(&mut self, disk: &mut Disk, slot: u16) -> Result<(), DiskError> {
        self.started[usize::from(slot)] = cpu::tsc();
        let sector = self.random.below(self.blocks) * u64::from(BYTES) / SECTOR;
        match self.op {
            Op::Flush => disk.submit(slot, self.op, 0, 0, Split::WHOLE),
            _ => disk.submit(slot, self.op, sector, BYTES, Split::WHOLE),
        }
    }
}

/// Requests that were found finished together.
struct Finished {
    slots: [u16; SLOTS_MAX],
    count: usize,
    errors: u64,
}

impl Finished {
    /// Waits for one and takes what else there is.
    fn wait(disk: &mut Disk, mode: Mode) -> Result<Self, DiskError> {
        let mut finished = Self { slots: [0; SLOTS_MAX], count: 0, errors: 0 };
        let mut next = Some(disk.wait(mode)?);
        while let Some(done) = next {
            finished.errors += u64::from(done.status != Status::OK);
            finished.slots[finished.count] = done.slot;
            finished.count += 1;
            next = disk.take()?;
        }
        Ok(finished)
    }

    fn slots(&self) -> &[u16] {
        &self.slots[..self.count]
    }
}

/// Keeps the slots busy with random blocks until the time is over, then lets them finish.
fn drive(disk: &mut Disk, run: &Run) -> Result<Findings, DiskError> {
    let mut load = Load::new(disk, run.op)?;
    let mut histogram = Histogram::new();
    let mut errors = 0;
    for slot in 0..disk.depth() {
        load.submit(disk, slot)?;
    }
    disk.ring();
    let (mut warm_up, mut start, mut before) = (WARM_UP, cpu::tsc(), disk.costs());
    let end = loop {
        let finished = Finished::wait(disk, run.mode)?;
        let now = cpu::tsc();
        errors += finished.errors;
        if warm_up == 0 && now - start >= run.ticks {
            break now;
        }
        for &slot in finished.slots() {
            if warm_up == 0 {
                histogram.record(now - load.started[usize::from(slot)]);
            }
            load.submit(disk, slot)?;
        }
        disk.ring();
        if warm_up > 0 {
            warm_up = warm_up.saturating_sub(finished.count as u64);
            (start, before) = (cpu::tsc(), disk.costs());
        }
    };
    let after = disk.costs();
    while disk.in_flight() > 0 {
        errors += Finished::wait(disk, run.mode)?.errors;
    }
    Ok(Findings {
        histogram,
        depth: disk.depth(),
        queues: disk.queue_count(),
        ticks: end - start,
        doorbells: after.doorbells - before.doorbells,
        interrupts: after.interrupts - before.interrupts,
        errors,
    })
}

fn show(number: u64, run: &Run, findings: &Findings, khz: u64) {
    let histogram = &findings.histogram;
    let requests = histogram.count();
    let iops = u128::from(requests) * u128::from(khz) * 1000 / u128::from(findings.ticks.max(1));
    let micros = |ticks| Micros { ticks, khz };
    let percent = |count: u64| count * 100 / requests.max(1);
    outln!(
        "bench: disk{number} {}{} qd={} queues={} {}: {iops} iops, us p50 {} p90 {} p99 {} max {}, doorbells {}% interrupts {}% errors {}",
        run.op.name(),
        if matches!(run.op, Op::Flush) { "" } else { " 4 KiB" },
        findings.depth,
        findings.queues,
        run.mode.name(),
        micros(histogram.percentile(50)),
        micros(histogram.percentile(90)),
        micros(histogram.percentile(99)),
        micros(histogram.max()),
        percent(findings.doorbells),
        percent(findings.interrupts),
        findings.errors
    );
}

/// Every bucket that counted something.
fn show_all(histogram: &Histogram, khz: u64) {
    const A_LINE: usize = 16;
    out!("hist: khz={khz}");
    for (index, (ticks, count)) in histogram.buckets().enumerate() {
        if index % A_LINE == 0 {
            out!("\nhist:");
        }
        out!(" {ticks}*{count}");
    }
    outln!("\nhist: end");
}
