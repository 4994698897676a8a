//! The processor: port I/O, the services of CPL0, interrupts and faults.
//!
//! The program runs in CPL3. Port I/O is allowed there by the task's I/O bitmap; everything else
//! that needs CPL0 is a service, entered by one particular `ud2` (see `boot/vectors.s`). A service
//! costs about 20 us on a host that interprets CPL0, so what takes several privileged
//! instructions is one service.

use core::arch::asm;
use core::fmt;

/// Interrupt vectors the guest hands out.
pub(crate) mod vector {
    /// The serial port, by the I/O APIC.
    pub const SERIAL: u8 = 0x24;
    /// ACPI events (the power button), by the I/O APIC.
    pub const ACPI: u8 = 0x29;
    /// The slots of root ports.
    pub const SLOT: u8 = 0x2a;
    /// The local APIC timer, which ends waits that take too long.
    pub const TIMER: u8 = 0x2f;
    /// Configuration changes of the virtio device in use.
    pub const CONFIG: u8 = 0x30;
    /// The first virtqueue of the device in use; the others follow.
    pub const QUEUE0: u8 = 0x31;
}

const MSR_APIC_ID: u32 = 0x802;
const MSR_APIC_TIMER: u32 = 0x832;
const MSR_APIC_INITIAL_COUNT: u32 = 0x838;
const MSR_APIC_DIVIDE: u32 = 0x83e;
const MSR_KVMCLOCK: u32 = 0x4b56_4d01;

/// What CPL0 does for CPL3; the order is that of the table in `boot/vectors.s`.
#[derive(Clone, Copy)]
enum Service {
    Outs,
    ConfigRead,
    ConfigWrite8,
    ConfigWrite16,
    ConfigWrite32,
    Rdmsr,
    Wrmsr,
    Cpuid,
    Wait,
    Halt,
    TripleFault,
    Int3,
    Fwait,
    Clac,
    Stac,
    Popcnt,
    Refused,
    PortLoop,
    LoadLoop,
}

#[cfg(guest_image)]
mod image {
    unsafe extern "C" {
        pub fn guest_service(service: u64, a: u64, b: u64, c: u64) -> u64;
        pub static guest_interrupts: [u32; 256];
        pub static guest_fault_info: [u64; 7];
    }
}

/// # Safety
/// The arguments must be what the service in `boot/vectors.s` takes, any address among them valid
/// for what it does there.
#[cfg(guest_image)]
unsafe fn call(service: Service, a: u64, b: u64, c: u64) -> u64 {
    // SAFETY: passed on to the caller; the service keeps to the C ABI.
    unsafe { image::guest_service(service as u64, a, b, c) }
}

/// # Safety
/// None needed: there is no CPL0 to enter on the host, where nothing may call this.
#[cfg(not(guest_image))]
unsafe fn call(service: Service, _a: u64, _b: u64, _c: u64) -> u64 {
    unreachable!("service {} exists inside the guest only", service as u64)
}

/// The time-stamp counter. Not ordered against loads around it.
pub(crate) fn tsc() -> u64 {
    // SAFETY: unprivileged, CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Reads a byte from a port.
pub(crate) fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: port reads touch no memory of this program.
    unsafe {
        asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Reads 16 bits from a port.
pub(crate) fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: port reads touch no memory of this program.
    unsafe {
        asm!("in ax, dx", out("ax") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Reads 32 bits from a port.
pub(crate) fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: port reads touch no memory of this program.
    unsafe {
        asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes a byte to a port.
pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: no device of this machine does DMA on a port write to an address it was not given.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nostack, preserves_flags)) }
}

/// Writes 16 bits to a port.
pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, ax", in("ax") value, in("dx") port, options(nostack, preserves_flags)) }
}

/// Writes 32 bits to a port.
pub(crate) fn out32(port: u16, value: u32) {
    // SAFETY: as for `out8`.
    unsafe {
        asm!("out dx, eax", in("eax") value, in("dx") port, options(nostack, preserves_flags));
    }
}

