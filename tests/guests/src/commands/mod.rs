//! The commands, from the command line and from the console alike.
//!
//! Tests outside match the output, so these forms stay: `+ COMMAND` before each command of the
//! command line, the prompt `guest> ` once the console is read, `ok   WHAT` and `FAIL WHAT: WHY`
//! for a check, `skip WHAT: WHY` for one that does not apply, `NAME: N passed, M failed` after the
//! checks of a command, `error: WHY` for a command that did not run to its end.

mod args;
mod badq;
mod balloon;
mod batch;
mod bench;
mod check;
mod emul;
mod end;
mod hotplug;
mod info;
mod journal;
mod proof;
mod scsi;
mod timing;
mod wild;

use core::fmt;

pub(crate) use self::args::{Args, ArgumentError, commands_of};
pub(crate) use self::end::power_off;

use crate::machine::Machine;
use crate::pci::{Bus, Function};
use crate::virtio::blk::DiskError;
use crate::virtio::device::{self, TYPE_BLOCK};
use crate::{out, outln};

/// A command.
struct Command {
    name: &'static str,
    /// What may follow, for `help`.
    arguments: &'static str,
    /// What it does, for `help`.
    help: &'static str,
    run: for<'a> fn(&mut Session, &Args<'a>) -> Result<(), CommandError<'a>>,
}

static COMMANDS: &[Command] = &[
    Command { name: "help", arguments: "", help: "this list", run: help },
    Command {
        name: "info",
        arguments: "",
        help: "command line, processor, TSC and memory map",
        run: info::info,
    },
    Command {
        name: "lspci",
        arguments: "",
        help: "PCI functions and their BARs",
        run: info::lspci,
    },
    Command {
        name: "check",
        arguments: "[disk=N] [queues=N] [mib=N]",
        help: "write, flush, read back and compare the disks (their contents are lost)",
        run: check::run,
    },
    Command {
        name: "bench",
        arguments: "[disk=N] [queues=N] [qd=N] [secs=N|ms=N] [poll|irq] [write|flush] [hist]",
        help: "4 KiB random I/O, or flushes: requests a second and latency; hist: all of it",
        run: bench::run,
    },
    Command {
        name: "batch",
        arguments: "[disk=N] [n=N] [rounds=N] [first]",
        help: "rounds of n reads with one doorbell and one interrupt each",
        run: batch::run,
    },
    Command {
        name: "journal",
        arguments: "[disk=N]",
        help: "write and flush until the disk is full, and tell what is durable (its contents are lost)",
        run: journal::run,
    },
    Command {
        name: "badq",
        arguments: "[disk=N] [KIND...]",
        help: "malformed virtqueues, which the device has to survive",
        run: badq::run,
    },
    Command {
        name: "scsi",
        arguments: "[host=N] [targets=N] [kib=N]",
        help: "find SCSI units; write, flush, read back and compare (their contents are lost)",
        run: scsi::run,
    },
    Command {
        name: "hotplug",
        arguments: "[disk=N] [host=N]",
        help: "drive devices that come and go, with I/O on a disk and a SCSI unit (their contents are lost)",
        run: hotplug::run,
    },
    Command {
        name: "balloon",
        arguments: "[mib=N] [inflate|keep]",
        help: "fill memory, then report it as free, or give it to the balloon, or keep it",
        run: balloon::run,
    },
    Command {
        name: "wild",
        arguments: "[disk=N]",
        help: "nonsense in configuration space and registers, then put right",
        run: wild::run,
    },
    Command {
        name: "emul",
        arguments: "[int3|fwait|clac|stac|popcnt...]",
        help: "instructions in CPL0 that an interpreting host leaves to the VMM",
        run: emul::run,
    },
    Command { name: "pio", arguments: "[N]", help: "time of a port read", run: timing::pio },
    Command {
        name: "mmio",
        arguments: "[N] [disk=N]",
        help: "time of a register read and of an idle doorbell",
        run: timing::mmio,
    },
    Command {
        name: "crash",
        arguments: "",
        help: "an instruction that no emulator of KVM does",
        run: emul::crash,
    },
    Command { name: "fault", arguments: "", help: "a page fault in CPL3", run: end::fault },
    Command { name: "panic", arguments: "", help: "a panic of this program", run: end::panic },
    Command { name: "halt", arguments: "", help: "stop the processor", run: end::halt },
    Command { name: "reset", arguments: "", help: "reset the machine", run: end::reset },
    Command { name: "triple", arguments: "", help: "a triple fault", run: end::triple },
    Command {
        name: "poweroff",
        arguments: "",
        help: "power off; with status 1 at port 0xf4 when anything failed",
        run: end::poweroff,
    },
    Command { name: "exit", arguments: "N", help: "write status N to port 0xf4", run: end::exit },
];

/// The state that commands share.
pub(crate) struct Session {
    /// The machine.
    pub machine: Machine,
    /// Whether anything has failed: a check, or a command of the command line.
    pub failed: bool,
}

