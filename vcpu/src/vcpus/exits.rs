//! What KVM left in `kvm_run` at an exit, as far as kvm-ioctls does not hand it out.

use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run,
};
use kvm_ioctls::VcpuFd;

/// A port access: one `IN` or `OUT`, or several items of a string instruction.
pub(super) struct PortAccess<'a> {
    pub port: u16,
    /// Bytes of one item: 1, 2 or 4.
    pub width: usize,
    pub out: bool,
    /// All items in order.
    pub data: &'a mut [u8],
}

/// The port access that `fd` has exited for; `None` after any other exit.
pub(super) fn port_access(fd: &mut VcpuFd) -> Option<PortAccess<'_>> {
    let run = fd.get_kvm_run();
    if run.exit_reason != KVM_EXIT_IO {
        return None;
    }
    // SAFETY: the exit reason says that the kernel has filled this member of the union.
    let io = unsafe { run.__bindgen_anon_1.io };
    let width = usize::from(io.size);
    let len = width * io.count as usize;
    let start: *mut kvm_run = run;
    // SAFETY: the kernel puts `count` items of `size` bytes at `data_offset` into the mapping of
    // `kvm_run`, past the structure itself; the borrow of `fd` keeps the mapping alive and the
    // thread out of KVM_RUN, so nothing else touches them.
    let data = unsafe {
        std::slice::from_raw_parts_mut(start.cast::<u8>().add(io.data_offset as usize), len)
    };
    Some(PortAccess {
        port: io.port,
        width: width.max(1),
        out: u32::from(io.direction) == KVM_EXIT_IO_OUT,
        data,
    })
}

/// Why KVM gave up on a guest, after `KVM_EXIT_INTERNAL_ERROR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InternalError {
    /// An instruction that its emulator does not know, with the bytes KVM has fetched (often none).
    Emulation(Vec<u8>),
    /// Anything else.
    Other(u32),
}

/// Reads the reason of an internal error.
pub(super) fn internal_error(fd: &mut VcpuFd) -> InternalError {
    let run = fd.get_kvm_run();
    // SAFETY: the caller has seen KVM_EXIT_INTERNAL_ERROR, for which the kernel fills `internal`;
    // `emulation_failure` is its layout for suberror 1. All members are plain integers.
    let (suberror, count, failure) = unsafe {
        let internal = run.__bindgen_anon_1.internal;
        (internal.suberror, internal.ndata, run.__bindgen_anon_1.emulation_failure)
    };
    if suberror != KVM_INTERNAL_ERROR_EMULATION {
        return InternalError::Other(suberror);
    }
    // The flags are the first of `ndata` words, the bytes the next two.
    let with_bytes = u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    if count < 3 || failure.flags & with_bytes == 0 {
        return InternalError::Emulation(Vec::new());
    }
    // SAFETY: integers again; the flag says that they are filled.
    let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let len = usize::from(instruction.insn_size).min(instruction.insn_bytes.len());
    InternalError::Emulation(instruction.insn_bytes[..len].to_vec())
}