/// Writes `bytes` to one port, one after the other.
pub(crate) fn write_string(port: u16, bytes: &[u8]) {
    // SAFETY: pointer and length of a live slice that is only read.
    unsafe { call(Service::Outs, bytes.as_ptr() as u64, port.into(), bytes.len() as u64) };
}

/// Reads the aligned 32 bits at configuration `address` (bit 31 set, as 0xcf8 takes it).
pub(crate) fn config_read(address: u32) -> u32 {
    // SAFETY: configuration reads touch no memory.
    unsafe { call(Service::ConfigRead, (address & !3).into(), 0xcfc, 0) as u32 }
}

/// Width of a configuration write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One byte.
    Byte,
    /// Two bytes, anywhere in the aligned four.
    Word,
    /// Four bytes.
    Long,
}

/// Writes to the configuration space; the low two bits of `address` choose the data port.
pub(crate) fn config_write(address: u32, width: Width, value: u32) {
    let service = match width {
        Width::Byte => Service::ConfigWrite8,
        Width::Word => Service::ConfigWrite16,
        Width::Long => Service::ConfigWrite32,
    };
    let port = 0xcfc + u64::from(address & 3);
    // SAFETY: a device that this makes a bus master uses only the memory it is given later.
    unsafe { call(service, (address & !3).into(), port, value.into()) };
}

/// CPUID as CPL0 sees it: EAX, EBX, ECX, EDX.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let mut registers = [0u32; 4];
    let to = registers.as_mut_ptr() as u64;
    // SAFETY: `to` has room for the four registers.
    unsafe { call(Service::Cpuid, leaf.into(), subleaf.into(), to) };
    registers
}

fn rdmsr(register: u32) -> u64 {
    // SAFETY: reading changes nothing; an unknown register is a fault, which is reported.
    unsafe { call(Service::Rdmsr, register.into(), 0, 0) }
}

/// # Safety
/// The write must not make the processor or the hypervisor use memory that is not set aside.
unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: the caller's duty.
    unsafe { call(Service::Wrmsr, register.into(), value, 0) };
}

/// The local APIC's identifier, for the address of message-signalled interrupts.
pub(crate) fn apic_id() -> u32 {
    rdmsr(MSR_APIC_ID) as u32
}

/// Sets the one-shot APIC timer to fire `vector::TIMER` after `count` bus cycles (1 ns each under
/// KVM); zero disarms it.
pub(crate) fn set_timer(count: u32) {
    // SAFETY: the timer registers; its vector has a stub.
    unsafe {
        if count != 0 {
            wrmsr(MSR_APIC_DIVIDE, 0xb);
            wrmsr(MSR_APIC_TIMER, vector::TIMER.into());
        }
        wrmsr(MSR_APIC_INITIAL_COUNT, count.into());
    }
}

/// Has KVM keep its paravirtual clock page at `address` from the next entry to the guest on.
///
/// # Safety
/// `address` must be that of 32 bytes of RAM, 32-byte aligned, that no Rust object uses, until
/// `stop_kvmclock`.
pub(crate) unsafe fn start_kvmclock(address: u64) {
    // SAFETY: the page is the caller's; bit 0 enables.
    unsafe { wrmsr(MSR_KVMCLOCK, address | 1) };
}

/// Ends what `start_kvmclock` began.
pub(crate) fn stop_kvmclock() {
    // SAFETY: zero disables the clock.
    unsafe { wrmsr(MSR_KVMCLOCK, 0) };
}

/// How often interrupt `vector` has been taken since the start; vector 0 counts all of them.
#[cfg(guest_image)]
pub(crate) fn interrupts(vector: u8) -> u32 {
    // SAFETY: aligned, always mapped; written by interrupt handlers, hence volatile.
    unsafe { (&raw const image::guest_interrupts[usize::from(vector)]).read_volatile() }
}

/// On the host no interrupt is ever taken.
#[cfg(not(guest_image))]
pub(crate) fn interrupts(_vector: u8) -> u32 {
    0
}

