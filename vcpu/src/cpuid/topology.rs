//! Sockets, cores and threads, and the CPUID leaves that tell a guest about them.

use super::{Leaves, Registers};

/// How a machine's processors are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Packages.
    pub sockets: u32,
    /// Cores in each package.
    pub cores: u32,
    /// Threads in each core.
    pub threads: u32,
}

impl Topology {
    /// `count` processors as the cores of one package.
    pub fn cores(count: u32) -> Self {
        Self { sockets: 1, cores: count, threads: 1 }
    }

    /// How many processors there are.
    pub fn count(&self) -> u32 {
        self.sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }

    /// The APIC identifier of processor `cpu` (0 to count - 1), which is also its identifier
    /// for KVM (Intel SDM volume 3, section 10.9.3: fields for thread, core and package).
    pub fn apic_id(&self, cpu: u32) -> u32 {
        let (threads, cores) = (self.threads.max(1), self.cores.max(1));
        let (thread, core) = (cpu % threads, cpu / threads % cores);
        let socket = cpu / threads / cores;
        (socket << self.package_bits()) | (core << self.thread_bits()) | thread
    }

    fn thread_bits(&self) -> u32 {
        bits_for(self.threads)
    }

    fn package_bits(&self) -> u32 {
        bits_for(self.threads) + bits_for(self.cores)
    }

    fn per_package(&self) -> u32 {
        self.cores.saturating_mul(self.threads)
    }

    /// Writes the topology, as processor `cpu` sees it, over the host's.
    pub(super) fn describe(&self, leaves: &mut Leaves, cpu: u32, amd: bool) {
        let apic_id = self.apic_id(cpu);
        if let Some(leaf) = leaves.get_mut(1, 0) {
            let logical = (1 << self.package_bits()).min(0xff);
            leaf.ebx = (leaf.ebx & 0xffff) | (logical << 16) | (apic_id << 24);
            set(&mut leaf.edx, 28, self.per_package() > 1);
        }
        self.describe_caches(leaves, 4);
        self.describe_caches(leaves, 0x8000_001d);
        self.describe_levels(leaves, apic_id);
        if let Some(leaf) = leaves.get_mut(0x8000_0008, 0) {
            if amd {
                let threads = (self.per_package() - 1).min(0xff);
                leaf.ecx = (leaf.ecx & !0xf0ff) | threads | (self.package_bits() << 12);
            } else {
                leaf.ecx = 0;
            }
        }
        if let Some(leaf) = leaves.get_mut(0x8000_0001, 0).filter(|_| amd) {
            set(&mut leaf.ecx, 1, self.per_package() > 1);
        }
        if let Some(leaf) = leaves.get_mut(0x8000_001e, 0) {
            let core = apic_id >> self.thread_bits() & ((1 << bits_for(self.cores)) - 1);
            leaf.eax = apic_id;
            leaf.ebx = (core & 0xff) | ((self.threads - 1).min(0xff) << 8);
            leaf.ecx = 0;
        }
    }

    /// Caches of levels 1 and 2 belong to a core, higher ones to a package.
    fn describe_caches(&self, leaves: &mut Leaves, leaf: u32) {
        let core = (1 << self.thread_bits()) - 1;
        let package = (1 << self.package_bits()) - 1;
        let cores = (1 << bits_for(self.cores)) - 1;
        for entry in leaves.of_leaf_mut(leaf) {
            let (kind, level) = (entry.eax & 0x1f, entry.eax >> 5 & 7);
            if kind == 0 {
                continue;
            }
            let sharing: u32 = if level <= 2 { core } else { package };
            entry.eax = (entry.eax & 0x3fff) | (sharing.min(0xfff) << 14);
            if leaf == 4 {
                entry.eax |= u32::min(cores, 0x3f) << 26;
            }
        }
    }

    /// Leaf 0Bh (extended topology); 1Fh is left out, which makes guests use 0Bh.
    fn describe_levels(&self, leaves: &mut Leaves, apic_id: u32) {
        const THREADS: u32 = 1 << 8;
        const CORES: u32 = 2 << 8;
        leaves.remove(0x1f);
        leaves.remove(0xb);
        let level = |eax, ebx, ecx| Registers { eax, ebx, ecx, edx: apic_id };
        leaves.set_indexed(0xb, 0, level(self.thread_bits(), self.threads, THREADS));
        leaves.set_indexed(0xb, 1, level(self.package_bits(), self.per_package(), 1 | CORES));
        leaves.set_indexed(0xb, 2, level(0, 0, 2));
        if let Some(leaf) = leaves.get_mut(0, 0) {
            leaf.eax = leaf.eax.max(0xb);
        }
    }
}

/// Bits that number `count` things.
fn bits_for(count: u32) -> u32 {
    u32::BITS - count.saturating_sub(1).leading_zeros()
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}
