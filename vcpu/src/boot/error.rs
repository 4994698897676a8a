//! Why a guest cannot be started.

use crate::memory::Size;

/// Why a kernel, an initrd or a command line cannot be used. Each displays as one line that names
/// the option, the file and the trouble.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file cannot be opened.
    #[error("{option}: cannot open '{path}': {source}")]
    Open {
        /// Which option named it.
        option: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A directory, a socket or the like.
    #[error("{option}: '{path}' is not a regular file")]
    NotAFile {
        /// Which option named it.
        option: &'static str,
        /// The file.
        path: String,
    },
    /// There is nothing in it.
    #[error("{option}: '{path}' is empty")]
    Empty {
        /// Which option named it.
        option: &'static str,
        /// The file.
        path: String,
    },
    /// Reading failed, now or at a later reset.
    #[error("{option}: cannot read '{path}': {source}")]
    Read {
        /// Which option named it.
        option: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ends too early.
    #[error("-kernel: '{path}' is truncated: {what} needs {needed} bytes of it, and it has {have}")]
    Truncated {
        /// The file.
        path: String,
        /// What reaches past its end.
        what: &'static str,
        /// Bytes that the file should have at least.
        needed: u64,
        /// Bytes that it has.
        have: u64,
    },
    /// Not a kernel, or none that can run here.
    #[error("-kernel: '{path}' {why}")]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it, as the rest of a sentence.
        why: String,
    },
    /// The kernel's place is not in RAM.
    #[error(
        "-kernel: '{path}' must be loaded at {start:#x} to {end:#x}, but the guest's low memory \
         is 0x100000 to {ram:#x}; {}",
        if .start < &0x10_0000 { "link it at 1 MiB or above" } else { "give the guest more with -m" }
    )]
    DoesNotFit {
        /// The file.
        path: String,
        /// First address.
        start: u64,
        /// One past the last address.
        end: u64,
        /// End of the memory that kernels can be loaded into.
        ram: u64,
    },
    /// No room beside the kernel.
    #[error(
        "-initrd: '{path}' has {}, but only {} are free between the kernel and the end of the \
         memory that it can be in; give the guest more memory with -m",
        Size(*.len), Size(*.room)
    )]
    InitrdTooLarge {
        /// The file.
        path: String,
        /// Its size in bytes.
        len: u64,
        /// Bytes there are for it.
        room: u64,
    },
    /// The kernel takes a shorter command line.
    #[error("-append: the command line has {len} bytes; this kernel takes at most {limit}")]
    CommandLineTooLong {
        /// Its length in bytes.
        len: usize,
        /// The kernel's limit.
        limit: usize,
    },
    /// It would end there.
    #[error("-append: the command line contains a zero byte")]
    CommandLineZero,
    /// RAM is not laid out as [`crate::memory::ranges`] says.
    #[error("boot data could not be written to guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}
