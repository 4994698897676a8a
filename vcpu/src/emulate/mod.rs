//! Finishing instructions that KVM's emulator refuses.
//!
//! On hosts without VMX or SVM every instruction of a guest's kernel is interpreted by KVM, and on
//! any host those that touch device memory are; what the interpreter does not know ends in
//! `KVM_EXIT_INTERNAL_ERROR`, suberror 1. The ones that kernels really use are finished here, on
//! the registers and memory that KVM hands out, with the faults that the processor would raise.
//! Anything else ends the guest with its address, bytes and decoded text.
//!
//! Not modelled: single-stepping over such an instruction (RFLAGS.TF), protection keys, segment
//! limits outside 64-bit mode, and writes under 32-bit paging (declined).

mod atomic16;
mod context;
mod integer;
mod kvm;
#[cfg(test)]
mod tests;
mod walk;
mod xstate;

use crate::memory::Ram;
use context::Context;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter};
use kvm::KvmMachine;
use kvm_ioctls::VcpuFd;

/// Vector of the x87 floating-point error.
const X87: u8 = 16;
/// INT3: a trap, so RIP is that of the next instruction.
const TRAP_BREAKPOINT: Stop = Stop::Exception { vector: 3, code: None, cr2: None, trap: true };

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    /// The registers are those after the instruction (or in front of its exception's handler).
    Done,
    /// Nothing was changed.
    Unhandled {
        /// Where.
        rip: u64,
        /// Up to 15 bytes there.
        bytes: Vec<u8>,
        /// The decoded instruction.
        text: String,
        /// Why it was not finished.
        reason: String,
    },
}

/// Why an instruction did not simply complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It raises an exception; a trap does so after the instruction, a fault before.
    Exception { vector: u8, code: Option<u32>, cr2: Option<u64>, trap: bool },
    /// It is known, but not under these circumstances.
    Decline(&'static str),
    /// Nobody here knows it.
    Unknown,
}

impl Stop {
    const fn exception(vector: u8) -> Self {
        Self::Exception { vector, code: None, cr2: None, trap: false }
    }

    /// With an error code of 0.
    const fn exception_zero(vector: u8) -> Self {
        Self::Exception { vector, code: Some(0), cr2: None, trap: false }
    }

    const fn page_fault(address: u64, code: u32) -> Self {
        Self::Exception { vector: 14, code: Some(code), cr2: Some(address), trap: false }
    }
}

/// An exception for KVM to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    vector: u8,
    code: Option<u32>,
}

/// Completes the instruction at RIP of the vCPU that has exited with an emulation failure.
///
/// `bytes` are those that the exit carried, possibly none. With `other` the exit had another
/// reason, and the instruction is only described. Runs on the vCPU's thread; never blocks.
pub(crate) fn complete(fd: &VcpuFd, ram: &Ram, bytes: &[u8], other: Option<String>) -> Completion {
    let machine = KvmMachine::new(fd, ram);
    let (regs, sregs) = match machine.registers() {
        Ok(registers) => registers,
        Err(stop) => return unhandled(0, &[], None, explain(stop)),
    };
    let mut context = Context { regs, sregs, sregs_changed: false, machine: &machine };
    let rip = context.regs.rip;
    let (bytes, instruction) = decode(&context, bytes);
    let outcome = match (other, &instruction) {
        (Some(reason), _) => return unhandled(rip, &bytes, instruction.as_ref(), reason),
        (None, Some(instruction)) => execute(&mut context, instruction),
        (None, None) => Err(Stop::Unknown),
    };
    let committed = outcome.and_then(|exception| {
        machine.commit(&context.regs, context.sregs_changed.then_some(&context.sregs), exception)
    });
    match committed {
        Ok(()) => {
            tracing::trace!(rip, ?bytes, "instruction completed");
            Completion::Done
        }
        Err(stop) => unhandled(rip, &bytes, instruction.as_ref(), explain(stop)),
    }
}

fn explain(stop: Stop) -> String {
    const CANNOT: &str = "KVM cannot emulate an instruction";
    match stop {
        Stop::Decline(why) => format!("{CANNOT} and ringvisor cannot finish it ({why})"),
        Stop::Exception { .. } | Stop::Unknown => CANNOT.to_owned(),
    }
}

fn unhandled(
    rip: u64,
    bytes: &[u8],
    instruction: Option<&Instruction>,
    reason: String,
) -> Completion {
    let text = instruction.map_or_else(
        || if bytes.is_empty() { "unreadable code" } else { "no valid instruction" }.to_owned(),
        |instruction| {
            let mut text = String::new();
            IntelFormatter::new().format(instruction, &mut text);
            text
        },
    );
    let len = instruction.map_or(bytes.len(), Instruction::len);
    let bytes = bytes.get(..len).unwrap_or(bytes).to_vec();
    Completion::Unhandled { rip, bytes, text, reason }
}

/// The bytes at RIP, from the exit where it has enough of them, and what they mean.
fn decode(context: &Context<'_>, from_exit: &[u8]) -> (Vec<u8>, Option<Instruction>) {
    let decode = |bytes: &[u8]| {
        let rip = context.regs.rip;
        let mut decoder = Decoder::with_ip(context.bitness(), bytes, rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    };
    if let Some(instruction) = decode(from_exit) {
        return (from_exit.to_vec(), Some(instruction));
    }
    let bytes = context.fetch();
    let instruction = decode(&bytes);
    (bytes, instruction)
}

/// Carries `instruction` out on `context`, RIP included. What comes back is an exception to be
/// injected, for which the registers are right too.
fn execute(
    context: &mut Context<'_>,
    instruction: &Instruction,
) -> Result<Option<Exception>, Stop> {
    let before = (context.regs, context.sregs);
    let result = match integer::execute(context, instruction) {
        Err(Stop::Unknown) => xstate::execute(context, instruction),
        result => result,
    };
    let exception = match result {
        Ok(()) => None,
        Err(Stop::Exception { vector, code, cr2, trap }) => {
            (context.regs, context.sregs) = before;
            context.sregs_changed = false;
            if let Some(address) = cr2 {
                context.sregs.cr2 = address;
                context.sregs_changed = true;
            }
            let exception = Exception { vector, code };
            if !trap {
                return Ok(Some(exception));
            }
            Some(exception)
        }
        Err(stop) => return Err(stop),
    };
    context.regs.rip = match context.bitness() {
        64 => instruction.next_ip(),
        32 => instruction.next_ip() & 0xffff_ffff,
        _ => instruction.next_ip() & 0xffff,
    };
    Ok(exception)
}

/// 64 random bits from the host.
fn sys_random() -> Result<u64, Stop> {
    crate::sys::random().map_err(|_| Stop::Decline("the host gave no random numbers"))
}
