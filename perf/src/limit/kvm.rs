//! The smallest VMM that serves a disk: a guest of a few instructions rings a doorbell and looks at a word of memory;
//! one thread sleeps on the doorbell's eventfd, does the I/O and writes the word.
//!
//! The guest runs in CPL3, as the embedded guest does, because hosts without VMX or SVM interpret CPL0.

use crate::limit::uring::{Bare, Op};
use crate::samples::Samples;
use crate::{Error, host};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

const MEMORY: usize = 4 << 20;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const LOW: u64 = 0x3000;
const HIGH: u64 = 0x4000;
const CODE: u64 = 0x1_0000;
/// The word by which the guest learns that its request is done: the request's number.
const DONE: u64 = 0x2_0000;
const DOORBELL: u64 = 0xd000_0000;

/// mov ebx, DOORBELL; mov esi, DONE; xor edi, edi;
/// 1: inc edi; mov [rbx], edi; 2: pause; cmp [rsi], edi; jne 2b; cmp edi, ecx; jb 1b; mov [rbx + 0x1000], edi; jmp $
const PROGRAM: [u8; 36] = [
    0xbb, 0x00, 0x00, 0x00, 0xd0, 0xbe, 0x00, 0x00, 0x02, 0x00, 0x31, 0xff, 0xff, 0xc7, 0x89, 0x3b,
    0xf3, 0x90, 0x39, 0x3e, 0x75, 0xfa, 0x39, 0xcf, 0x72, 0xf2, 0x89, 0xbb, 0x00, 0x10, 0x00, 0x00,
    0xeb, 0xfe, 0x90, 0x90,
];

fn kvm_error(error: kvm_ioctls::Error) -> Error {
    Error::io("KVM", error)
}

/// Times of `rounds` requests, one after the other, from one doorbell to the next; with `io`, each reads or writes
/// a block of a file on the way. The vCPU runs on one CPU and the thread that serves it on the other.
pub fn requests(
    rounds: u32,
    cpus: [usize; 2],
    io: Option<(&mut Bare, Op)>,
) -> Result<Samples, Error> {
    let kvm = Kvm::new().map_err(|e| Error::io("/dev/kvm", e))?;
    let vm = kvm.create_vm().map_err(kvm_error)?;
    let ranges = [(GuestAddress(0), MEMORY)];
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).map_err(|e| Error::io("memory", e))?;
    map(&vm, &memory)?;
    fill(&memory)?;
    let doorbell = EventFd::new(0).map_err(|e| Error::io("eventfd", e))?;
    let address = IoEventAddress::Mmio(DOORBELL);
    vm.register_ioevent(&doorbell, &address, NoDatamatch).map_err(kvm_error)?;
    let mut vcpu = vm.create_vcpu(0).map_err(kvm_error)?;
    let all = rounds + rounds / 10 + 1;
    set_up(&kvm, &vcpu, all)?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ended, doorbell) = (&ended, &doorbell);
        let guest = scope.spawn(move || {
            let result = host::bind_thread(0, &cpus[..1]).and_then(|()| run(&mut vcpu));
            // Whoever waits for a doorbell waits in vain from now on.
            ended.store(true, Ordering::Release);
            doorbell.write(1).map_err(|e| Error::io("doorbell", e)).and(result)
        });
        host::bind_thread(0, &cpus[1..])?;
        let samples = serve(&memory, doorbell, ended, [all, rounds], io);
        guest.join().map_err(|_| Error::unexpected("the vCPU's thread panicked"))??;
        samples
    })
}

