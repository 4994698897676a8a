use super::*;
use crate::bus::Space;
use crate::irq::{IrqError, MsiMessage, Platform};
use crate::memory::layout::{GIB, PAGE};
use crate::memory::{self, RamConfig};
use crate::sys;
use crate::testing::{Machine, PATIENCE, code, guest, kvm};
use crate::vcpus::block_on;
use kvm_bindings::{KVM_IRQCHIP_PIC_MASTER, kvm_irqchip};
use reactor::Fd;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

fn vm(kvm: Kvm) -> Arc<Vm> {
    Vm::new(kvm, memory::build(&RamConfig::new(2 << 20)).unwrap()).unwrap()
}

fn signal(fd: &Fd) {
    // SAFETY: 8 bytes of a local array, for the length of the call.
    let len = unsafe { libc::write(fd.as_raw_fd(), 1u64.to_ne_bytes().as_ptr().cast(), 8) };
    assert_eq!(len, 8);
}

/// Waits for the eventfd and takes its count.
fn count(fd: &Fd) -> u64 {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd on this stack.
    let ready = unsafe { libc::poll(&raw mut poll, 1, PATIENCE.as_millis() as i32) };
    assert_eq!(ready, 1, "the doorbell rings");
    let mut bytes = [0u8; 8];
    // SAFETY: 8 bytes of a local array.
    let len = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 8) };
    assert_eq!(len, 8);
    u64::from_ne_bytes(bytes)
}

// Rings doorbells: MMIO of two widths, port I/O with a value; then reports.
guest!(
    ".code32",
    vt_doorbells,
    vt_doorbells_end,
    "movw $3, 0xd0000000",
    "movl $4, 0xd0000000",
    "movw $7, 0xd0000010",
    "movw $8, 0xd0000010",
    "movw $5, %ax",
    "outw %ax, $0xd0",
    "movl $0xd0d0, %eax",
    "outl %eax, $0xe0",
    "1: hlt",
    "jmp 1b",
);

#[test]
fn doorbells_ring_without_an_exit() {
    let Some(kvm) = kvm("doorbells_ring_without_an_exit") else { return };
    let machine = Machine::flat32(kvm, 1, code!(vt_doorbells, vt_doorbells_end));
    let (device, seen) = crate::testing::Reporter::new(&[]);
    machine.mmio.map(0xd000_0000, 0x1000, 0, device).unwrap();
    let [any, seven, port, gone] = [(); 4].map(|()| sys::eventfd().unwrap());
    let vm = &machine.vm;
    vm.add_doorbell(Space::Mmio, 0xd000_0000, 0, None, &any).unwrap();
    vm.add_doorbell(Space::Mmio, 0xd000_0010, 2, Some(7), &seven).unwrap();
    vm.add_doorbell(Space::Pio, 0xd0, 2, None, &port).unwrap();
    let twice = vm.add_doorbell(Space::Mmio, 0xd000_0000, 0, None, &gone).unwrap_err();
    assert!(matches!(twice, IrqError::Accelerator { what: "adding a doorbell", .. }));
    vm.add_doorbell(Space::Mmio, 0xd000_0020, 4, None, &gone).unwrap();
    vm.remove_doorbell(Space::Mmio, 0xd000_0020, 4, None, &gone);
    drop(machine.vcpus.resume());
    assert_eq!(machine.reported(), 0xd0d0);
    assert_eq!((count(&any), count(&seven), count(&port)), (2, 1, 1));
    // The value that no doorbell waits for reaches the device.
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), (0x10, vec![8, 0]));
    assert!(seen.try_recv().is_err());
    machine.finish();
}

// Takes interrupts of vector 0x40 through the local APIC and reports each.
guest!(
    ".code64",
    vt_irq,
    vt_irq_end,
    "movl $0x300000, %esp",
    "movl $0x200000, %edi",
    "movl $0xfee00000, %esi",
    "leaq 9f(%rip), %rax",
    "movw %ax, 0x400(%rdi)",
    "movw $0x10, 0x402(%rdi)",
    "movw $0x8e00, 0x404(%rdi)",
    "shrl $16, %eax",
    "movl %eax, 0x406(%rdi)",
    "movw $0x7ff, 0x1000(%rdi)",
    "movq %rdi, 0x1002(%rdi)",
    "lidt 0x1000(%rdi)",
    "movl $0x1ff, 0xf0(%rsi)",
    "movl $1, %eax",
    "outl %eax, $0xe0",
    "sti",
    "1: hlt",
    "jmp 1b",
    "9: movl $0x40, %eax",
    "outl %eax, $0xe0",
    "movl $0, 0xb0(%rsi)",
    "iretq",
);

const TO_CPU_0: MsiMessage = MsiMessage { address: 0xfee0_0000, data: 0x40 };