/// Sleeps until an interrupt has been taken since `interrupts(0)` was `seen`; returns at once
/// when one already has.
pub(crate) fn wait(seen: u32) {
    // SAFETY: takes no address.
    unsafe { call(Service::Wait, seen.into(), 0, 0) };
}

/// Stops the processor for good, interrupts disabled.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: takes no address, does not come back.
        unsafe { call(Service::Halt, 0, 0, 0) };
    }
}

/// Faults without a table of interrupts: the processor shuts down.
pub(crate) fn triple_fault() -> ! {
    // SAFETY: takes no address, does not come back.
    unsafe { call(Service::TripleFault, 0, 0, 0) };
    halt()
}

/// An instruction that hosts which interpret CPL0 leave to the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `int3`; the result is the number of breakpoints taken.
    Int3,
    /// `fwait`; the result is the argument.
    Fwait,
    /// `clac` with AC set; the result is RFLAGS.
    Clac,
    /// `stac` with AC clear; the result is RFLAGS.
    Stac,
    /// `popcnt`; the result is the number of bits set in the argument.
    Popcnt,
}

/// Executes `probe` in CPL0 and returns what it left.
pub(crate) fn probe(probe: Probe, argument: u64) -> u64 {
    let service = match probe {
        Probe::Int3 => Service::Int3,
        Probe::Fwait => Service::Fwait,
        Probe::Clac => Service::Clac,
        Probe::Stac => Service::Stac,
        Probe::Popcnt => Service::Popcnt,
    };
    // SAFETY: none of them takes an address.
    unsafe { call(service, argument, 0, 0) }
}

/// Adds vectors from `address` in CPL0, which KVM's emulator refuses on every host when a device
/// is there.
///
/// # Safety
/// `address` must be mapped and 16-byte aligned, and reading it must have no effect.
pub(crate) unsafe fn refused(address: u64) {
    // SAFETY: the caller's duty; XMM0 is free in the C ABI.
    unsafe { call(Service::Refused, address, 0, 0) };
}

/// Reads `port` in CPL0 `times` times (at least once).
pub(crate) fn port_loop(port: u16, times: u32) {
    // SAFETY: takes no address.
    unsafe { call(Service::PortLoop, port.into(), 0, times.max(1).into()) };
}

/// Reads 32 bits at `address` in CPL0 `times` times (at least once).
///
/// # Safety
/// `address` must be mapped and aligned, and reading it must have no effect.
pub(crate) unsafe fn load_loop(address: u64, times: u32) {
    // SAFETY: the caller's duty.
    unsafe { call(Service::LoadLoop, address, 0, times.max(1).into()) };
}

/// An exception, as the report on the console shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rsp: u64,
    cr2: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 22] = [
            "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "", "#TS", "#NP", "#SS",
            "#GP", "#PF", "", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
        ];
        let name = NAMES.get(self.vector as usize).copied().unwrap_or("");
        write!(
            f,
            "FAULT vector {} {name} error {:#x} rip {:#x} ",
            self.vector, self.error, self.rip
        )?;
        write!(f, "cs {:#x} rsp {:#x} cr2 {:#x}", self.cs, self.rsp, self.cr2)
    }
}

/// The exception that `boot/vectors.s` has noted.
#[cfg(guest_image)]
pub(crate) fn fault() -> Fault {
    // SAFETY: written once by the handler before it came here; plain words.
    let [vector, error, rip, cs, rsp, cr2, _] =
        unsafe { (&raw const image::guest_fault_info).read_volatile() };
    Fault { vector, error, rip, cs, rsp, cr2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_report_names_the_exception() {
        let fault =
            Fault { vector: 14, error: 7, rip: 0x20_0000, cs: 0x23, rsp: 0x30, cr2: 0x1000 };
        assert_eq!(
            fault.to_string(),
            "FAULT vector 14 #PF error 0x7 rip 0x200000 cs 0x23 rsp 0x30 cr2 0x1000"
        );
        let odd = Fault { vector: 99, ..fault };
        assert!(odd.to_string().starts_with("FAULT vector 99  error"));
    }
}
