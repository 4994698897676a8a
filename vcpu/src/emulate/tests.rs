use super::context::{Context, Machine};
use super::*;
use crate::cpuid::Registers;
use crate::memory::layout::PAGE_TABLES;
use crate::testing::{self, PATIENCE, code, guest};
use crate::vcpus::VcpuEvent;
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::cell::RefCell;
use vm_memory::{Bytes, GuestAddress};

/// A vCPU without KVM: long mode, identity-mapped.
struct Fake {
    ram: Ram,
    xsave: RefCell<Vec<u8>>,
}

const BUFFER: u64 = 0x10_0000;

impl Fake {
    fn new() -> Self {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 0x40_0000)]).unwrap();
        let boot = crate::boot::BootState::Linux64 { entry: 0, boot_params: 0 };
        crate::boot::install(&boot, &ram).unwrap();
        let mut state = vec![0; 4096];
        state[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        Self { ram, xsave: RefCell::new(state) }
    }

    fn context(&self) -> Context<'_> {
        let mut sregs = kvm_sregs::default();
        sregs.cs.l = 1;
        sregs.efer = 0x500;
        sregs.cr0 = 0x8000_0033;
        sregs.cr3 = PAGE_TABLES.start;
        // PAE, OSFXSR, FSGSBASE, OSXSAVE.
        sregs.cr4 = 1 << 5 | 1 << 9 | 1 << 16 | 1 << 18;
        let regs = kvm_regs { rip: 0x1000, rflags: 2, ..Default::default() };
        Context { regs, sregs, sregs_changed: false, machine: self }
    }
}

impl Machine for Fake {
    fn ram(&self) -> &Ram {
        &self.ram
    }
    fn translate(&self, linear: u64) -> Result<Option<u64>, Stop> {
        Ok((linear < 0x1000_0000).then_some(linear))
    }
    fn xsave(&self) -> Result<Vec<u8>, Stop> {
        Ok(self.xsave.borrow().clone())
    }
    fn set_xsave(&self, area: &[u8]) -> Result<(), Stop> {
        *self.xsave.borrow_mut() = area.to_vec();
        Ok(())
    }
    fn xcr0(&self) -> Result<u64, Stop> {
        // x87, SSE, AVX and PKRU, whose place in the standard form leaves a hole.
        Ok(0x207)
    }
    fn msr(&self, index: u32) -> Result<u64, Stop> {
        Ok(if index == 0xc000_0103 { 7 } else { 0 })
    }
    fn cpuid(&self, leaf: u32, index: u32) -> Result<Registers, Stop> {
        Ok(match (leaf, index) {
            (0xd, 2) => Registers { eax: 256, ebx: 576, ecx: 0, edx: 0 },
            (0xd, 9) => Registers { eax: 8, ebx: 2688, ecx: 0, edx: 0 },
            _ => Registers::default(),
        })
    }
}

fn run(context: &mut Context<'_>, bytes: &[u8]) -> Result<Option<Exception>, Stop> {
    let (_, instruction) = decode(context, bytes);
    execute(context, &instruction.expect("valid code"))
}

#[allow(clippy::unnecessary_wraps, reason = "it stands beside what `run` returns")]
fn raises(vector: u8, code: Option<u32>) -> Result<Option<Exception>, Stop> {
    Ok(Some(Exception { vector, code }))
}

#[test]
fn int3_traps_behind_itself() {
    let fake = Fake::new();
    let mut context = fake.context();
    assert_eq!(run(&mut context, &[0xcc]), raises(3, None));
    assert_eq!(context.regs.rip, 0x1001);
}

#[test]
fn fwait_reports_what_the_fpu_has_pending() {
    let fake = Fake::new();
    let mut context = fake.context();
    assert_eq!(run(&mut context, &[0x9b]), Ok(None));
    assert_eq!(context.regs.rip, 0x1001);
    fake.xsave.borrow_mut()[2] = 0x80;
    assert_eq!(run(&mut context, &[0x9b]), raises(16, None));
    assert_eq!(context.regs.rip, 0x1001, "a fault stays in front");
    context.sregs.cr0 |= 8;
    assert_eq!(run(&mut context, &[0x9b]), raises(7, None));
}

#[test]
fn stac_and_clac_change_one_flag_in_ring_0_only() {
    let fake = Fake::new();
    let mut context = fake.context();
    assert_eq!(run(&mut context, &[0x0f, 0x01, 0xcb]), Ok(None));
    assert_eq!((context.regs.rflags, context.regs.rip), (2 | 1 << 18, 0x1003));
    assert_eq!(run(&mut context, &[0x0f, 0x01, 0xca]), Ok(None));
    assert_eq!(context.regs.rflags, 2);
    context.sregs.ss.dpl = 3;
    assert_eq!(run(&mut context, &[0x0f, 0x01, 0xcb]), raises(6, None));
}