fn map(vm: &VmFd, memory: &GuestMemoryMmap<()>) -> Result<(), Error> {
    let address = memory.get_host_address(GuestAddress(0)).map_err(|e| Error::io("memory", e))?;
    let region = kvm_userspace_memory_region {
        memory_size: MEMORY as u64,
        userspace_addr: address.expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: the mapping is `memory`, which the caller keeps for longer than the VM runs.
    unsafe { vm.set_user_memory_region(region) }.map_err(kvm_error)
}

/// Page tables that map the memory and the doorbell's page, for CPL3, and the program.
fn fill(memory: &GuestMemoryMmap<()>) -> Result<(), Error> {
    const TABLE: u64 = 0x27;
    const LARGE: u64 = 0xe7;
    let entries = [
        (PML4, PDPT | TABLE),
        (PDPT, LOW | TABLE),
        (PDPT + 3 * 8, HIGH | TABLE),
        (LOW, LARGE),
        (LOW + 8, 0x20_0000 | LARGE),
        (HIGH + (DOORBELL >> 21 & 511) * 8, DOORBELL | LARGE),
    ];
    for (address, entry) in entries {
        memory.write_obj(entry, GuestAddress(address)).map_err(|e| Error::io("memory", e))?;
    }
    memory.write_slice(&PROGRAM, GuestAddress(CODE)).map_err(|e| Error::io("memory", e))
}

/// Long mode, CPL3, flat segments.
fn set_up(kvm: &Kvm, vcpu: &VcpuFd, rounds: u32) -> Result<(), Error> {
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm_error)?;
    vcpu.set_cpuid2(&cpuid).map_err(kvm_error)?;
    let mut sregs = vcpu.get_sregs().map_err(kvm_error)?;
    let segment =
        kvm_segment { limit: u32::MAX, dpl: 3, present: 1, s: 1, g: 1, ..Default::default() };
    sregs.cs = kvm_segment { selector: 0x23, type_: 11, l: 1, ..segment };
    let data = kvm_segment { selector: 0x1b, type_: 3, db: 1, ..segment };
    (sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.cr0 = 0x8005_0033;
    sregs.cr3 = PML4;
    sregs.cr4 = 0x620;
    sregs.efer = 0x500;
    vcpu.set_sregs(&sregs).map_err(kvm_error)?;
    let mut regs = vcpu.get_regs().map_err(kvm_error)?;
    (regs.rip, regs.rcx, regs.rflags) = (CODE, rounds.into(), 0x202);
    vcpu.set_regs(&regs).map_err(kvm_error)
}

/// Runs the guest until it writes beside its doorbell.
fn run(vcpu: &mut VcpuFd) -> Result<(), Error> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::MmioWrite(address, _)) if address == DOORBELL + 0x1000 => return Ok(()),
            Ok(VcpuExit::Intr) => {}
            Err(error) if error.errno() == libc::EINTR => {}
            Ok(other) => return Err(Error::unexpected(format!("the small guest: {other:?}"))),
            Err(error) => return Err(kvm_error(error)),
        }
    }
}

fn serve(
    memory: &GuestMemoryMmap<()>,
    doorbell: &EventFd,
    ended: &AtomicBool,
    [all, counted]: [u32; 2],
    mut io: Option<(&mut Bare, Op)>,
) -> Result<Samples, Error> {
    let mut result = Ok(());
    let mut samples = Samples::new();
    let mut last = Instant::now();
    let mut slots = Vec::new();
    for number in 1..=all {
        doorbell.read().map_err(|e| Error::io("doorbell", e))?;
        if ended.load(Ordering::Acquire) {
            break;
        }
        let now = Instant::now();
        if number > all - counted {
            samples.add(now - last);
        }
        last = now;
        // After an error the guest is served on, as it could not end otherwise.
        if let (Some((bare, op)), Ok(())) = (&mut io, &result) {
            result = bare.push(0, *op).and_then(|()| bare.wait(&mut slots));
        }
        let done = GuestAddress(DONE);
        memory.store(number, done, Ordering::Release).map_err(|e| Error::io("memory", e))?;
    }
    result.map(|()| samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_guest_is_served() {
        if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            println!("SKIPPED the_small_guest_is_served: /dev/kvm is not accessible");
            return;
        }
        let cpus = host::allowed_cpus().unwrap();
        let pair = [cpus[0], cpus[cpus.len() - 1]];
        assert_eq!(requests(110, pair, None).unwrap().count(), 110);
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let mut bare = Bare::new(&file, 256, 1).unwrap();
        let samples = requests(11, pair, Some((&mut bare, Op::Read))).unwrap();
        assert_eq!(samples.count(), 11);
        host::bind_thread(0, &cpus).unwrap();
    }
}