#[test]
fn message_vectors_deliver_mask_and_keep_what_is_pending() {
    let Some(kvm) = kvm("message_vectors_deliver_mask_and_keep_what_is_pending") else { return };
    let machine = Machine::flat64(kvm, 8 << 20, code!(vt_irq, vt_irq_end));
    let vector = machine.vm.msi_vector().unwrap();
    drop(machine.vcpus.resume());
    assert_eq!(machine.reported(), 1);

    vector.route(Some(TO_CPU_0)).unwrap();
    signal(vector.eventfd());
    assert_eq!(machine.reported(), 0x40);
    assert!(!vector.pending(), "routed");

    vector.route(None).unwrap();
    assert!(!vector.pending(), "delivered before");
    signal(vector.eventfd());
    signal(vector.eventfd());
    assert!(vector.pending());
    assert!(machine.port.try_recv().is_err(), "masked");
    vector.route(Some(TO_CPU_0)).unwrap();
    assert_eq!(machine.reported(), 0x40);

    // A guest's nonsense is a vector that reaches nobody, not an error.
    vector.route(Some(MsiMessage { address: 0x1234, data: 0x40 })).unwrap();
    signal(vector.eventfd());
    assert!(vector.pending());
    vector.route(Some(MsiMessage { address: 0xfee0_0000_0000_00ff, data: 0 })).unwrap();
    vector.route(Some(TO_CPU_0)).unwrap();
    assert_eq!(machine.reported(), 0x40);
    assert!(machine.port.try_recv().is_err(), "each once");
    machine.finish();
}

#[test]
fn vectors_run_out_in_words_and_come_back() {
    let Some(kvm) = kvm("vectors_run_out_in_words_and_come_back") else { return };
    let vm = vm(kvm);
    let mut vectors = Vec::new();
    let error = loop {
        match vm.msi_vector() {
            Ok(vector) => vectors.push(vector),
            Err(error) => break error,
        }
        if vectors.len() > 3000 {
            // Enough for any machine: give the descriptors back before the process has none.
            break IrqError::Exhausted("interrupt vector");
        }
    };
    let text = error.to_string();
    assert!(text.contains("interrupt vector"), "{text}");
    assert!(vectors.len() > 500);
    let last = vectors.pop().unwrap();
    last.route(Some(TO_CPU_0)).unwrap();
    drop(last);
    assert!(vm.msi_vector().is_ok());
}

#[test]
fn a_line_is_high_while_any_of_its_handles_is() {
    let Some(kvm) = kvm("a_line_is_high_while_any_of_its_handles_is") else { return };
    let vm = vm(kvm);
    let level = || {
        let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_PIC_MASTER, ..Default::default() };
        vm.fd().get_irqchip(&mut chip).unwrap();
        // SAFETY: a PIC was asked for, and that is the member which KVM fills.
        let inputs = unsafe { chip.chip.pic.last_irr };
        inputs >> 5 & 1
    };
    let (a, b) = (vm.irq_line(5), vm.irq_line(5));
    assert_eq!(level(), 0);
    a.set_level(true);
    b.set_level(true);
    a.set_level(false);
    assert_eq!(level(), 1);
    drop(b);
    assert_eq!(level(), 0, "a handle lets go when it is dropped");
    vm.irq_line(99).set_level(true);
    a.set_level(true);
    vm.reset_chips().unwrap();
    assert_eq!(level(), 0);
}

// Stores to the last page of RAM above 4 GiB and reports what it finds there.
guest!(
    ".code64",
    vt_high,
    vt_high_end,
    "movabsq $0x1bffff000, %rsi",
    "movl (%rsi), %eax",
    "outl %eax, $0xe0",
    "movl $0x600d600d, 4(%rsi)",
    "movl 4(%rsi), %eax",
    "outl %eax, $0xe0",
    "1: hlt",
    "jmp 1b",
);

#[test]
fn six_gib_of_ram_reach_past_the_hole_on_any_host() {
    let Some(kvm) = kvm("six_gib_of_ram_reach_past_the_hole_on_any_host") else { return };
    let machine = Machine::flat64(kvm, 6 * GIB, code!(vt_high, vt_high_end));
    let last_page = GuestAddress(0x1_bfff_f000);
    machine.ram.write_obj(0xcafe_u32, last_page).unwrap();
    // One more page directory for the seventh GiB: 0x9000 PML4, 0xa000 PDPT, 0xb000 directories.
    let directory = 0x20_0000u64;
    machine.ram.write_obj(directory | 3, GuestAddress(0xa000 + 6 * 8)).unwrap();
    let last = 0x1_bfe0_0000u64 | 0x83;
    machine.ram.write_obj(last, GuestAddress(directory + 511 * 8)).unwrap();
    drop(machine.vcpus.resume());
    assert_eq!((machine.reported(), machine.reported()), (0xcafe, 0x600d_600d));
    block_on(machine.vcpus.pause()).unwrap();
    assert_eq!(machine.ram.read_obj::<u32>(GuestAddress(0x1_bfff_f004)).unwrap(), 0x600d_600d);
    assert_eq!(0x1_bfff_f000 % PAGE, 0);
    machine.finish();
}

#[test]
fn errors_about_kvm_say_what_to_do() {
    for (error, words) in [
        (KvmError::Missing, "load the kvm_intel"),
        (KvmError::NoPermission, "join the group"),
        (KvmError::Capability("KVM_CAP_IRQFD"), "KVM_CAP_IRQFD"),
        (KvmError::ApiVersion(11), "version 11"),
    ] {
        let text = error.to_string();
        assert!(text.contains(words) && !text.contains('\n'), "{text}");
    }
}