#[test]
fn popcnt_counts_registers_and_memory_of_each_width() {
    let fake = Fake::new();
    let mut context = fake.context();
    context.regs.rbx = 0xffff_0000_0000_00ff;
    context.regs.rax = u64::MAX;
    // popcnt rax, rbx; popcnt eax, ebx; popcnt ax, bx.
    assert_eq!(run(&mut context, &[0xf3, 0x48, 0x0f, 0xb8, 0xc3]), Ok(None));
    assert_eq!(context.regs.rax, 24);
    context.regs.rax = u64::MAX;
    assert_eq!(run(&mut context, &[0xf3, 0x0f, 0xb8, 0xc3]), Ok(None));
    assert_eq!(context.regs.rax, 8, "a 32-bit result clears the upper half");
    context.regs.rax = u64::MAX;
    assert_eq!(run(&mut context, &[0x66, 0xf3, 0x0f, 0xb8, 0xc3]), Ok(None));
    assert_eq!(context.regs.rax, 0xffff_ffff_ffff_0008);
    // popcnt rax, [rsi + 8], across a page, from zeroes.
    context.regs.rsi = BUFFER + 0xfff - 8;
    context.regs.rflags = 0x8d7;
    assert_eq!(run(&mut context, &[0xf3, 0x48, 0x0f, 0xb8, 0x46, 0x08]), Ok(None));
    assert_eq!((context.regs.rax, context.regs.rflags), (0, 0x42), "ZF alone");
    fake.ram.write_obj(u64::MAX, GuestAddress(BUFFER + 0xfff)).unwrap();
    assert_eq!(run(&mut context, &[0xf3, 0x48, 0x0f, 0xb8, 0x46, 0x08]), Ok(None));
    assert_eq!((context.regs.rax, context.regs.rflags), (64, 2));
}

#[test]
fn cmpxchg16b_exchanges_faults_and_spares_other_flags() {
    const CODE: &[u8] = &[0xf0, 0x48, 0x0f, 0xc7, 0x0e];
    let fake = Fake::new();
    let mut context = fake.context();
    let at = GuestAddress(BUFFER);
    fake.ram.write_obj([1u64, 2], at).unwrap();
    context.regs.rflags = 0x8c7 & !0x40;
    (context.regs.rsi, context.regs.rax, context.regs.rdx) = (BUFFER, 1, 2);
    (context.regs.rbx, context.regs.rcx) = (3, 4);
    assert_eq!(run(&mut context, CODE), Ok(None));
    assert_eq!(fake.ram.read_obj::<[u64; 2]>(at).unwrap(), [3, 4]);
    assert_eq!(context.regs.rflags, 0x8c7);
    assert_eq!(run(&mut context, CODE), Ok(None));
    assert_eq!((context.regs.rax, context.regs.rdx, context.regs.rflags), (3, 4, 0x887));
    context.regs.rsi = BUFFER + 8;
    let before = context.regs;
    assert_eq!(run(&mut context, CODE), raises(13, Some(0)));
    assert_eq!(context.regs, before);
}

#[test]
fn memory_operands_fault_as_the_processor_would() {
    // popcnt rax, [rsi]: beyond the identity map, beyond canonical addresses, beyond RAM.
    const CODE: &[u8] = &[0xf3, 0x48, 0x0f, 0xb8, 0x06];
    let fake = Fake::new();
    let mut context = fake.context();
    context.regs.rsi = 0x1_0000_0123;
    assert_eq!(run(&mut context, CODE), raises(14, Some(0)));
    assert_eq!((context.sregs.cr2, context.sregs_changed), (0x1_0000_0123, true));
    context.regs.rsi = 1 << 63;
    assert_eq!(run(&mut context, CODE), raises(13, Some(0)));
    context.regs.rsi = 0xd000_0000;
    assert!(matches!(run(&mut context, CODE), Err(Stop::Decline(why)) if why.contains("RAM")));
    assert_eq!(context.regs.rip, 0x1000);
}

