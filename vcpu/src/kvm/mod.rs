//! The KVM accelerator: opening `/dev/kvm`, virtual machines, interrupts and doorbells.

mod irqs;
mod kind;
#[cfg(test)]
mod tests;
mod vm;

pub use kind::KvmKind;
pub use vm::Vm;

use kvm_ioctls::Cap;
use std::io;

/// Why KVM cannot run a machine here.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No KVM on this host.
    #[error(
        "/dev/kvm does not exist: load the kvm_intel or kvm_amd module, or switch on (nested) \
         virtualization"
    )]
    Missing,
    /// KVM is there, but not for this user.
    #[error(
        "/dev/kvm: permission denied; join the group that owns it (usually `kvm`) or run as a \
         user who may open it"
    )]
    NoPermission,
    /// Opening failed otherwise.
    #[error("/dev/kvm cannot be opened: {0}")]
    Open(#[source] io::Error),
    /// Not a KVM that anybody has today.
    #[error("/dev/kvm speaks API version {0}; ringvisor needs version 12 (Linux 2.6.22 and later)")]
    ApiVersion(i32),
    /// The kernel is too old or was built without it.
    #[error("this host's KVM lacks {0}, which ringvisor needs; use a newer host kernel")]
    Capability(&'static str),
    /// Too many vCPUs.
    #[error("-smp: this host's KVM runs at most {limit} vCPUs in a machine, not {count}")]
    TooManyVcpus {
        /// What was asked for.
        count: u32,
        /// The host's limit.
        limit: u32,
    },
    /// The arrangement spreads APIC identifiers too far.
    #[error(
        "-smp: this arrangement needs the APIC identifier {highest}, and this host's KVM has those \
         below {limit}; use fewer vCPUs, or powers of two for cores and threads"
    )]
    ApicIds {
        /// The highest that a vCPU would have.
        highest: u32,
        /// One past the highest there is.
        limit: u32,
    },
    /// A call failed.
    #[error("KVM refused to {what}: {source}")]
    Refused {
        /// What was being done.
        what: &'static str,
        /// What KVM answered.
        source: io::Error,
    },
}

impl KvmError {
    /// Turns what a KVM call answered into an error that says what it was for.
    pub(crate) fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |e| Self::Refused { what, source: io::Error::from_raw_os_error(e.errno()) }
    }
}

/// What every machine here is built on, by the kernel's names.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// `/dev/kvm`, checked for all that ringvisor needs.
#[derive(Debug)]
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
    kind: KvmKind,
}

impl Kvm {
    /// Opens `/dev/kvm` and checks its version and capabilities. Blocks no longer than an open.
    pub fn open() -> Result<Self, KvmError> {
        let fd = kvm_ioctls::Kvm::new().map_err(|e| match e.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
            libc::EACCES | libc::EPERM => KvmError::NoPermission,
            errno => KvmError::Open(io::Error::from_raw_os_error(errno)),
        })?;
        let version = fd.get_api_version();
        if version != 12 {
            return Err(KvmError::ApiVersion(version));
        }
        for (capability, name) in NEEDED {
            if !fd.check_extension(*capability) {
                return Err(KvmError::Capability(name));
            }
        }
        let kind = KvmKind::detect();
        tracing::debug!(?kind, "opened /dev/kvm");
        Ok(Self { fd, kind })
    }

    /// Which kind of KVM this is.
    pub fn kind(&self) -> KvmKind {
        self.kind
    }

    /// How many vCPUs a machine can have.
    pub fn max_vcpus(&self) -> u32 {
        u32::try_from(self.fd.get_max_vcpus()).unwrap_or(u32::MAX)
    }

    /// One past the highest APIC identifier.
    pub(crate) fn apic_id_limit(&self) -> u32 {
        u32::try_from(self.fd.get_max_vcpu_id()).unwrap_or(u32::MAX)
    }

    pub(crate) fn fd(&self) -> &kvm_ioctls::Kvm {
        &self.fd
    }
}
