//! The guest of the smallest VMM: a few instructions in CPL3, as the embedded guest has them, because hosts without VMX
//! or SVM interpret CPL0; and what the processor needs to take an interrupt from there.

use super::{DONE, DOORBELL, Notice, kvm_error};
use crate::Error;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment};
use kvm_ioctls::{Kvm, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const LOW: u64 = 0x3000;
const HIGH: u64 = 0x4000;
const GDT: u64 = 0x5000;
const TSS: u64 = 0x6000;
const IDT: u64 = 0x7000;
const CPL0_STACK: u64 = 0x9000;
const CODE: u64 = 0x1_0000;
const ON_UD: u64 = CODE + 0x100;
const ON_INTERRUPT: u64 = CODE + 0x200;
/// The vector of the interrupt.
pub(super) const VECTOR: u8 = 0x40;

/// Rings, then looks at the word all the time:
/// `mov ebx, DOORBELL; mov esi, DONE; xor edi, edi; 1: inc edi; mov [rbx], edi; 2: pause; cmp [rsi], edi; jne 2b;
/// cmp edi, ecx; jb 1b; mov [rbx + 0x1000], edi; jmp $`
const LOOKS: &[u8] = &[
    0xbb, 0x00, 0x00, 0x00, 0xd0, 0xbe, 0x00, 0x00, 0x02, 0x00, 0x31, 0xff, 0xff, 0xc7, 0x89, 0x3b,
    0xf3, 0x90, 0x39, 0x3e, 0x75, 0xfa, 0x39, 0xcf, 0x72, 0xf2, 0x89, 0xbb, 0x00, 0x10, 0x00, 0x00,
    0xeb, 0xfe,
];
/// Rings, then sleeps in CPL0, which `ud2` enters, until the word is there:
/// `... 1: inc edi; mov [rbx], edi; 2: cmp [rsi], edi; je 3f; ud2; jmp 2b; 3: cmp edi, ecx; jb 1b; ...`
const SLEEPS: &[u8] = &[
    0xbb, 0x00, 0x00, 0x00, 0xd0, 0xbe, 0x00, 0x00, 0x02, 0x00, 0x31, 0xff, 0xff, 0xc7, 0x89, 0x3b,
    0x39, 0x3e, 0x74, 0x04, 0x0f, 0x0b, 0xeb, 0xf8, 0x39, 0xcf, 0x72, 0xf0, 0x89, 0xbb, 0x00, 0x10,
    0x00, 0x00, 0xeb, 0xfe,
];
/// `add qword [rsp], 2; cmp [rsi], edi; je 1f; sti; hlt; 1: iretq`: an interrupt after the look ends the sleep.
const UD_HANDLER: &[u8] =
    &[0x48, 0x83, 0x04, 0x24, 0x02, 0x39, 0x3e, 0x74, 0x02, 0xfb, 0xf4, 0x48, 0xcf];
/// `push rax; push rcx; push rdx; mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; pop rdx; pop rcx; pop rax; iretq`:
/// the x2APIC's end of interrupt.
const INTERRUPT_HANDLER: &[u8] = &[
    0x50, 0x51, 0x52, 0xb9, 0x0b, 0x08, 0x00, 0x00, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30, 0x5a, 0x59,
    0x58, 0x48, 0xcf,
];

/// Page tables that map memory and doorbell for CPL3, descriptor tables, and the program.
pub(super) fn fill(memory: &GuestMemoryMmap<()>, notice: Notice) -> Result<(), Error> {
    const TABLE: u64 = 0x27;
    const LARGE: u64 = 0xe7;
    let words = [
        (PML4, PDPT | TABLE),
        (PDPT, LOW | TABLE),
        (PDPT + 3 * 8, HIGH | TABLE),
        (LOW, LARGE),
        (LOW + 8, 0x20_0000 | LARGE),
        (HIGH + (DOORBELL >> 21 & 511) * 8, DOORBELL | LARGE),
        (GDT + 0x08, 0x00af_9b00_0000_ffff),
        (GDT + 0x10, 0x00cf_9300_0000_ffff),
        (GDT + 0x18, 0x00cf_f300_0000_ffff),
        (GDT + 0x20, 0x00af_fb00_0000_ffff),
        // RSP0 is four bytes into the task state.
        (TSS, CPL0_STACK << 32),
        (IDT + 16 * 6, gate(ON_UD)),
        (IDT + 16 * u64::from(VECTOR), gate(ON_INTERRUPT)),
        (DONE, 0),
    ];
    let program = if notice == Notice::Interrupt { SLEEPS } else { LOOKS };
    let codes = [(CODE, program), (ON_UD, UD_HANDLER), (ON_INTERRUPT, INTERRUPT_HANDLER)];
    let words =
        words.into_iter().try_for_each(|(at, word)| memory.write_obj(word, GuestAddress(at)));
    let codes =
        codes.into_iter().try_for_each(|(at, code)| memory.write_slice(code, GuestAddress(at)));
    words.and(codes).map_err(|e| Error::io("guest memory", e))
}

/// An interrupt gate to `handler`, below 4 GiB, in CPL0.
fn gate(handler: u64) -> u64 {
    handler & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48
}

/// Long mode, CPL3, flat segments, x2APIC on; `rounds` doorbells.
pub(super) fn set_up(kvm: &Kvm, vcpu: &VcpuFd, notice: Notice, rounds: u32) -> Result<(), Error> {
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm_error)?;
    vcpu.set_cpuid2(&cpuid).map_err(kvm_error)?;
    let mut sregs = vcpu.get_sregs().map_err(kvm_error)?;
    let segment =
        kvm_segment { limit: u32::MAX, dpl: 3, present: 1, s: 1, g: 1, ..Default::default() };
    sregs.cs = kvm_segment { selector: 0x23, type_: 11, l: 1, ..segment };
    let data = kvm_segment { selector: 0x1b, type_: 3, db: 1, ..segment };
    (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data, data);
    let task = kvm_segment { base: TSS, limit: 103, selector: 0x28, ..Default::default() };
    sregs.tr = kvm_segment { type_: 11, present: 1, ..task };
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, 0x37);
    (sregs.idt.base, sregs.idt.limit) = (IDT, 0xfff);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8005_0033, PML4, 0x620, 0x500);
    if notice == Notice::Interrupt {
        sregs.apic_base |= 0xc00;
    }
    vcpu.set_sregs(&sregs).map_err(kvm_error)?;
    if notice == Notice::Interrupt {
        // The spurious vector register's enable bit.
        let mut apic = vcpu.get_lapic().map_err(kvm_error)?;
        (apic.regs[0xf0], apic.regs[0xf1]) = (-1, 1);
        vcpu.set_lapic(&apic).map_err(kvm_error)?;
    }
    let mut regs = vcpu.get_regs().map_err(kvm_error)?;
    (regs.rip, regs.rcx, regs.rflags) = (CODE, rounds.into(), 0x202);
    vcpu.set_regs(&regs).map_err(kvm_error)
}
