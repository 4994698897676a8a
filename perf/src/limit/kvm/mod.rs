//! The smallest VMM that serves a disk: a guest of a few instructions rings a doorbell and waits; one thread sleeps on the
//! doorbell's eventfd, does the I/O, writes a word of memory and, where the guest sleeps, interrupts it by an irqfd.

mod small;

use crate::limit::uring::{Bare, Op};
use crate::samples::Samples;
use crate::{Error, host};
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

const MEMORY: usize = 4 << 20;
/// The word by which the guest learns that its request is done: the request's number.
const DONE: u64 = 0x2_0000;
const DOORBELL: u64 = 0xd000_0000;

/// The interrupt's number between the irqfd and the processor.
const GSI: u32 = 0;

/// How the guest learns that a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It looks at the word all the time.
    Word,
    /// It sleeps until an interrupt.
    Interrupt,
}

fn kvm_error(error: kvm_ioctls::Error) -> Error {
    Error::io("KVM", error)
}

/// Times of `rounds` requests, one after the other, from one doorbell to the next; with `io`, each reads or writes
/// a block of a file on the way. The vCPU runs on one CPU and the thread that serves it on the other.
pub fn requests(
    rounds: u32,
    cpus: [usize; 2],
    notice: Notice,
    io: Option<(&mut Bare, Op)>,
) -> Result<Samples, Error> {
    let kvm = Kvm::new().map_err(|e| Error::io("/dev/kvm", e))?;
    let vm = kvm.create_vm().map_err(kvm_error)?;
    let ranges = [(GuestAddress(0), MEMORY)];
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).map_err(|e| Error::io("memory", e))?;
    map(&vm, &memory)?;
    small::fill(&memory, notice)?;
    let mut irqfd = None;
    if notice == Notice::Interrupt {
        vm.create_irq_chip().map_err(kvm_error)?;
        irqfd = Some(interrupt(&vm)?);
    }
    let doorbell = EventFd::new(0).map_err(|e| Error::io("eventfd", e))?;
    let address = IoEventAddress::Mmio(DOORBELL);
    vm.register_ioevent(&doorbell, &address, NoDatamatch).map_err(kvm_error)?;
    let mut vcpu = vm.create_vcpu(0).map_err(kvm_error)?;
    let all = rounds + rounds / 10 + 1;
    small::set_up(&kvm, &vcpu, notice, all)?;
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
        let server = Server { memory: &memory, doorbell, irqfd: irqfd.as_ref(), ended };
        let samples = server.serve([all, rounds], io);
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

/// The irqfd of an MSI to the processor.
fn interrupt(vm: &VmFd) -> Result<EventFd, Error> {
    let message = kvm_irq_routing_msi {
        address_lo: 0xfee0_0000,
        data: small::VECTOR.into(),
        ..Default::default()
    };
    let route = kvm_irq_routing_entry {
        gsi: GSI,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi: message },
        ..Default::default()
    };
    let routes = KvmIrqRouting::from_entries(&[route]).map_err(|e| Error::io("KVM", e))?;
    vm.set_gsi_routing(&routes).map_err(kvm_error)?;
    let irqfd = EventFd::new(0).map_err(|e| Error::io("eventfd", e))?;
    vm.register_irqfd(&irqfd, GSI).map_err(kvm_error)?;
    Ok(irqfd)
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

/// The thread that serves the guest.
struct Server<'a> {
    memory: &'a GuestMemoryMmap<()>,
    doorbell: &'a EventFd,
    irqfd: Option<&'a EventFd>,
    ended: &'a AtomicBool,
}

impl Server<'_> {
    /// Answers `all` doorbells; the times between the last `counted` of them.
    fn serve(
        &self,
        [all, counted]: [u32; 2],
        mut io: Option<(&mut Bare, Op)>,
    ) -> Result<Samples, Error> {
        let mut result = Ok(());
        let mut samples = Samples::new();
        let mut last = Instant::now();
        let mut slots = Vec::new();
        for number in 1..=all {
            self.doorbell.read().map_err(|e| Error::io("doorbell", e))?;
            if self.ended.load(Ordering::Acquire) {
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
            self.memory
                .store(number, done, Ordering::Release)
                .map_err(|e| Error::io("memory", e))?;
            if let Some(irqfd) = self.irqfd {
                irqfd.write(1).map_err(|e| Error::io("irqfd", e))?;
            }
        }
        result.map(|()| samples)
    }
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
        for notice in [Notice::Word, Notice::Interrupt] {
            assert_eq!(requests(110, pair, notice, None).unwrap().count(), 110);
            let file = tempfile::tempfile().unwrap();
            file.set_len(1 << 20).unwrap();
            let mut bare = Bare::new(&file, 256, 1).unwrap();
            let samples = requests(11, pair, notice, Some((&mut bare, Op::Read))).unwrap();
            assert_eq!(samples.count(), 11, "{notice:?}");
        }
        host::bind_thread(0, &cpus).unwrap();
    }
}