#[test]
fn segment_bases_are_read_and_written() {
    let fake = Fake::new();
    let mut context = fake.context();
    context.sregs.gs.base = 0x1122_3344_5566_7788;
    // rdgsbase rax; wrfsbase rbx; popcnt rcx, fs:[0].
    assert_eq!(run(&mut context, &[0xf3, 0x48, 0x0f, 0xae, 0xc8]), Ok(None));
    assert_eq!(context.regs.rax, 0x1122_3344_5566_7788);
    context.regs.rbx = BUFFER;
    assert_eq!(run(&mut context, &[0xf3, 0x48, 0x0f, 0xae, 0xd3]), Ok(None));
    assert_eq!((context.sregs.fs.base, context.sregs_changed), (BUFFER, true));
    fake.ram.write_obj(0x1fu64, GuestAddress(BUFFER)).unwrap();
    let code = [0x64, 0xf3, 0x48, 0x0f, 0xb8, 0x0c, 0x25, 0, 0, 0, 0];
    assert_eq!(run(&mut context, &code), Ok(None));
    assert_eq!(context.regs.rcx, 5);
    context.regs.rbx = 1 << 63;
    assert_eq!(run(&mut context, &[0xf3, 0x48, 0x0f, 0xae, 0xd3]), raises(13, Some(0)));
    context.sregs.cr4 = 1 << 5;
    assert_eq!(run(&mut context, &[0xf3, 0x48, 0x0f, 0xae, 0xd3]), raises(6, None));
}

#[test]
fn mxcsr_is_loaded_stored_and_checked() {
    let fake = Fake::new();
    let mut context = fake.context();
    context.regs.rsi = BUFFER;
    // stmxcsr [rsi]; ldmxcsr [rsi].
    assert_eq!(run(&mut context, &[0x0f, 0xae, 0x1e]), Ok(None));
    assert_eq!(fake.ram.read_obj::<u32>(GuestAddress(BUFFER)).unwrap(), 0x1f80);
    fake.ram.write_obj(0x1fa0u32, GuestAddress(BUFFER)).unwrap();
    assert_eq!(run(&mut context, &[0x0f, 0xae, 0x16]), Ok(None));
    assert_eq!(fake.xsave.borrow()[24..28], 0x1fa0u32.to_le_bytes());
    fake.ram.write_obj(0x8000_0000u32, GuestAddress(BUFFER)).unwrap();
    assert_eq!(run(&mut context, &[0x0f, 0xae, 0x16]), raises(13, Some(0)));
    context.sregs.cr0 |= 8;
    assert_eq!(run(&mut context, &[0x0f, 0xae, 0x16]), raises(7, None));
}

const XSAVE: &[u8] = &[0x48, 0x0f, 0xae, 0x26];
const XSAVEC: &[u8] = &[0x48, 0x0f, 0xc7, 0x26];
const XRSTOR: &[u8] = &[0x48, 0x0f, 0xae, 0x2e];

/// SSE, AVX and PKRU in use, each with a pattern of its own.
fn patterned() -> Fake {
    let fake = Fake::new();
    let mut state = fake.xsave.borrow_mut();
    state[160..416].fill(0xa1);
    state[576..832].fill(0xa2);
    state[2688..2696].fill(0xa9);
    state[512..520].copy_from_slice(&0x206u64.to_le_bytes());
    drop(state);
    fake
}

#[test]
fn xsave_and_xrstor_round_trip_in_both_forms() {
    for (save, pkru_at, header) in
        [(XSAVE, 2688, [0x206, 0]), (XSAVEC, 832, [0x206, 1 << 63 | 0x207])]
    {
        let fake = patterned();
        let mut context = fake.context();
        (context.regs.rsi, context.regs.rax, context.regs.rdx) = (BUFFER, 0xffff_ffff, 0xffff_ffff);
        assert_eq!(run(&mut context, save), Ok(None));
        let word = |at: u64| fake.ram.read_obj::<u64>(GuestAddress(BUFFER + at)).unwrap();
        assert_eq!([word(512), word(520)], header);
        assert_eq!(word(576), 0xa2a2_a2a2_a2a2_a2a2);
        assert_eq!(word(pkru_at), 0xa9a9_a9a9_a9a9_a9a9);
        let saved = fake.xsave.replace(Fake::new().xsave.into_inner());
        assert_eq!(run(&mut context, XRSTOR), Ok(None));
        assert_eq!(*fake.xsave.borrow(), saved);
    }
}

#[test]
fn xrstor_initializes_what_is_absent_and_leaves_what_is_not_asked_for() {
    let fake = patterned();
    let mut context = fake.context();
    (context.regs.rsi, context.regs.rax, context.regs.rdx) = (BUFFER, 0x4, 0);
    // An area with nothing in it: AVX goes back to its initial state, the rest stays.
    fake.ram.write_obj(0x1f80u32, GuestAddress(BUFFER + 24)).unwrap();
    assert_eq!(run(&mut context, XRSTOR), Ok(None));
    let state = fake.xsave.borrow();
    assert_eq!(state[512..514], [0x02, 0x02]);
    assert_eq!(state[160], 0xa1);
}

