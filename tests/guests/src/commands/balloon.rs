//! Memory that is used and then given back to the host.

use super::{Args, CommandError, Session};
use crate::outln;
use crate::pattern;
use crate::pci::Bus;
use crate::virtio::balloon::{Balloon, PAGE, Way};
use crate::virtio::blk::DiskError;
use crate::virtio::device::{TYPE_BALLOON, device_type};

/// More than this the program does not have.
const MIB_MAX: u64 = 24;

/// Fills memory, then gives it away: as free pages, or (`inflate`) into the balloon; `keep`: not at all.
pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&["mib"], &["inflate", "keep"])?;
    let mib = args.get_within("mib", 16, 1, MIB_MAX)?;
    let way = if args.has("inflate") { Way::Inflate } else { Way::Report };
    let bus = Bus::scan();
    let found = bus.functions().iter().find(|it| device_type(it) == Some(TYPE_BALLOON));
    let function = found.copied().ok_or(CommandError::NoBalloon)?;
    let machine = &mut session.machine;
    let mark = machine.arena.mark();
    let result = Balloon::open(machine, &function).and_then(|mut balloon| {
        let memory = machine.arena.take((mib as usize) << 20, PAGE as u64)?;
        pattern::fill(memory, 0, mib);
        if !args.has("keep") {
            balloon.give(memory, way)?;
        }
        balloon.close()
    });
    machine.arena.release(mark);
    result.map_err(|error: DiskError| CommandError::Balloon(error))?;
    let what = match (args.has("keep"), way) {
        (true, _) => "kept",
        (false, Way::Inflate) => "in the balloon",
        (false, Way::Report) => "reported free",
    };
    outln!("balloon: {mib} MiB used, {what}");
    Ok(())
}
