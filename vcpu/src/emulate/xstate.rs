//! MXCSR and the XSAVE family (Intel SDM volume 1, chapter 13).

use super::Stop;
use super::context::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXSAVE, Context};
use iced_x86::{Instruction, Mnemonic};

const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const MXCSR_INIT: u32 = 0x1f80;
const COMPACT: u64 = 1 << 63;
const MSR_XSS: u32 = 0xda0;

/// Offsets in a save area.
const MXCSR: usize = 24;
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
const EXTENDED: usize = 576;

/// Carries `instruction` out, if it is one of this module's.
pub(super) fn execute(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    match instruction.mnemonic() {
        Mnemonic::Ldmxcsr => ldmxcsr(context, instruction),
        Mnemonic::Stmxcsr => stmxcsr(context, instruction),
        Mnemonic::Xgetbv => xgetbv(context),
        Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => {
            save(context, instruction, Form::Standard)
        }
        Mnemonic::Xsavec | Mnemonic::Xsavec64 => save(context, instruction, Form::Compact),
        Mnemonic::Xsaves | Mnemonic::Xsaves64 => {
            supervisor(context)?;
            save(context, instruction, Form::Compact)
        }
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => restore(context, instruction, None),
        Mnemonic::Xrstors | Mnemonic::Xrstors64 => {
            supervisor(context)?;
            restore(context, instruction, Some(Form::Compact))
        }
        _ => Err(Stop::Unknown),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Standard,
    Compact,
}

fn sse_usable(context: &Context<'_>) -> Result<(), Stop> {
    let (cr0, cr4) = (context.sregs.cr0, context.sregs.cr4);
    if cr0 & CR0_EM != 0 || cr4 & CR4_OSFXSR == 0 {
        return Err(Stop::exception(6));
    }
    if cr0 & CR0_TS != 0 {
        return Err(Stop::exception(7));
    }
    Ok(())
}

fn ldmxcsr(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    sse_usable(context)?;
    let value = context.operand(instruction, 0)? as u32;
    check_mxcsr(value)?;
    let mut state = context.machine.xsave()?;
    let now = word(&state, XSTATE_BV) | SSE;
    copy(&mut state, MXCSR, &value.to_le_bytes())?;
    copy(&mut state, XSTATE_BV, &now.to_le_bytes())?;
    context.machine.set_xsave(&state)
}

fn stmxcsr(context: &mut Context<'_>, instruction: &Instruction) -> Result<(), Stop> {
    sse_usable(context)?;
    let address = context.address(instruction, 0)?;
    let mxcsr = word(&context.machine.xsave()?, MXCSR) as u32;
    context.write(address, &mxcsr.to_le_bytes())
}

/// Reserved bits fault. Bit 17 (misaligned SSE) is AMD's.
fn check_mxcsr(value: u32) -> Result<(), Stop> {
    if value & !0x2_ffff == 0 { Ok(()) } else { Err(Stop::exception_zero(13)) }
}

fn xgetbv(context: &mut Context<'_>) -> Result<(), Stop> {
    if context.sregs.cr4 & CR4_OSXSAVE == 0 {
        return Err(Stop::exception(6));
    }
    let value = match context.regs.rcx as u32 {
        0 => context.machine.xcr0()?,
        1 => context.machine.xcr0()? & in_use(&context.machine.xsave()?),
        _ => return Err(Stop::exception_zero(13)),
    };
    context.regs.rax = value & 0xffff_ffff;
    context.regs.rdx = value >> 32;
    Ok(())
}

fn supervisor(context: &Context<'_>) -> Result<(), Stop> {
    if context.cpl() != 0 {
        return Err(Stop::exception_zero(13));
    }
    if context.machine.msr(MSR_XSS)? != 0 {
        return Err(Stop::Decline("it saves supervisor state"));
    }
    Ok(())
}

/// The checks that the family shares; the area's linear address and the components asked for.
fn area(context: &mut Context<'_>, instruction: &Instruction) -> Result<(u64, u64), Stop> {
    if context.sregs.cr4 & CR4_OSXSAVE == 0 {
        return Err(Stop::exception(6));
    }
    if context.sregs.cr0 & CR0_TS != 0 {
        return Err(Stop::exception(7));
    }
    let address = context.address(instruction, 0)?;
    if !address.is_multiple_of(64) {
        return Err(Stop::exception_zero(13));
    }
    let asked = context.regs.rdx << 32 | context.regs.rax & 0xffff_ffff;
    Ok((address, asked & context.machine.xcr0()?))
}

/// Where a component is in the standard format and in a compact one.
struct Component {
    bit: u64,
    standard: usize,
    compact: usize,
    size: usize,
}

/// The extended components of `mask`, laid out as `mask` orders them when compact.
fn components(context: &Context<'_>, mask: u64) -> Result<Vec<Component>, Stop> {
    let mut found = Vec::new();
    let mut compact = EXTENDED;
    for index in 2..63 {
        let bit = 1 << index;
        if mask & bit == 0 {
            continue;
        }
        let leaf = context.machine.cpuid(0xd, index)?;
        let (size, standard) = (leaf.eax as usize, leaf.ebx as usize);
        if leaf.ecx & 2 != 0 {
            compact = compact.next_multiple_of(64);
        }
        found.push(Component { bit, standard, compact, size });
        compact += size;
    }
    Ok(found)
}

/// Components that are not in their initial state, as KVM's copy of the state says.
fn in_use(state: &[u8]) -> u64 {
    let mxcsr = word(state, MXCSR) as u32;
    word(state, XSTATE_BV) | if mxcsr == MXCSR_INIT { 0 } else { SSE }
}

fn save(context: &mut Context<'_>, instruction: &Instruction, form: Form) -> Result<(), Stop> {
    let (address, wanted) = area(context, instruction)?;
    let state = context.machine.xsave()?;
    let used = in_use(&state) & wanted;
    let components = components(context, wanted)?;
    let compact = form == Form::Compact;
    // The standard form writes components in their initial state too; the compact one need not.
    let written = if compact { used } else { wanted };
    let end = |c: &Component| if compact { c.compact } else { c.standard } + c.size;
    let len = components.iter().map(end).max().unwrap_or(EXTENDED).max(EXTENDED);
    context.check_write(address, len)?;

    let put = |offset: usize, data: &[u8]| context.write(address + offset as u64, data);
    let long = context.bitness() == 64;
    for (at, len) in legacy_parts(written, compact, long) {
        put(at, part(&state, at, len)?)?;
    }
    for component in components.iter().filter(|c| written & c.bit != 0) {
        let at = if compact { component.compact } else { component.standard };
        put(at, part(&state, component.standard, component.size)?)?;
    }
    if compact {
        put(XSTATE_BV, &used.to_le_bytes())?;
        return put(XCOMP_BV, &(wanted | COMPACT).to_le_bytes());
    }
    let mut old = [0; 8];
    context.read(address + XSTATE_BV as u64, &mut old)?;
    put(XSTATE_BV, &(u64::from_le_bytes(old) & !wanted | used).to_le_bytes())
}

/// The parts of the legacy region that belong to `mask`: offsets and lengths.
fn legacy_parts(mask: u64, compact: bool, long: bool) -> impl Iterator<Item = (usize, usize)> {
    // In the standard form MXCSR goes with AVX too.
    let mxcsr = mask & SSE != 0 || !compact && mask & AVX != 0;
    let registers = if long { 16 } else { 8 };
    [
        (mask & X87 != 0, 0, 24),
        (mask & X87 != 0, 32, 128),
        (mxcsr, MXCSR, 8),
        (mask & SSE != 0, XMM, registers * 16),
    ]
    .into_iter()
    .filter_map(|(present, at, len)| present.then_some((at, len)))
}

fn restore(
    context: &mut Context<'_>,
    instruction: &Instruction,
    only: Option<Form>,
) -> Result<(), Stop> {
    let (address, wanted) = area(context, instruction)?;
    let mut head = vec![0; EXTENDED];
    context.read(address, &mut head)?;
    let (bv, comp) = (word(&head, XSTATE_BV), word(&head, XCOMP_BV));
    let compact = comp & COMPACT != 0;
    check_header(context, &head, compact, only)?;
    let present = if compact { bv & comp } else { bv };
    // A compact area is laid out by all that it holds, not by what is wanted of it.
    let held = components(context, if compact { comp & !COMPACT } else { wanted })?;

    let mut state = context.machine.xsave()?;
    let loaded = wanted & present;
    let mut now = in_use(&state) & !wanted | loaded;
    let long = context.bitness() == 64;
    for (at, len) in legacy_parts(loaded & !AVX, compact, long) {
        copy(&mut state, at, part(&head, at, len)?)?;
    }
    if !compact && wanted & (SSE | AVX) != 0 || loaded & SSE != 0 {
        check_mxcsr(word(&head, MXCSR) as u32)?;
        copy(&mut state, MXCSR, part(&head, MXCSR, 4)?)?;
    } else if wanted & SSE != 0 {
        copy(&mut state, MXCSR, &MXCSR_INIT.to_le_bytes())?;
    }
    if wanted & SSE != 0 && loaded & SSE == 0 {
        copy(&mut state, XMM, &[0; 256])?;
    }
    if wanted & (SSE | AVX) != 0 {
        // KVM takes MXCSR only with the XMM registers.
        now |= SSE;
    }
    for component in held.iter().filter(|c| loaded & c.bit != 0) {
        let at = if compact { component.compact } else { component.standard };
        let mut data = vec![0; component.size];
        context.read(address + at as u64, &mut data)?;
        copy(&mut state, component.standard, &data)?;
    }
    copy(&mut state, XSTATE_BV, &now.to_le_bytes())?;
    context.machine.set_xsave(&state)
}

/// The general-protection checks of XRSTOR and XRSTORS.
fn check_header(
    context: &Context<'_>,
    head: &[u8],
    compact: bool,
    only: Option<Form>,
) -> Result<(), Stop> {
    let enabled = context.machine.xcr0()?;
    let (bv, comp) = (word(head, XSTATE_BV), word(head, XCOMP_BV) & !COMPACT);
    // Bytes 63:16 of the header in the compact form, 23:8 in the standard form.
    let zero = |from: usize, to: usize| {
        head.get(from..to).is_some_and(|bytes| bytes.iter().all(|b| *b == 0))
    };
    let good = if compact {
        comp & !enabled == 0 && bv & !comp == 0 && zero(XSTATE_BV + 16, EXTENDED)
    } else {
        only != Some(Form::Compact) && bv & !enabled == 0 && zero(XSTATE_BV + 8, XSTATE_BV + 24)
    };
    if good { Ok(()) } else { Err(Stop::exception_zero(13)) }
}

const TOO_LARGE: Stop = Stop::Decline("its state is larger than KVM hands out");

fn part(area: &[u8], at: usize, len: usize) -> Result<&[u8], Stop> {
    area.get(at..at + len).ok_or(TOO_LARGE)
}

fn copy(area: &mut [u8], at: usize, data: &[u8]) -> Result<(), Stop> {
    area.get_mut(at..at + data.len()).ok_or(TOO_LARGE)?.copy_from_slice(data);
    Ok(())
}

/// The 64-bit word at `at`, 0 past the end.
fn word(area: &[u8], at: usize) -> u64 {
    area.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
