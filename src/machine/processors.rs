//! The processors of a machine, which may be none that run.

use std::sync::Arc;
use vcpu::boot::Boot;
use vcpu::linear::Linear;
use vcpu::memory::Ram;
use vcpu::vcpus::{Reply, Vcpus};

/// Who does the guest's accesses.
pub(super) enum Processors {
    /// Threads that run it on KVM, from the kernel on.
    Kvm(Vcpus, Arc<Boot>),
    /// A program outside, for so many processors that never run.
    Absent(u32),
}

impl Processors {
    /// Lets them run.
    pub(super) async fn resume(&self) {
        if let Self::Kvm(vcpus, _) = self {
            settled(vcpus.resume()).await;
        }
    }

    /// Makes them stand still.
    pub(super) async fn pause(&self) {
        if let Self::Kvm(vcpus, _) = self {
            settled(vcpus.pause()).await;
        }
    }

    /// Ends them.
    pub(super) async fn stop(&self) {
        if let Self::Kvm(vcpus, _) = self {
            settled(vcpus.stop()).await;
        }
    }

    /// Takes them back to power-on, with the kernel in `ram` as it was at first and ACPI tables at
    /// `rsdp`. Memory that no processor runs in keeps what it has.
    pub(super) async fn reset(&self, ram: &Arc<Ram>, rsdp: u64) -> Result<(), String> {
        let Self::Kvm(vcpus, boot) = self else { return Ok(()) };
        let (ram, boot) = (Arc::clone(ram), Arc::clone(boot));
        let load = move || boot.load(&ram, Some(rsdp));
        vcpus.reset(load).await.map_err(|error| format!("the reset failed: {error}"))
    }

    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Kvm(vcpus, _) => vcpus.count(),
            Self::Absent(count) => *count,
        }
    }

    /// The host's number of each one's thread; those that never run share the process's first.
    pub(super) fn thread_ids(&self) -> Vec<i32> {
        match self {
            Self::Kvm(vcpus, _) => vcpus.thread_ids(),
            Self::Absent(count) => {
                vec![std::process::id().cast_signed(); *count as usize]
            }
        }
    }

    /// A non-maskable interrupt for each.
    pub(super) async fn nmi(&self) -> Result<(), String> {
        match self {
            Self::Kvm(vcpus, _) => vcpus.nmi().await.map_err(|error| error.to_string()),
            Self::Absent(_) => Ok(()),
        }
    }

    /// How processor `cpu` translates linear addresses.
    pub(super) async fn linear(&self, cpu: u32) -> Result<Linear, String> {
        match self {
            Self::Kvm(vcpus, _) => {
                let linear = vcpus.linear(cpu).await.map_err(|error| error.to_string())?;
                linear.ok_or_else(|| "there is no such CPU".to_owned())
            }
            Self::Absent(_) => Err("it never runs, and translates no addresses".to_owned()),
        }
    }
}

/// Waits for the answer of every vCPU. One that has ended gives none; its own event says why.
async fn settled(reply: Reply) {
    if let Err(error) = reply.await {
        tracing::warn!(%error, "a vCPU did not follow");
    }
}