#[test]
fn the_xsave_family_checks_its_area() {
    let fake = patterned();
    let mut context = fake.context();
    (context.regs.rsi, context.regs.rax) = (BUFFER + 8, 7);
    assert_eq!(run(&mut context, XSAVE), raises(13, Some(0)), "alignment");
    context.regs.rsi = BUFFER;
    fake.ram.write_obj(0x10u64, GuestAddress(BUFFER + 512)).unwrap();
    assert_eq!(run(&mut context, XRSTOR), raises(13, Some(0)), "a component that is off");
    context.sregs.cr4 &= !(1 << 18);
    assert_eq!(run(&mut context, XSAVE), raises(6, None), "OSXSAVE");
}

#[test]
fn xgetbv_rdpid_rdrand_and_fences_complete() {
    let fake = Fake::new();
    let mut context = fake.context();
    assert_eq!(run(&mut context, &[0x0f, 0x01, 0xd0]), Ok(None));
    assert_eq!((context.regs.rax, context.regs.rdx), (0x207, 0));
    assert_eq!(run(&mut context, &[0xf3, 0x0f, 0xc7, 0xf8]), Ok(None));
    assert_eq!(context.regs.rax, 7);
    assert_eq!(run(&mut context, &[0x48, 0x0f, 0xc7, 0xf0]), Ok(None));
    assert_eq!(context.regs.rflags & 1, 1);
    assert_eq!(run(&mut context, &[0x0f, 0xae, 0xf0]), Ok(None));
    context.regs.rcx = 5;
    assert_eq!(run(&mut context, &[0x0f, 0x01, 0xd0]), raises(13, Some(0)));
}

#[test]
fn what_nobody_knows_is_described() {
    let fake = Fake::new();
    let mut context = fake.context();
    // vmcall.
    let bytes = [0x0f, 0x01, 0xc1];
    assert_eq!(run(&mut context, &bytes), Err(Stop::Unknown));
    let (_, instruction) = decode(&context, &bytes);
    let Completion::Unhandled { text, bytes, reason, .. } =
        unhandled(0x1000, &[0x0f, 0x01, 0xc1, 0x90], instruction.as_ref(), explain(Stop::Unknown))
    else {
        panic!("described as done");
    };
    assert_eq!((text.as_str(), bytes.as_slice()), ("vmcall", &[0x0f, 0x01, 0xc1][..]));
    assert_eq!(reason, "KVM cannot emulate an instruction");
}

#[test]
fn code_is_fetched_across_pages_and_up_to_the_end_of_memory() {
    let fake = Fake::new();
    let mut context = fake.context();
    context.regs.rip = 0x1ffe;
    fake.ram.write_slice(&[0xf3, 0x48, 0x0f, 0xb8, 0xc3], GuestAddress(0x1ffe)).unwrap();
    let (bytes, instruction) = decode(&context, &[]);
    assert_eq!((bytes.len(), instruction.unwrap().len()), (15, 5));
    // The last byte of RAM: what follows cannot be read.
    context.regs.rip = 0x3f_ffff;
    fake.ram.write_obj(0xccu8, GuestAddress(0x3f_ffff)).unwrap();
    let (bytes, instruction) = decode(&context, &[]);
    assert_eq!((bytes.as_slice(), instruction.unwrap().len()), (&[0xcc][..], 1));
}

// Runs the instructions that KVM's emulator refuses; on hosts with VMX or SVM the processor does.
// An IDT of one entry, for #BP, is built at 0x200000; its handler reports RIP - code start.
guest!(
    ".code64",
    vt_emulated,
    vt_emulated_end,
    "movl $0x300000, %esp",
    "movl $0x200000, %edi",
    "leaq 9f(%rip), %rax",
    "movw %ax, 48(%rdi)",
    "movw $0x10, 50(%rdi)",
    "movw $0x8e00, 52(%rdi)",
    "shrl $16, %eax",
    "movl %eax, 54(%rdi)",
    "movw $63, 0x1000(%rdi)",
    "movq %rdi, 0x1002(%rdi)",
    "lidt 0x1000(%rdi)",
    // CR4.OSFXSR and OSXMMEXCPT.
    "movq %cr4, %rax",
    "orl $0x600, %eax",
    "movq %rax, %cr4",
    "fninit",
    "int3",
    "fwait",
    "stac",
    "pushfq",
    "popq %rax",
    "shrl $18, %eax",
    "andl $1, %eax",
    "outl %eax, $0xe0",
    "clac",
    "movl $0x00ff00ff, %eax",
    "popcntl %eax, %eax",
    "outl %eax, $0xe0",
    "movl $0x1fa0, 0x2000(%rdi)",
    "ldmxcsr 0x2000(%rdi)",
    "stmxcsr 0x2004(%rdi)",
    "movl 0x2004(%rdi), %eax",
    "outl %eax, $0xe0",
    "xorl %eax, %eax",
    "xorl %edx, %edx",
    "movl $0x1234, %ebx",
    "movl $0x5678, %ecx",
    "lock cmpxchg16b 0x2010(%rdi)",
    "movl 0x2018(%rdi), %eax",
    "outl %eax, $0xe0",
    "mfence",
    "lfence",
    "1: hlt",
    "jmp 1b",
    ".balign 16",
    "9: movl (%rsp), %eax",
    "subl $0x100000, %eax",
    "outl %eax, $0xe0",
    "iretq",
);

