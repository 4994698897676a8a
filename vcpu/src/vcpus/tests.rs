use super::gather::block_on;
use super::*;
use crate::address_space::AddressSpace;
use crate::bus::Space;
use crate::testing::{CODE, Machine, PATIENCE, Reporter, code, guest, kvm};
use vm_memory::{Bytes, GuestAddress};

// Reports 0x41 and sleeps for good, as a guest without interrupts does.
guest!(
    ".code32",
    vt_sleeper,
    vt_sleeper_end,
    "movb $0x41, %al",
    "outb %al, $0xe0",
    "1: hlt",
    "jmp 1b",
);

#[test]
fn a_guest_runs_sleeps_is_paused_resumed_and_reset() {
    let Some(kvm) = kvm("a_guest_runs_sleeps_is_paused_resumed_and_reset") else { return };
    let machine = Machine::flat32(kvm, 1, code!(vt_sleeper, vt_sleeper_end));
    assert!(machine.vcpus.is_paused());
    block_on(machine.vcpus.resume()).unwrap();
    assert_eq!(machine.reported(), 0x41);
    // Asleep in HLT inside KVM by now, or about to be: the pause gets it out either way.
    block_on(machine.vcpus.pause()).unwrap();
    block_on(machine.vcpus.pause()).unwrap();
    block_on(machine.vcpus.resume()).unwrap();
    assert!(matches!(block_on(machine.vcpus.reset(|| unreachable!())), Err(VcpuError::NotPaused)));
    block_on(machine.vcpus.pause()).unwrap();
    assert!(machine.port.try_recv().is_err(), "nothing ran twice");

    // The guest overwrote its code; the reload puts it back.
    let boot = BootState::Pvh { entry: CODE as u32, start_info: 0 };
    let ram = machine.ram.clone();
    ram.write_slice(&[0xf4; 16], GuestAddress(CODE)).unwrap();
    let reload = move || {
        assert_eq!(std::thread::current().name(), Some("CPU 0/KVM"));
        let code = code!(vt_sleeper, vt_sleeper_end);
        ram.write_slice(code, GuestAddress(CODE)).expect("the code fits");
        Ok(boot)
    };
    block_on(machine.vcpus.reset(reload)).unwrap();
    assert!(machine.port.try_recv().is_err(), "still paused");
    block_on(machine.vcpus.resume()).unwrap();
    assert_eq!(machine.reported(), 0x41);

    assert_eq!(machine.vcpus.thread_ids().len(), 1);
    block_on(machine.vcpus.stop()).unwrap();
    machine.vcpus.join(PATIENCE).unwrap();
    assert!(matches!(block_on(machine.vcpus.resume()), Err(VcpuError::Ended)));
    assert!(block_on(machine.vcpus.stop()).is_ok());
    assert_eq!(machine.vcpus.thread_ids(), [0]);
}

// Loads a GDT and an IDT with a handler for NMIs that reports 0x4e; then sleeps.
guest!(
    ".code32",
    vt_nmi,
    vt_nmi_end,
    "lgdt vt_gdt_ptr - vt_nmi + 0x100000",
    "ljmp $8, $(1f - vt_nmi + 0x100000)",
    "1: lidt vt_idt_ptr - vt_nmi + 0x100000",
    "movl $0x80000, %esp",
    "movl $(vt_handler - vt_nmi + 0x100000), %eax",
    "movw %ax, vt_idt - vt_nmi + 0x100010",
    "movw $8, vt_idt - vt_nmi + 0x100012",
    "movw $0x8e00, vt_idt - vt_nmi + 0x100014",
    "shrl $16, %eax",
    "movw %ax, vt_idt - vt_nmi + 0x100016",
    "movb $0x41, %al",
    "outb %al, $0xe0",
    "2: hlt",
    "jmp 2b",
    "vt_handler: movb $0x4e, %al",
    "outb %al, $0xe0",
    "3: hlt",
    "jmp 3b",
    ".balign 8",
    "vt_gdt: .quad 0",
    ".quad 0x00cf9a000000ffff",
    "vt_gdt_ptr: .word 15",
    ".long vt_gdt - vt_nmi + 0x100000",
    ".balign 8",
    "vt_idt: .fill 3, 8, 0",
    "vt_idt_ptr: .word 23",
    ".long vt_idt - vt_nmi + 0x100000",
);

#[test]
fn an_nmi_reaches_a_sleeping_guest_and_one_that_is_paused_takes_it_later() {
    let name = "an_nmi_reaches_a_sleeping_guest_and_one_that_is_paused_takes_it_later";
    for paused in [false, true] {
        let Some(kvm) = kvm(name) else { return };
        let machine = Machine::flat32(kvm, 1, code!(vt_nmi, vt_nmi_end));
        block_on(machine.vcpus.resume()).unwrap();
        assert_eq!(machine.reported() & 0xff, 0x41);
        if paused {
            block_on(machine.vcpus.pause()).unwrap();
        }
        block_on(machine.vcpus.nmi()).unwrap();
        if paused {
            assert!(machine.port.try_recv().is_err());
            block_on(machine.vcpus.resume()).unwrap();
        }
        assert_eq!(machine.reported() & 0xff, 0x4e);
        machine.finish();
    }
}

