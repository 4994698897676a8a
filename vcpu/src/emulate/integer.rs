//! Instructions on general registers, flags and segment bases.

use super::context::{CR0_MP, CR0_TS, CR4_FSGSBASE, Context, RFLAGS_AC};
use super::{Stop, TRAP_BREAKPOINT, X87, sys_random};
use iced_x86::{Instruction, Mnemonic};

const RFLAGS_CF: u64 = 1;
const RFLAGS_PF: u64 = 1 << 2;
const RFLAGS_AF: u64 = 1 << 4;
const RFLAGS_ZF: u64 = 1 << 6;
const RFLAGS_SF: u64 = 1 << 7;
const RFLAGS_OF: u64 = 1 << 11;
const ARITHMETIC: u64 = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;
const MSR_TSC_AUX: u32 = 0xc000_0103;

/// Carries `instruction` out, if it is one of this module's. RIP is the caller's.
pub(super) fn execute(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    match instruction.mnemonic() {
        Mnemonic::Int3 => Err(TRAP_BREAKPOINT),
        Mnemonic::Wait => wait(context),
        Mnemonic::Clac => set_ac(context, false),
        Mnemonic::Stac => set_ac(context, true),
        Mnemonic::Popcnt => popcnt(context, instruction),
        Mnemonic::Cmpxchg16b => cmpxchg16b(context, instruction),
        Mnemonic::Rdfsbase | Mnemonic::Rdgsbase | Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => {
            segment_base(context, instruction)
        }
        Mnemonic::Rdpid => {
            let value = context.machine.msr(MSR_TSC_AUX)?;
            context.set_register(instruction.op0_register(), value)
        }
        Mnemonic::Rdrand | Mnemonic::Rdseed => random(context, instruction),
        // One guest instruction at a time runs here, with the host's ordering around it.
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => Ok(()),
        // The host's caches are coherent with everything a guest can see.
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb | Mnemonic::Cldemote => {
            let address = context.address(instruction, 0)?;
            context.read(address, &mut [0])
        }
        _ => Err(Stop::Unknown),
    }
}

/// FWAIT: reports a pending x87 exception (Intel SDM volume 2, WAIT/FWAIT).
fn wait(context: &mut Context<'_>) -> Result<(), Stop> {
    /// The exception summary of the status word, in the third byte of a save area.
    const STATUS: usize = 2;
    const ERROR_SUMMARY: u8 = 1 << 7;
    const CR0_NE: u64 = 1 << 5;
    if context.sregs.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS {
        return Err(Stop::exception(7));
    }
    let status = context.machine.xsave()?.get(STATUS).copied().unwrap_or(0);
    if status & ERROR_SUMMARY == 0 {
        return Ok(());
    }
    if context.sregs.cr0 & CR0_NE == 0 {
        return Err(Stop::Decline("it would raise FERR#, which no device here answers"));
    }
    Err(Stop::exception(X87))
}

fn set_ac(context: &mut Context<'_>, on: bool) -> Result<(), Stop> {
    if context.cpl() != 0 {
        return Err(Stop::exception(6));
    }
    if on {
        context.regs.rflags |= RFLAGS_AC;
    } else {
        context.regs.rflags &= !RFLAGS_AC;
    }
    Ok(())
}

fn popcnt(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    let source = context.operand(instruction, 1)?;
    context.set_register(instruction.op0_register(), source.count_ones().into())?;
    context.regs.rflags &= !ARITHMETIC;
    if source == 0 {
        context.regs.rflags |= RFLAGS_ZF;
    }
    Ok(())
}

fn cmpxchg16b(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    let address = context.address(instruction, 0)?;
    if !address.is_multiple_of(16) {
        return Err(Stop::exception_zero(13));
    }
    let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    let expected = wide(context.regs.rdx, context.regs.rax);
    let new = wide(context.regs.rcx, context.regs.rbx);
    let found = context.compare_exchange(address, expected, new)?;
    if found == expected {
        context.regs.rflags |= RFLAGS_ZF;
    } else {
        context.regs.rflags &= !RFLAGS_ZF;
        context.regs.rax = found as u64;
        context.regs.rdx = (found >> 64) as u64;
    }
    Ok(())
}

fn segment_base(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    if context.sregs.cr4 & CR4_FSGSBASE == 0 {
        return Err(Stop::exception(6));
    }
    let register = instruction.op0_register();
    let mnemonic = instruction.mnemonic();
    let fs = matches!(mnemonic, Mnemonic::Rdfsbase | Mnemonic::Wrfsbase);
    if matches!(mnemonic, Mnemonic::Rdfsbase | Mnemonic::Rdgsbase) {
        let base = if fs { context.sregs.fs.base } else { context.sregs.gs.base };
        return context.set_register(register, base);
    }
    let base = context.operand(instruction, 0)?;
    if !context.is_canonical(base) {
        return Err(Stop::exception_zero(13));
    }
    let segment = if fs { &mut context.sregs.fs } else { &mut context.sregs.gs };
    segment.base = base;
    context.sregs_changed = true;
    Ok(())
}

fn random(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    let value = sys_random()?;
    context.set_register(instruction.op0_register(), value)?;
    context.regs.rflags = context.regs.rflags & !ARITHMETIC | RFLAGS_CF;
    Ok(())
}