#[test]
fn a_guest_never_notices_who_finished_its_instructions() {
    let name = "a_guest_never_notices_who_finished_its_instructions";
    let Some(kvm) = testing::kvm(name) else { return };
    let code = code!(vt_emulated, vt_emulated_end);
    // #BP is reported from behind the INT3, wherever the assembler has put it.
    let after_int3 = code.iter().position(|byte| *byte == 0xcc).unwrap() as u32 + 1;
    let machine = testing::Machine::flat64(kvm, 8 << 20, code);
    drop(machine.vcpus.resume());
    let reports: Vec<_> = (0..5).map(|_| machine.reported()).collect();
    assert_eq!(reports, [after_int3, 1, 16, 0x1fa0, 0x5678]);
    machine.finish();
}

// An SSE instruction on device memory, which no KVM emulates.
guest!(
    ".code64",
    vt_refused,
    vt_refused_end,
    "movq %cr4, %rax",
    "orl $0x600, %eax",
    "movq %rax, %cr4",
    "movl $0xd0000000, %esi",
    "paddb (%rsi), %xmm0",
    "hlt",
);

#[test]
fn an_instruction_that_nobody_finishes_ends_the_guest_by_name() {
    let name = "an_instruction_that_nobody_finishes_ends_the_guest_by_name";
    let Some(kvm) = testing::kvm(name) else { return };
    let code = code!(vt_refused, vt_refused_end);
    let machine = testing::Machine::flat64(kvm, 8 << 20, code);
    drop(machine.vcpus.resume());
    let event = machine.events.recv_timeout(PATIENCE).unwrap();
    let VcpuEvent::Panic(panic) = event else { panic!("{event:?}") };
    assert_eq!(panic.text, "paddb xmm0,[rsi]");
    assert_eq!(panic.bytes, [0x66, 0x0f, 0xfc, 0x06]);
    assert_eq!(panic.rip, testing::CODE + code.len() as u64 - 5);
    machine.finish();
}

// Switches x87, SSE and AVX on, fills XMM0 and saves, changes, restores and stores it.
guest!(
    ".code64",
    vt_xsave,
    vt_xsave_end,
    "movq %cr4, %rax",
    "orl $0x40600, %eax",
    "movq %rax, %cr4",
    "xorl %ecx, %ecx",
    "xorl %edx, %edx",
    "movl $7, %eax",
    "xsetbv",
    "xgetbv",
    "outl %eax, $0xe0",
    "movl $0x200000, %edi",
    "movl $0x12345678, 0x2000(%rdi)",
    "movups 0x2000(%rdi), %xmm0",
    "movl $7, %eax",
    "xorl %edx, %edx",
    "xsave64 (%rdi)",
    "movl 160(%rdi), %eax",
    "outl %eax, $0xe0",
    "movl $0x55555555, 160(%rdi)",
    "orl $2, 512(%rdi)",
    "movl $7, %eax",
    "xrstor64 (%rdi)",
    "movups %xmm0, 0x2000(%rdi)",
    "movl 0x2000(%rdi), %eax",
    "outl %eax, $0xe0",
    "1: hlt",
    "jmp 1b",
);

#[test]
fn a_guest_saves_and_restores_its_extended_state() {
    let Some(kvm) = testing::kvm("a_guest_saves_and_restores_its_extended_state") else { return };
    if !is_x86_feature_detected!("avx") {
        // A processor without AVX has nothing to switch on.
        return;
    }
    let machine = testing::Machine::flat64(kvm, 8 << 20, code!(vt_xsave, vt_xsave_end));
    drop(machine.vcpus.resume());
    let reports: Vec<_> = (0..3).map(|_| machine.reported()).collect();
    assert_eq!(reports, [7, 0x1234_5678, 0x5555_5555]);
    machine.finish();
}
