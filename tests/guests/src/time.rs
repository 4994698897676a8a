//! How fast the time-stamp counter runs.

use crate::cpu;
use crate::mem::Region;

/// A time limit for what takes microseconds when it works, in TSC ticks: 4 to 20 seconds.
pub(crate) const LIMIT_TICKS: u64 = 20_000_000_000;

/// Where a frequency comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The word `tsc_khz=` of the command line.
    CommandLine,
    /// CPUID leaf 0x15: crystal clock and ratio.
    Crystal,
    /// KVM's paravirtual clock page.
    KvmClock,
    /// CPUID leaf 0x40000010, the hypervisor's word.
    Hypervisor,
    /// Counted against the PIT.
    Pit,
    /// CPUID leaf 0x16: the nominal frequency, because the PIT does not run.
    Nominal,
}

/// The frequency of the time-stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frequency {
    /// In kHz, never zero.
    pub khz: u64,
    /// Who says so.
    pub source: Source,
}

impl Source {
    /// A word for the console.
    pub fn name(self) -> &'static str {
        match self {
            Self::CommandLine => "command line",
            Self::Crystal => "cpuid 0x15",
            Self::KvmClock => "kvmclock",
            Self::Hypervisor => "cpuid 0x40000010",
            Self::Pit => "pit",
            Self::Nominal => "cpuid 0x16",
        }
    }
}

/// Finds the frequency, best source first. `page` is 32 bytes of RAM, 32-byte aligned, for the
/// paravirtual clock.
pub(crate) fn frequency(page: Region) -> Option<Frequency> {
    let found = |khz, source| (khz != 0).then_some(Frequency { khz, source });
    found(crystal_khz(), Source::Crystal)
        .or_else(|| found(kvmclock_khz(page), Source::KvmClock))
        .or_else(|| found(hypervisor_khz(), Source::Hypervisor))
        .or_else(|| found(pit_khz(), Source::Pit))
        .or_else(|| found(nominal_khz(), Source::Nominal))
}

fn crystal_khz() -> u64 {
    if cpu::cpuid(0, 0)[0] < 0x15 {
        return 0;
    }
    let [denominator, numerator, crystal_hz, _] = cpu::cpuid(0x15, 0);
    if denominator == 0 {
        return 0;
    }
    u64::from(crystal_hz) * u64::from(numerator) / u64::from(denominator) / 1000
}

fn nominal_khz() -> u64 {
    if cpu::cpuid(0, 0)[0] < 0x16 { 0 } else { u64::from(cpu::cpuid(0x16, 0)[0] & 0xffff) * 1000 }
}

/// The hypervisor's highest CPUID leaf; zero without a hypervisor.
fn hypervisor_leaf_max() -> u32 {
    if cpu::cpuid(1, 0)[2] >> 31 == 0 { 0 } else { cpu::cpuid(0x4000_0000, 0)[0] }
}

fn hypervisor_khz() -> u64 {
    let offered = (0x4000_0010..0x4001_0000).contains(&hypervisor_leaf_max());
    if offered { cpu::cpuid(0x4000_0010, 0)[0].into() } else { 0 }
}

/// The hypervisor's signature, 12 bytes; zeroes without a hypervisor.
pub(crate) fn hypervisor_signature() -> [u8; 12] {
    let mut signature = [0u8; 12];
    if cpu::cpuid(1, 0)[2] >> 31 != 0 {
        let [_, b, c, d] = cpu::cpuid(0x4000_0000, 0);
        for (to, register) in signature.chunks_exact_mut(4).zip([b, c, d]) {
            to.copy_from_slice(&register.to_le_bytes());
        }
    }
    signature
}

/// From the scale of KVM's clock page: nanoseconds = (ticks << shift) * multiplier >> 32.
fn kvmclock_khz(page: Region) -> u64 {
    const CLOCKSOURCE2: u32 = 1 << 3;
    let kvm = &hypervisor_signature() == b"KVMKVMKVM\0\0\0";
    if !kvm || cpu::cpuid(0x4000_0001, 0)[0] & CLOCKSOURCE2 == 0 || page.len() < 32 {
        return 0;
    }
    page.clear();
    // SAFETY: the page is RAM outside every Rust object and stays put until the clock stops.
    unsafe { cpu::start_kvmclock(page.address()) };
    let filled = (0..100_000).any(|_| {
        core::hint::spin_loop();
        let version: u32 = page.load(0);
        version != 0 && version & 1 == 0
    });
    let (multiplier, shift): (u32, u8) = (page.load(24), page.load(28));
    cpu::stop_kvmclock();
    if filled { clock_scale_khz(multiplier, shift as i8) } else { 0 }
}

fn clock_scale_khz(multiplier: u32, shift: i8) -> u64 {
    if multiplier == 0 || !(-31..32).contains(&shift) {
        return 0;
    }
    let khz = (1_000_000u128 << 32) / u128::from(multiplier);
    (if shift < 0 { khz << -shift } else { khz >> shift }) as u64
}

const PIT_HZ: u64 = 1_193_182;
const PIT_CHANNEL0: u16 = 0x40;
const PIT_COMMAND: u16 = 0x43;

/// Counts ticks while PIT channel 0, the one without a gate, counts down once for about 40 ms. Its
/// interrupt stays masked.
fn pit_khz() -> u64 {
    cpu::out8(PIT_COMMAND, 0x30);
    cpu::out8(PIT_CHANNEL0, 0xff);
    cpu::out8(PIT_CHANNEL0, 0xff);
    let (first, start) = pit_sample();
    let limit = start + LIMIT_TICKS / 40;
    loop {
        let (now, at) = pit_sample();
        let counted = u64::from(first.wrapping_sub(now));
        if counted > PIT_HZ / 25 {
            return pit_ticks_khz(at - start, counted);
        }
        if at > limit {
            return 0;
        }
    }
}

fn pit_ticks_khz(ticks: u64, counted: u64) -> u64 {
    (u128::from(ticks) * u128::from(PIT_HZ) / u128::from(counted.max(1)) / 1000) as u64
}

/// The count, latched half-way between the two looks at the TSC that are averaged.
fn pit_sample() -> (u16, u64) {
    let before = cpu::tsc();
    cpu::out8(PIT_COMMAND, 0x00);
    let after = cpu::tsc();
    let low = cpu::in8(PIT_CHANNEL0);
    let count = u16::from_le_bytes([low, cpu::in8(PIT_CHANNEL0)]);
    (count, before + (after - before) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_scales_give_the_frequency() {
        // 2.0 GHz: half a nanosecond a tick is a multiplier of 2^31; shifts move it.
        assert_eq!(clock_scale_khz(1 << 31, 0), 2_000_000);
        assert_eq!(clock_scale_khz(1 << 31, -1), 4_000_000);
        assert_eq!(clock_scale_khz(1 << 31, 1), 1_000_000);
        assert_eq!(clock_scale_khz(0, 0), 0);
        assert_eq!(clock_scale_khz(1, -100), 0);
    }

    #[test]
    fn pit_counts_give_the_frequency() {
        // 59,659 counts are a twentieth of a second.
        assert!(pit_ticks_khz(115_000_000, 59_659).abs_diff(2_300_000) < 100);
        assert_ne!(pit_ticks_khz(1, 0), 0, "no division by zero");
    }
}
