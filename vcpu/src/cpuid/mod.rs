//! What a guest's CPUID instruction says: the host's features less those taken away, the
//! machine's topology, and the hypervisor leaves.
//!
//! All of this is arithmetic on tables; nothing here calls KVM.

mod features;
mod model;
#[cfg(test)]
mod tests;
mod topology;

pub use model::{CpuError, CpuModel};
pub use topology::Topology;

use features::{Feature, Reg};
use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use std::arch::x86_64::CpuidResult;

/// First leaf of the hypervisor range.
const HYPERVISOR: u32 = 0x4000_0000;
/// KVM's feature bits.
const KVM_FEATURES: u32 = 0x4000_0001;
/// Frequencies of the TSC and the APIC timer in kHz, as several hypervisors publish them.
const FREQUENCIES: u32 = 0x4000_0010;
/// KVM's in-kernel local APIC counts in nanoseconds.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// Leaf `leaf` (sub-leaf 0) of the processor that this runs on.
pub fn host(leaf: u32) -> CpuidResult {
    #[allow(unused_unsafe, reason = "safe to call from Rust 1.94 on")]
    // SAFETY: every x86-64 processor has the CPUID instruction, and it touches registers only.
    unsafe {
        std::arch::x86_64::__cpuid(leaf)
    }
}

/// The four registers that CPUID fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// A table of CPUID leaves.
#[derive(Clone, Debug)]
pub(crate) struct Leaves(Vec<kvm_cpuid_entry2>);

impl Leaves {
    pub fn new(entries: &[kvm_cpuid_entry2]) -> Self {
        Self(entries.to_vec())
    }

    pub fn entries(&self) -> &[kvm_cpuid_entry2] {
        &self.0
    }

    pub fn get(&self, leaf: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        self.0.iter().find(|e| e.function == leaf && e.index == index)
    }

    fn get_mut(&mut self, leaf: u32, index: u32) -> Option<&mut kvm_cpuid_entry2> {
        self.0.iter_mut().find(|e| e.function == leaf && e.index == index)
    }

    fn of_leaf_mut(&mut self, leaf: u32) -> impl Iterator<Item = &mut kvm_cpuid_entry2> {
        self.0.iter_mut().filter(move |e| e.function == leaf)
    }

    fn remove(&mut self, leaf: u32) {
        self.0.retain(|e| e.function != leaf);
    }

    fn set(&mut self, leaf: u32, registers: Registers) {
        self.insert(leaf, 0, 0, registers);
    }

    fn set_indexed(&mut self, leaf: u32, index: u32, registers: Registers) {
        self.insert(leaf, index, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, registers);
    }

    fn insert(&mut self, leaf: u32, index: u32, flags: u32, registers: Registers) {
        self.0.retain(|e| (e.function, e.index) != (leaf, index));
        let Registers { eax, ebx, ecx, edx } = registers;
        self.0.push(kvm_cpuid_entry2 {
            function: leaf,
            index,
            flags,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        });
    }

    fn has(&self, feature: &Feature) -> bool {
        self.get(feature.leaf, feature.index)
            .is_some_and(|entry| register(entry, feature.reg) >> feature.bit & 1 != 0)
    }

    fn switch(&mut self, feature: &Feature, on: bool) {
        if let Some(entry) = self.get_mut(feature.leaf, feature.index) {
            let register = register_mut(entry, feature.reg);
            *register = *register & !(1 << feature.bit) | u32::from(on) << feature.bit;
        }
    }

    /// Whether the vendor string in leaf 0 is AMD's or Hygon's.
    fn is_amd(&self) -> bool {
        const AUTH: u32 = u32::from_le_bytes(*b"Auth");
        const HYGO: u32 = u32::from_le_bytes(*b"Hygo");
        self.get(0, 0).is_some_and(|leaf| leaf.ebx == AUTH || leaf.ebx == HYGO)
    }

    fn is_intel(&self) -> bool {
        self.get(0, 0).is_some_and(|leaf| leaf.ebx == u32::from_le_bytes(*b"Genu"))
    }
}

/// What the accelerator says about itself, as far as CPUID needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accelerator {
    /// The APIC timer's deadline mode works.
    pub tsc_deadline: bool,
    /// A guest that finds KVM's signature would hang on a hypercall.
    pub hypercalls_hang: bool,
    /// Frequency of the guest's TSC, where known.
    pub tsc_khz: Option<u32>,
}

/// The leaves of all processors alike, and what could not be granted.
pub(crate) struct Common {
    pub leaves: Leaves,
    /// Features asked for that this host's KVM does not offer.
    pub missing: Vec<&'static str>,
}

