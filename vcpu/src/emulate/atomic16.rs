//! CMPXCHG16B on guest memory: the one unsafe place of this module.

use vm_memory::VolatileSlice;

/// Compares the 16 bytes of `slice` with `old` and stores `new` where they are equal; returns what
/// was there. `None` where the host's processor has no such instruction, or the slice is not 16
/// aligned bytes.
pub(super) fn compare_exchange(slice: &VolatileSlice<'_>, old: u128, new: u128) -> Option<u128> {
    let guard = slice.ptr_guard_mut();
    #[allow(clippy::cast_ptr_alignment, reason = "checked in the next line")]
    let pointer = guard.as_ptr().cast::<u128>();
    if slice.len() != 16 || !pointer.is_aligned() || !is_x86_feature_detected!("cmpxchg16b") {
        return None;
    }
    // SAFETY: 16 mapped, aligned bytes (checked above; the guard keeps them so), on a processor
    // that has the instruction. Guests access them too, with atomic instructions or at their own
    // risk; no reference into guest memory exists on our side.
    Some(unsafe { exchange(pointer, old, new) })
}

/// By hand: the standard library's intrinsic becomes a call into a library that is not linked
/// where LLVM inlines it into a function without the target feature.
///
/// # Safety
/// `pointer` is valid for reads and writes and aligned to 16 bytes, and the processor has
/// CMPXCHG16B.
unsafe fn exchange(pointer: *mut u128, old: u128, new: u128) -> u128 {
    let (mut low, mut high) = (old as u64, (old >> 64) as u64);
    // SAFETY: the caller's promise. RBX belongs to LLVM, so it is borrowed and given back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, r8",
            "lock cmpxchg16b [r9]",
            "mov rbx, r8",
            inout("r8") new as u64 => _,
            in("r9") pointer,
            in("rcx") (new >> 64) as u64,
            inout("rax") low,
            inout("rdx") high,
            options(nostack)
        );
    }
    u128::from(high) << 64 | u128::from(low)
}
