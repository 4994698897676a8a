//! A vCPU's registers at power-on, and the way back to them.

use crate::boot::BootState;
use crate::kvm::KvmError;
use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuFd};

const MSR_IA32_TSC: u32 = 0x10;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, everything write-back: what firmware would leave (Intel SDM volume 3, section 12.11).
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// What matters most, for kernels whose own list is longer than the interface can carry.
const ESSENTIAL_MSRS: &[u32] = &[
    0x11,
    0x12,
    0x3b,
    0x48,
    0x174,
    0x175,
    0x176,
    0x1a0,
    0x277,
    0x6e0,
    0xda0,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
    0xc000_0103,
    0x4b56_4d00,
    0x4b56_4d01,
    0x4b56_4d02,
    0x4b56_4d03,
    0x4b56_4d04,
    0x4b56_4d05,
    0x4b56_4d06,
];

/// The model-specific registers that a reset restores.
///
/// The time-stamp counter is not among them: setting it on one processor after the other would
/// leave them apart.
pub(super) fn msr_list(kvm: &kvm_ioctls::Kvm) -> Vec<u32> {
    match kvm.get_msr_index_list() {
        Ok(list) => list.as_slice().iter().copied().filter(|msr| *msr != MSR_IA32_TSC).collect(),
        Err(error) => {
            tracing::warn!(%error, "KVM's list of MSRs is unreadable; using a built-in one");
            ESSENTIAL_MSRS.to_vec()
        }
    }
}

/// All of a new vCPU's registers.
pub(super) struct PowerOn {
    regs: kvm_regs,
    sregs: kvm_sregs,
    mp_state: kvm_mp_state,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    xsave: Box<kvm_xsave>,
    xcrs: Option<kvm_xcrs>,
    msrs: Vec<kvm_msr_entry>,
}

impl PowerOn {
    /// Completes a new vCPU's registers as firmware would, and keeps them.
    pub fn of(fd: &VcpuFd, msrs: &[u32], kvm: &kvm_ioctls::Kvm) -> Result<Self, KvmError> {
        let refused = KvmError::refused;
        write_msrs(fd, &[msr(MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK)]);
        let xcrs = if kvm.check_extension(Cap::Xcrs) {
            Some(fd.get_xcrs().map_err(refused("read a vCPU's extended control registers"))?)
        } else {
            None
        };
        let xsave = fd.get_xsave().map_err(refused("read a vCPU's FPU"))?;
        Ok(Self {
            regs: fd.get_regs().map_err(refused("read a vCPU's registers"))?,
            sregs: fd.get_sregs().map_err(refused("read a vCPU's system registers"))?,
            mp_state: fd.get_mp_state().map_err(refused("read a vCPU's run state"))?,
            lapic: fd.get_lapic().map_err(refused("read a vCPU's local APIC"))?,
            events: fd.get_vcpu_events().map_err(refused("read a vCPU's events"))?,
            debug: fd.get_debug_regs().map_err(refused("read a vCPU's debug registers"))?,
            xsave: Box::new(xsave),
            xcrs,
            msrs: read_msrs(fd, msrs),
        })
    }

    /// Puts every register back.
    pub fn restore(&self, fd: &VcpuFd) -> Result<(), KvmError> {
        let refused = KvmError::refused;
        fd.set_mp_state(self.mp_state).map_err(refused("reset a vCPU's run state"))?;
        if let Some(xcrs) = &self.xcrs {
            fd.set_xcrs(xcrs).map_err(refused("reset a vCPU's extended control registers"))?;
        }
        // SAFETY: KVM reads 4096 bytes unless this process has asked for dynamically enabled
        // state (ARCH_REQ_XCOMP_GUEST_PERM), which it never does; the structure is that long.
        unsafe { fd.set_xsave(&self.xsave) }.map_err(refused("reset a vCPU's FPU"))?;
        fd.set_regs(&self.regs).map_err(refused("reset a vCPU's registers"))?;
        fd.set_sregs(&self.sregs).map_err(refused("reset a vCPU's system registers"))?;
        fd.set_lapic(&self.lapic).map_err(refused("reset a vCPU's local APIC"))?;
        write_msrs(fd, &self.msrs);
        fd.set_debug_regs(&self.debug).map_err(refused("reset a vCPU's debug registers"))?;
        fd.set_vcpu_events(&self.events).map_err(refused("reset a vCPU's events"))
    }

    /// Sets the boot processor's registers; it is in its power-on state.
    pub fn boot(&self, fd: &VcpuFd, state: &BootState) -> Result<(), KvmError> {
        let (mut regs, mut sregs) = (self.regs, self.sregs);
        state.apply(&mut regs, &mut sregs);
        fd.set_sregs(&sregs).map_err(KvmError::refused("set the boot processor's mode"))?;
        fd.set_regs(&regs).map_err(KvmError::refused("set the boot processor's registers"))
    }
}

fn msr(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry { index, data, ..Default::default() }
}

/// The values of those of `indices` that this host can read.
fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let mut values = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let wanted: Vec<_> = rest.iter().map(|index| msr(*index, 0)).collect();
        let Ok(mut list) = Msrs::from_entries(&wanted) else { break };
        let done = fd.get_msrs(&mut list).unwrap_or(0).min(rest.len());
        values.extend_from_slice(list.as_slice().get(..done).unwrap_or_default());
        // KVM stops at the first that it cannot read: leave that one out.
        rest = rest.get(done + 1..).unwrap_or_default();
    }
    values
}

/// Writes those of `values` that this host can write.
fn write_msrs(fd: &VcpuFd, values: &[kvm_msr_entry]) {
    let mut rest = values;
    while !rest.is_empty() {
        let Ok(list) = Msrs::from_entries(rest) else { break };
        let done = fd.set_msrs(&list).unwrap_or(0).min(rest.len());
        if let Some(refused) = rest.get(done) {
            tracing::trace!(msr = refused.index, "an MSR that cannot be written");
        }
        rest = rest.get(done + 1..).unwrap_or_default();
    }
}
