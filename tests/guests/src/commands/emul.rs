//! Instructions that hosts which interpret CPL0 cannot do by themselves.

use core::fmt;

use super::{Args, CommandError, Session, Tally};
use crate::cpu::{self, Probe};
use crate::{ioapic, outln};

const AC: u64 = 1 << 18;
const ARGUMENT: u64 = 0xf0f1_0203_0000_8001;

struct Case {
    name: &'static str,
    probe: Probe,
    expected: u64,
    /// Which bits of the result count.
    mask: u64,
}

const CASES: [Case; 5] = [
    Case { name: "int3", probe: Probe::Int3, expected: 1, mask: u64::MAX },
    Case { name: "fwait", probe: Probe::Fwait, expected: ARGUMENT, mask: u64::MAX },
    Case { name: "clac", probe: Probe::Clac, expected: 0, mask: AC },
    Case { name: "stac", probe: Probe::Stac, expected: AC, mask: AC },
    Case {
        name: "popcnt",
        probe: Probe::Popcnt,
        expected: ARGUMENT.count_ones() as u64,
        mask: u64::MAX,
    },
];

/// A result other than the instruction gives.
struct Wrong {
    expected: u64,
    found: u64,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {:#x}, found {:#x}", self.expected, self.found)
    }
}

pub(super) fn run<'a>(session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&[], &CASES.each_ref().map(|case| case.name))?;
    let all = args.words().next().is_none();
    let mut tally = Tally::default();
    for case in CASES.iter().filter(|case| all || args.has(case.name)) {
        if !offered(case.probe) {
            outln!("skip emul {}: this CPU model does not have it", case.name);
            continue;
        }
        let found = cpu::probe(case.probe, ARGUMENT) & case.mask;
        let expected = case.expected;
        let result = if found == expected { Ok(()) } else { Err(Wrong { expected, found }) };
        tally.report(format_args!("emul {}", case.name), result);
    }
    tally.finish(session, "emul");
    Ok(())
}

/// Whether CPUID offers the instruction.
fn offered(probe: Probe) -> bool {
    match probe {
        Probe::Int3 | Probe::Fwait => true,
        Probe::Clac | Probe::Stac => cpu::cpuid(7, 0)[1] & (1 << 20) != 0,
        Probe::Popcnt => cpu::cpuid(1, 0)[2] & (1 << 23) != 0,
    }
}

pub(super) fn crash<'a>(_session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&[], &[])?;
    outln!("crash: adding vectors from the I/O APIC");
    // SAFETY: its page is mapped, and reading it has no effect.
    unsafe { cpu::refused(ioapic::ADDRESS) };
    outln!("crash: the host has executed it");
    Ok(())
}