/// Why a command did not run, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandError<'a> {
    /// There is no such command.
    Unknown(&'a str),
    /// What followed it makes no sense.
    Argument(ArgumentError<'a>),
    /// There is no disk of that number.
    NoDisk(u64),
    /// A disk failed.
    Disk(u64, DiskError),
    /// There is no SCSI host of that number.
    NoHost(u64),
    /// A SCSI host failed.
    Host(u64, DiskError),
    /// There is no balloon that pages can be reported to.
    NoBalloon,
    /// The balloon failed.
    Balloon(DiskError),
    /// Nothing tells the TSC's frequency.
    NoFrequency,
    /// The machine did not do what ends it.
    StillHere,
}

impl fmt::Display for CommandError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown command '{name}': help lists what there is"),
            Self::Argument(error) => error.fmt(f),
            Self::NoDisk(number) => write!(f, "no virtio-blk disk {number}: lspci lists devices"),
            Self::Disk(number, error) => write!(f, "disk{number}: {error}"),
            Self::NoHost(number) => write!(f, "no virtio-scsi host {number}: lspci lists devices"),
            Self::Host(number, error) => write!(f, "host{number}: {error}"),
            Self::NoBalloon => write!(f, "no virtio-balloon: lspci lists devices"),
            Self::Balloon(error) => write!(f, "balloon: {error}"),
            Self::NoFrequency => write!(f, "TSC frequency unknown: give tsc_khz=N first"),
            Self::StillHere => write!(f, "the machine goes on regardless"),
        }
    }
}

impl<'a> From<ArgumentError<'a>> for CommandError<'a> {
    fn from(error: ArgumentError<'a>) -> Self {
        Self::Argument(error)
    }
}

/// Runs one command with its arguments; errors are shown.
pub(crate) fn run(session: &mut Session, text: &str) -> bool {
    let (name, args) = Args::split(text);
    let result = match args::setting(name) {
        Some(("tsc_khz", value)) => args::number("tsc_khz", value)
            .map(|khz| session.machine.set_frequency(khz))
            .map_err(CommandError::from),
        _ => match COMMANDS.iter().find(|command| command.name == name) {
            Some(command) => (command.run)(session, &args),
            None => Err(CommandError::Unknown(name)),
        },
    };
    if let Err(error) = result {
        outln!("error: {error}");
    }
    result.is_ok()
}

fn help<'a>(_session: &mut Session, args: &Args<'a>) -> Result<(), CommandError<'a>> {
    args.allow(&[], &[])?;
    for command in COMMANDS {
        let space = if command.arguments.is_empty() { "" } else { " " };
        outln!("{}{space}{}", command.name, command.arguments);
        outln!("    {}", command.help);
    }
    outln!("tsc_khz=N");
    outln!("    the frequency of the TSC, where it cannot be found out");
    outln!("Several commands on the kernel's command line are separated by ';'.");
    Ok(())
}

/// The results of a command's checks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    /// Reports one check: `what`, and why it failed if it did.
    pub fn report<E: fmt::Display>(&mut self, what: fmt::Arguments<'_>, result: Result<(), E>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                outln!("ok   {what}");
            }
            Err(why) => {
                self.failed += 1;
                outln!("FAIL {what}: {why}");
            }
        }
    }

    /// Ends the command called `name`: one line, and the session remembers a failure.
    pub fn finish(self, session: &mut Session, name: &str) {
        outln!("{name}: {} passed, {} failed", self.passed, self.failed);
        session.failed |= self.failed != 0;
    }
}

/// The block device `number` counts, in the order of the bus.
pub(crate) fn find_disk<'a>(bus: &Bus, number: u64) -> Result<Function, CommandError<'a>> {
    let found = disks(bus).nth(usize::try_from(number).unwrap_or(usize::MAX));
    found.copied().ok_or(CommandError::NoDisk(number))
}

/// All block devices.
pub(crate) fn disks(bus: &Bus) -> impl Iterator<Item = &Function> {
    bus.functions().iter().filter(|it| device::device_type(it) == Some(TYPE_BLOCK))
}

/// Shows the prompt of the console.
pub(crate) fn prompt() {
    out!("guest> ");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_one_word_names_and_are_there_once() {
        for (index, command) in COMMANDS.iter().enumerate() {
            assert!(command.name.bytes().all(|byte| byte.is_ascii_lowercase()));
            assert!(!command.help.is_empty());
            assert!(COMMANDS[..index].iter().all(|other| other.name != command.name));
        }
    }

    #[test]
    fn errors_are_one_line_and_say_what_to_do() {
        let text = CommandError::Unknown("chekc").to_string();
        assert_eq!(text, "unknown command 'chekc': help lists what there is");
        assert!(CommandError::NoDisk(3).to_string().contains("lspci"));
    }
}