/// Applies `model` to what KVM supports.
pub(crate) fn common(model: &CpuModel, supported: &Leaves, host: Accelerator) -> Common {
    let mut leaves = supported.clone();
    // In no supported set of older kernels, since user space decides on them.
    if let Some(leaf) = leaves.get_mut(1, 0) {
        leaf.ecx |= 1 << 31;
        leaf.ecx |= u32::from(host.tsc_deadline) << 24;
    }
    let offered = leaves.clone();
    let mut missing = Vec::new();
    for (feature, on) in model.switches() {
        if on && !offered.has(feature) {
            missing.push(feature.name);
            continue;
        }
        leaves.switch(feature, on);
        if !on {
            without(&mut leaves, feature.name);
        }
    }
    trim_xstate(&mut leaves);
    let kvm = model.kvm.unwrap_or(!host.hypercalls_hang);
    hypervisor_leaves(&mut leaves, kvm, host.tsc_khz);
    if let Some(khz) = host.tsc_khz.filter(|_| leaves.is_intel()) {
        // TSC = crystal * EBX / EAX; guests also take the crystal for the APIC timer's clock.
        let crystal = APIC_BUS_KHZ * 1000;
        leaves.set(0x15, Registers { eax: APIC_BUS_KHZ, ebx: khz, ecx: crystal, edx: 0 });
        if let Some(leaf) = leaves.get_mut(0, 0) {
            leaf.eax = leaf.eax.max(0x15);
        }
    }
    Common { leaves, missing }
}

/// The leaves of processor `cpu`.
pub(crate) fn of_cpu(common: &Leaves, topology: &Topology, cpu: u32) -> Leaves {
    let mut leaves = common.clone();
    let amd = leaves.is_amd();
    topology.describe(&mut leaves, cpu, amd);
    leaves
}

/// Takes away what depends on the feature `name`.
fn without(leaves: &mut Leaves, name: &str) {
    let dependants = features::NEEDED_BY.iter().filter(|(needed, _)| *needed == name);
    for dependant in dependants.flat_map(|(_, names)| *names) {
        if let Some(feature) = features::find(dependant) {
            leaves.switch(&feature, false);
        }
        without(leaves, dependant);
    }
}

/// Brings leaf 0Dh into line with the features that are left (Intel SDM volume 1, chapter 13).
fn trim_xstate(leaves: &mut Leaves) {
    const OF_FEATURE: &[(&str, &[u32])] = &[
        ("avx", &[2]),
        ("mpx", &[3, 4]),
        ("avx512f", &[5, 6, 7]),
        ("pku", &[9]),
        ("amx-tile", &[17, 18]),
    ];
    let has = |leaves: &Leaves, name| features::find(name).is_some_and(|f| leaves.has(&f));
    if !has(leaves, "xsave") {
        leaves.remove(0xd);
        return;
    }
    for (name, components) in OF_FEATURE {
        if has(leaves, name) {
            continue;
        }
        for component in *components {
            leaves.0.retain(|e| (e.function, e.index) != (0xd, *component));
            if let Some(leaf) = leaves.get_mut(0xd, 0) {
                leaf.eax &= !(1 << component);
            }
        }
    }
    // Legacy region and header, then the component that ends last.
    let size = |e: &kvm_cpuid_entry2| e.ebx + e.eax;
    let user = |e: &&kvm_cpuid_entry2| e.function == 0xd && e.index >= 2 && e.ecx & 1 == 0;
    let area = leaves.0.iter().filter(user).map(size).max().unwrap_or(0).max(576);
    if let Some(leaf) = leaves.get_mut(0xd, 0) {
        leaf.ecx = area;
    }
}

/// KVM's signature and features, or a neutral signature; and the frequencies with either.
fn hypervisor_leaves(leaves: &mut Leaves, kvm: bool, tsc_khz: Option<u32>) {
    let present = leaves.get(1, 0).is_some_and(|leaf| leaf.ecx >> 31 != 0);
    if !kvm || !present {
        leaves.0.retain(|e| !(HYPERVISOR..HYPERVISOR + 0x100).contains(&e.function));
    }
    if !present {
        return;
    }
    let last = if tsc_khz.is_some() { FREQUENCIES } else { KVM_FEATURES };
    if !kvm {
        let [ebx, ecx, edx] = [*b"Ring", *b"Viso", *b"rVMM"].map(u32::from_le_bytes);
        leaves.set(HYPERVISOR, Registers { eax: last, ebx, ecx, edx });
    } else if let Some(leaf) = leaves.get_mut(HYPERVISOR, 0) {
        leaf.eax = leaf.eax.max(last);
    }
    if let Some(khz) = tsc_khz {
        leaves.set(FREQUENCIES, Registers { eax: khz, ebx: APIC_BUS_KHZ, ecx: 0, edx: 0 });
    }
}

fn register(entry: &kvm_cpuid_entry2, reg: Reg) -> u32 {
    match reg {
        Reg::Eax => entry.eax,
        Reg::Ebx => entry.ebx,
        Reg::Ecx => entry.ecx,
        Reg::Edx => entry.edx,
    }
}

fn register_mut(entry: &mut kvm_cpuid_entry2, reg: Reg) -> &mut u32 {
    match reg {
        Reg::Eax => &mut entry.eax,
        Reg::Ebx => &mut entry.ebx,
        Reg::Ecx => &mut entry.ecx,
        Reg::Edx => &mut entry.edx,
    }
}