#[test]
fn a_vcpu_can_be_asked_where_linear_addresses_lead() {
    let Some(kvm) = kvm("a_vcpu_can_be_asked_where_linear_addresses_lead") else { return };
    let machine = Machine::flat32(kvm, 1, code!(vt_sleeper, vt_sleeper_end));
    let ask = |cpu| block_on(machine.vcpus.linear(cpu));
    assert_eq!(ask(0).unwrap(), Some(crate::linear::Linear::flat()));
    block_on(machine.vcpus.resume()).unwrap();
    assert_eq!(ask(0).unwrap().unwrap().translate(&machine.ram, CODE), Some(CODE));
    assert_eq!(ask(1).unwrap(), None);
    block_on(machine.vcpus.stop()).unwrap();
    assert!(matches!(ask(0), Err(VcpuError::Ended)));
    assert!(matches!(block_on(machine.vcpus.nmi()), Err(VcpuError::Ended)));
}

// Counts on the reporting port without end.
guest!(
    ".code32",
    vt_counter,
    vt_counter_end,
    "xorl %eax, %eax",
    "1: outl %eax, $0xe0",
    "incl %eax",
    "jmp 1b",
);

#[test]
fn a_pause_is_exact_no_access_is_lost_or_repeated() {
    let Some(kvm) = kvm("a_pause_is_exact_no_access_is_lost_or_repeated") else { return };
    let machine = Machine::flat32(kvm, 1, code!(vt_counter, vt_counter_end));
    let mut next = 0;
    for _ in 0..50 {
        block_on(machine.vcpus.resume()).unwrap();
        assert_eq!(machine.reported(), next);
        next += 1;
        block_on(machine.vcpus.pause()).unwrap();
        while let Ok((_, bytes)) = machine.port.try_recv() {
            assert_eq!(u32::from_le_bytes(bytes.try_into().unwrap()), next);
            next += 1;
        }
    }
    machine.finish();
}

// Items of string instructions, a read, and an access of each width to device memory.
guest!(
    ".code32",
    vt_accesses,
    vt_accesses_end,
    "movl $(vt_text - vt_accesses + 0x100000), %esi",
    "movl $3, %ecx",
    "movw $0xe0, %dx",
    "rep outsb",
    "movl $2, %ecx",
    "rep outsw",
    "movl 0xd0000000, %eax",
    "outl %eax, $0xe0",
    "movb $0x11, 0xd0000001",
    "movw $0x2222, 0xd0000002",
    "movl $0x44444444, 0xd0000004",
    "1: hlt",
    "jmp 1b",
    "vt_text: .ascii \"abcdefg\"",
);

