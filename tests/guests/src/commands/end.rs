//! The commands that end, on purpose or for a test of how the VMM takes it.

use super::{Args, ArgumentError, CommandError, Session};
use crate::{cpu, outln, power};

type Result<'a> = core::result::Result<(), CommandError<'a>>;

/// An address in the first 512 GiB that nothing maps.
const UNMAPPED: u64 = 0x7f_ffff_f000;

pub(super) fn halt<'a>(_session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    outln!("halted");
    cpu::halt()
}

pub(super) fn reset<'a>(_session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    outln!("resetting");
    power::reset();
    Err(CommandError::StillHere)
}

pub(super) fn triple<'a>(_session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    outln!("triple fault");
    cpu::triple_fault()
}

pub(super) fn poweroff<'a>(session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    power_off(session);
    Err(CommandError::StillHere)
}

/// Switches the machine off; by the debug-exit port when anything has failed. Returns when the
/// machine goes on.
pub(crate) fn power_off(session: &Session) {
    if session.failed {
        outln!("powering off with status {}", power::STATUS_FAILED);
        power::exit(power::STATUS_FAILED);
    }
    outln!("powering off");
    power::soft_off(session.machine.power);
}

pub(super) fn exit<'a>(_session: &mut Session, args: &Args<'a>) -> Result<'a> {
    let status = args.plain_number("status")?.ok_or(ArgumentError::Missing)?;
    let byte = u8::try_from(status).map_err(|_| ArgumentError::Range("status", status))?;
    outln!("exit {byte}");
    power::exit(byte)
}

pub(super) fn panic<'a>(_session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    panic!("asked for")
}

pub(super) fn fault<'a>(_session: &mut Session, args: &Args<'a>) -> Result<'a> {
    args.allow(&[], &[])?;
    crate::mem::read_physical(UNMAPPED, &mut [0]);
    Err(CommandError::StillHere)
}
