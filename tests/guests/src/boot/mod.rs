//! From the PVH entry to `guest_start` in CPL3, and what the compiler expects of a C library.
//!
//! `entry.s` builds nothing: the tables it loads are filled in by the assembler (`tables.s`).
//! `vectors.s` holds the interrupt stubs and the services that CPL3 asks for with `ud2`.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use crate::machine::Layout;
use crate::{cpu, outln, power};

global_asm!(
    include_str!("tables.s"),
    include_str!("vectors.s"),
    include_str!("entry.s"),
    options(att_syntax, raw)
);

unsafe extern "C" {
    static guest_image_end: u8;
    static guest_pml4: u8;
}

/// Where `entry.s` goes in CPL3, with what the loader passed.
#[unsafe(no_mangle)]
extern "C" fn guest_start(start_info: u64) -> ! {
    let layout = Layout {
        image_end: (&raw const guest_image_end).expose_provenance() as u64,
        page_tables: (&raw const guest_pml4).expose_provenance() as u64,
    };
    // SAFETY: symbols of the linker script and of tables.s; called once, by entry.s.
    unsafe { crate::run(layout, start_info) }
}

/// Where `vectors.s` goes in CPL3 after an exception nobody asked for.
#[unsafe(no_mangle)]
extern "C" fn guest_fault() -> ! {
    outln!("\n{}", cpu::fault());
    power::exit(power::STATUS_FAULT)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    outln!("\nPANIC {}", info.message());
    if let Some(location) = info.location() {
        outln!("  at {location}");
    }
    power::exit(power::STATUS_PANIC)
}

/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear in the C ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the destination does not begin inside the source, so copying upwards is right.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller vouches for both ranges; downwards, because the end of the source is
    // overwritten. The direction flag is given back clear.
    unsafe {
        let (last_to, last_from) = (to.add(count).wrapping_sub(1), from.add(count).wrapping_sub(1));
        asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") last_to => _,
             inout("rsi") last_from => _, options(nostack));
    }
    to
}

/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the range; the direction flag is clear in the C ABI.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value as u8,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: the caller vouches for `count` readable bytes at both.
        let (a, b) = unsafe { (left.add(index).read(), right.add(index).read()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
/// As `memcmp`, of which only whether the result is zero counts.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, count) }
}
