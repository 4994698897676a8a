//! The vCPU behind an instruction, by KVM's calls.

use super::context::Machine;
use super::{Exception, Stop};
use crate::cpuid::{Leaves, Registers};
use crate::memory::Ram;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_xsave};
use kvm_ioctls::VcpuFd;

/// A vCPU that is outside `KVM_RUN`, on its own thread.
pub(super) struct KvmMachine<'a> {
    fd: &'a VcpuFd,
    ram: &'a Ram,
}

const REFUSED: Stop = Stop::Decline("KVM did not hand out the vCPU's state");

fn refused(error: kvm_ioctls::Error) -> Stop {
    tracing::debug!(%error, "KVM refused state of a vCPU");
    REFUSED
}

impl<'a> KvmMachine<'a> {
    pub fn new(fd: &'a VcpuFd, ram: &'a Ram) -> Self {
        Self { fd, ram }
    }

    pub fn registers(&self) -> Result<(kvm_regs, kvm_sregs), Stop> {
        Ok((self.fd.get_regs().map_err(refused)?, self.fd.get_sregs().map_err(refused)?))
    }

    /// Makes the outcome of an instruction the vCPU's state.
    pub fn commit(
        &self,
        regs: &kvm_regs,
        sregs: Option<&kvm_sregs>,
        exception: Option<Exception>,
    ) -> Result<(), Stop> {
        let mut events = self.fd.get_vcpu_events().map_err(refused)?;
        if exception.is_some() && (events.exception.injected != 0 || events.exception.pending != 0)
        {
            return Err(Stop::Decline("it faults while another exception is being delivered"));
        }
        if let Some(sregs) = sregs {
            self.fd.set_sregs(sregs).map_err(refused)?;
        }
        // Before the events: setting the general registers drops a pending exception.
        self.fd.set_regs(regs).map_err(refused)?;
        if exception.is_none() && events.interrupt.shadow == 0 {
            return Ok(());
        }
        // STI and MOV SS hold interrupts off for one instruction: this was it.
        events.interrupt.shadow = 0;
        if let Some(Exception { vector, code }) = exception {
            events.exception.injected = 1;
            events.exception.nr = vector;
            events.exception.has_error_code = u8::from(code.is_some());
            events.exception.error_code = code.unwrap_or(0);
        }
        self.fd.set_vcpu_events(&events).map_err(refused)
    }
}

impl Machine for KvmMachine<'_> {
    fn ram(&self) -> &Ram {
        self.ram
    }

    fn translate(&self, linear: u64) -> Result<Option<u64>, Stop> {
        let translation = self.fd.translate_gva(linear).map_err(refused)?;
        Ok((translation.valid != 0).then_some(translation.physical_address))
    }

    fn xsave(&self) -> Result<Vec<u8>, Stop> {
        let area = self.fd.get_xsave().map_err(refused)?;
        Ok(area.region.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    fn set_xsave(&self, bytes: &[u8]) -> Result<(), Stop> {
        let mut area = kvm_xsave::default();
        for (word, bytes) in area.region.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        // SAFETY: KVM reads 4096 bytes unless this process has asked for dynamically enabled
        // state (ARCH_REQ_XCOMP_GUEST_PERM), which it never does; the structure is that long.
        unsafe { self.fd.set_xsave(&area) }.map_err(refused)
    }

    fn xcr0(&self) -> Result<u64, Stop> {
        let xcrs = self.fd.get_xcrs().map_err(refused)?;
        let count = xcrs.nr_xcrs as usize;
        let all = xcrs.xcrs.iter().take(count);
        all.into_iter().find(|x| x.xcr == 0).map(|x| x.value).ok_or(REFUSED)
    }

    fn msr(&self, index: u32) -> Result<u64, Stop> {
        let wanted = kvm_msr_entry { index, ..Default::default() };
        let mut list = Msrs::from_entries(&[wanted]).map_err(|_| REFUSED)?;
        match self.fd.get_msrs(&mut list).map_err(refused)? {
            1 => Ok(list.as_slice().first().map_or(0, |entry| entry.data)),
            // Not there: as after reset.
            _ => Ok(0),
        }
    }

    fn cpuid(&self, leaf: u32, index: u32) -> Result<Registers, Stop> {
        let table = self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(refused)?;
        let leaves = Leaves::new(table.as_slice());
        Ok(leaves.get(leaf, index).map_or_else(Registers::default, |entry| Registers {
            eax: entry.eax,
            ebx: entry.ebx,
            ecx: entry.ecx,
            edx: entry.edx,
        }))
    }
}
