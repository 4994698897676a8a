//! What an exit costs: `pio` and `mmio`.

use super::{Args, CommandError, Session, find_disk};
use crate::pci::Bus;
use crate::text::Micros;
use crate::virtio::blk::{Disk, Options};
use crate::{console, cpu, outln};

const TIMES: u64 = 1000;
const TIMES_MAX: u64 = 10_000_000;
const DISK: Options =
    Options { queues: 1, depth: 1, slot_bytes: 4096, segments: 1, indirect: false };

/// How often, and the TSC's kHz.
fn parameters<'a>(session: &mut Session, args: &Args<'a>) -> Result<(u64, u64), CommandError<'a>> {
    let times = args.plain_number("count")?.unwrap_or(TIMES).clamp(1, TIMES_MAX);
    let frequency = session.machine.frequency().ok_or(CommandError::NoFrequency)?;
    Ok((times, frequency.khz))
}

/// Microseconds each of `times` runs of `run` takes.
fn each(times: u64, khz: u64, mut run: impl FnMut()) -> Micros {
    let start = cpu::tsc();
    for _ in 0..times {
        run();
    }
    Micros { ticks: (cpu::tsc() - start) / times, khz }
}

/// Microseconds each of the `times` accesses that `run` does takes.
fn all(times: u64, khz: u64, run: impl FnOnce(u32)) -> Micros {
    let start = cpu::tsc();
    run(times as u32);
    Micros { ticks: (cpu::tsc() - start) / times, khz }
}

pub(super) fn pio<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    let (times, khz) = parameters(session, args)?;
    let user = each(times, khz, || {
        cpu::in8(console::SCRATCH);
    });
    let kernel = all(times, khz, |times| cpu::port_loop(console::SCRATCH, times));
    outln!("pio: {times} reads of port {:#x}: CPL3 {user} us, CPL0 {kernel} us", console::SCRATCH);
    let service = each(times, khz, || {
        cpu::cpuid(0, 0);
    });
    outln!("pio: a CPL0 service {service} us");
    Ok(())
}

pub(super) fn mmio<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    let number = args.get("disk")?.unwrap_or(0);
    let (times, khz) = parameters(session, args)?;
    let function = find_disk(&Bus::scan(), number)?;
    let machine = &mut session.machine;
    let mark = machine.arena.mark();
    let result = Disk::open(machine, &function, &DISK).and_then(|mut disk| {
        let device = *disk.device();
        let user = each(times, khz, || {
            device.status();
        });
        // SAFETY: the device's registers are mapped; its status can be read at will.
        let kernel = all(times, khz, |times| unsafe {
            cpu::load_loop(device.status_address(), times);
        });
        outln!("mmio: {times} reads of disk{number}'s status: CPL3 {user} us, CPL0 {kernel} us");
        if let Some((_, doorbell)) = disk.queue_mut(0) {
            let ring = each(times, khz, || doorbell.store(0, 0u16));
            outln!("mmio: {times} idle doorbells: CPL3 {ring} us");
        }
        disk.close()
    });
    machine.arena.release(mark);
    result.map_err(|error| CommandError::Disk(number, error))
}
