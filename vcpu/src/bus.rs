//! What an address space dispatches to, and the vocabulary that device models share with it.

/// The two address spaces of an x86 machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Port I/O: 65,536 ports.
    Pio,
    /// Memory-mapped I/O: guest-physical addresses that are not RAM.
    Mmio,
}

/// A range of an address space that a device answers.
///
/// Called on vCPU threads (inside an RCU read-side section, so a device outlives the call)
/// and by the qtest accelerator. Must not block: what takes time is handed to a context.
pub trait BusDevice: Send + Sync {
    /// Fills `data` (1, 2, 4 or 8 bytes, little endian) from `offset` into the range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes `data` (1, 2, 4 or 8 bytes, little endian) written at `offset` into the range.
    fn write(&self, offset: u64, data: &[u8]);
}