#[test]
fn accesses_reach_their_devices_item_by_item() {
    let Some(kvm) = kvm("accesses_reach_their_devices_item_by_item") else { return };
    let machine = Machine::flat32(kvm, 1, code!(vt_accesses, vt_accesses_end));
    let (device, seen) = Reporter::new(&[0x1234_5678]);
    machine.mmio.map(0xd000_0000, 0x1000, 0, device).unwrap();
    drop(machine.vcpus.resume());
    let words: Vec<_> = (0..6).map(|_| machine.reported()).collect();
    assert_eq!(words, [0x61, 0x62, 0x63, 0x6564, 0x6766, 0x1234_5678]);
    let writes: Vec<_> = (0..3).map(|_| seen.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(writes, [(1, vec![0x11]), (2, vec![0x22; 2]), (4, vec![0x44; 4])]);
    machine.finish();
}

// No IDT, so the first exception is the last.
guest!(".code32", vt_triple, vt_triple_end, "ud2",);

#[test]
fn a_triple_fault_is_an_event_and_a_reset_mends_it() {
    let Some(kvm) = kvm("a_triple_fault_is_an_event_and_a_reset_mends_it") else { return };
    let machine = Machine::flat32(kvm, 1, code!(vt_triple, vt_triple_end));
    drop(machine.vcpus.resume());
    assert_eq!(machine.event(), VcpuEvent::TripleFault { cpu: 0 });
    block_on(machine.vcpus.pause()).unwrap();
    block_on(machine.vcpus.resume()).unwrap();
    block_on(machine.vcpus.pause()).unwrap();
    let ram = machine.ram.clone();
    block_on(machine.vcpus.reset(move || {
        let code = code!(vt_sleeper, vt_sleeper_end);
        ram.write_slice(code, GuestAddress(CODE)).expect("the code fits");
        Ok(BootState::Pvh { entry: CODE as u32, start_info: 0 })
    }))
    .unwrap();
    drop(machine.vcpus.resume());
    assert_eq!(machine.reported(), 0x41);
    assert!(machine.events.try_recv().is_err(), "a crashed vCPU stays still");
    machine.finish();
}

// The boot processor starts the second one by INIT and SIPI, at real-mode address 0x8000, where
// it has put code that reports 0x42.
guest!(
    ".code32",
    vt_smp,
    vt_smp_end,
    "movl $0xe0e642b0, 0x8000",
    "movl $0x1ff, 0xfee000f0",
    "movl $0x01000000, 0xfee00310",
    "movl $0x00004500, 0xfee00300",
    "movl $0x01000000, 0xfee00310",
    "movl $0x00004608, 0xfee00300",
    "1: hlt",
    "jmp 1b",
);

#[test]
fn the_second_vcpu_waits_for_its_startup_interrupt() {
    let Some(kvm) = kvm("the_second_vcpu_waits_for_its_startup_interrupt") else { return };
    let machine = Machine::flat32(kvm, 2, code!(vt_smp, vt_smp_end));
    // B0 42 E6 E0 F4: mov al, 0x42; out 0xe0, al; hlt.
    machine.ram.write_obj(0xf4u8, GuestAddress(0x8004)).unwrap();
    machine.ram.write_slice(code!(vt_smp, vt_smp_end), GuestAddress(CODE)).unwrap();
    for _ in 0..2 {
        drop(machine.vcpus.resume());
        assert_eq!(machine.reported(), 0x42);
        block_on(machine.vcpus.pause()).unwrap();
        let boot = BootState::Pvh { entry: CODE as u32, start_info: 0 };
        block_on(machine.vcpus.reset(move || Ok(boot))).unwrap();
    }
    machine.finish();
}

#[test]
fn more_vcpus_than_kvm_runs_are_refused_in_one_line() {
    let Some(kvm) = kvm("more_vcpus_than_kvm_runs_are_refused_in_one_line") else { return };
    let limit = kvm.max_vcpus();
    let vm = crate::memory::build(&crate::memory::RamConfig::new(2 << 20)).unwrap();
    let vm = Vm::new(kvm, vm).unwrap();
    let config = |count| VcpusConfig {
        topology: Topology::cores(count),
        cpu: CpuModel::host(),
        pio: AddressSpace::new(Space::Pio),
        mmio: AddressSpace::new(Space::Mmio),
        events: Arc::new(|_| ()),
    };
    let text = |count| match Vcpus::new(&vm, config(count), BootState::Real { ip: 0 }) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{count} vCPUs were made"),
    };
    assert_eq!(
        text(limit + 1),
        format!("-smp: this host's KVM runs at most {limit} vCPUs in a machine, not {}", limit + 1)
    );
    assert!(text(0).contains("at least one"));
    let many = Vcpus::new(&vm, config(limit), BootState::Real { ip: 0 }).unwrap();
    assert_eq!(many.count(), limit);
    drop(many.stop());
    many.join(PATIENCE).unwrap();
}

// Starts every other processor at 0x8000, reports, and spins. There, each spins too.
guest!(
    ".code32",
    vt_spin,
    vt_spin_end,
    "movw $0xfeeb, 0x8000",
    "movl $0x1ff, 0xfee000f0",
    "movl $0x000c4500, 0xfee00300",
    "movl $0x000c4608, 0xfee00300",
    "movb $1, %al",
    "outb %al, $0xe0",
    "1: jmp 1b",
);

#[test]
fn many_vcpus_stop_and_go_together() {
    let Some(kvm) = kvm("many_vcpus_stop_and_go_together") else { return };
    let machine = Machine::flat32(kvm, 4, code!(vt_spin, vt_spin_end));
    drop(machine.vcpus.resume());
    assert_eq!(machine.reported(), 1);
    for _ in 0..100 {
        // A reply that nobody waits for holds nothing up; the order of commands stands.
        drop(machine.vcpus.resume());
        block_on(machine.vcpus.pause()).unwrap();
    }
    block_on(machine.vcpus.resume()).unwrap();
    let ids = machine.vcpus.thread_ids();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| *id > 0));
    // A stop reaches vCPUs in the middle of guest code.
    block_on(machine.vcpus.stop()).unwrap();
    machine.vcpus.join(PATIENCE).unwrap();
}

/// A device whose read says that it has begun and returns when it is told to.
struct Slow {
    begun: std::sync::Mutex<std::sync::mpsc::Sender<()>>,
    release: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl crate::bus::BusDevice for Slow {
    fn read(&self, _: u64, _: &mut [u8]) {
        let _ = self.begun.lock().unwrap().send(());
        let _ = self.release.lock().unwrap().recv();
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

#[test]
fn a_thread_that_is_stuck_is_named() {
    let Some(kvm) = kvm("a_thread_that_is_stuck_is_named") else { return };
    let machine = Machine::flat32(kvm, 1, code!(vt_accesses, vt_accesses_end));
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (let_go, release) = std::sync::mpsc::channel();
    let slow = Arc::new(Slow { begun: begun.into(), release: release.into() });
    machine.mmio.map(0xd000_0000, 4, 0, slow).unwrap();
    drop(machine.vcpus.resume());
    has_begun.recv_timeout(PATIENCE).unwrap();
    drop(machine.vcpus.stop());
    let error = machine.vcpus.join(Duration::from_millis(20)).unwrap_err().to_string();
    assert!(error.contains("\"CPU 0/KVM\" has not ended"), "{error}");
    let_go.send(()).unwrap();
    machine.vcpus.join(PATIENCE).unwrap();
}
