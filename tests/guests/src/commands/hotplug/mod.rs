//! `hotplug`: drives devices that come, and lets go of those that shall leave, while a disk and a SCSI unit
//! are written and read all the time.

mod bays;
mod flow;
mod units;

use self::bays::Bays;
use self::flow::Flow;
use self::units::Units;
use super::scsi::{self, Wrong};
use super::{Args, CommandError, Session, Tally, find_disk};
use crate::cpu::{self, vector};
use crate::machine::Machine;
use crate::pci::{Bus, Function};
use crate::{console, outln, slots};

pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&["disk", "host"], &[])?;
    let bus = Bus::scan();
    let disk = find_disk(&bus, args.get("disk")?.unwrap_or(0))?;
    let host = match args.get("host")? {
        Some(number) => Some(scsi::find_host(&bus, number)?),
        None => scsi::find_host(&bus, 0).ok(),
    };
    let machine = &mut session.machine;
    let mark = machine.arena.mark();
    let mut tally = Tally::default();
    let mut blocks = [0; 2];
    let result = serve(machine, &bus, (&disk, host.as_ref()), &mut blocks, &mut tally);
    machine.arena.release(mark);
    let [disk, unit] = blocks;
    tally.report(format_args!("meanwhile: {disk} blocks of a disk, {unit} of a unit"), result);
    tally.finish(session, "hotplug");
    Ok(())
}

/// Counts of the interrupts that say what to look at.
struct Heard([(u8, u32); 3]);

impl Heard {
    /// As if each had come once: what has happened before is looked at.
    fn new() -> Self {
        let before = |vector| (vector, cpu::interrupts(vector).wrapping_sub(1));
        Self([vector::SERIAL, vector::ACPI, vector::SLOT].map(before))
    }

    /// Whether each has come since the last call.
    fn news(&mut self) -> [bool; 3] {
        self.0.each_mut().map(|(vector, seen)| {
            let now = cpu::interrupts(*vector);
            core::mem::replace(seen, now) != now
        })
    }
}

/// Goes on until a key is pressed. `blocks` are those that were verified, of the disk and of the unit.
fn serve(
    machine: &mut Machine,
    bus: &Bus,
    (disk, host): (&Function, Option<&Function>),
    blocks: &mut [u64; 2],
    tally: &mut Tally,
) -> Result<(), Wrong> {
    let mut flow = Flow::open(machine, disk)?;
    let mut units = host.map(|host| Units::open(machine, host)).transpose()?;
    let mut bays = Bays::open(machine, bus)?;
    let mut heard = Heard::new();
    machine.route_interrupts();
    console::enable_receive_interrupt();
    slots::listen();
    outln!("hotplug: a key ends it");
    loop {
        let [key, root, port] = heard.news();
        if key && console::read_byte().is_some() {
            break;
        }
        if root {
            bays.serve_root(machine, tally);
        }
        if port {
            bays.serve_ports(machine, tally);
        }
        blocks[0] += flow.step()?;
        if let Some(units) = &mut units {
            blocks[1] += units.step(tally)?;
        }
    }
    bays.close()?;
    if let Some(units) = &units {
        units.close()?;
    }
    flow.close()
}
