//! MSI-X: the capability, the vector table and the pending bit array
//! (PCI Local Bus 3.0, section 6.8.2).

use reactor::Fd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vcpu::irq::{IrqError, MsiMessage, MsiVector, Platform};

/// Capability ID of MSI-X.
pub const MSIX_CAPABILITY: u8 = 0x11;
/// Message Control: MSI-X Enable.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// Message Control: Function Mask.
pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;
/// The largest table there can be.
pub const MSIX_VECTORS_MAX: u16 = 2048;

const ENTRY_BYTES: u64 = 16;
const VECTOR_CONTROL: usize = 3;
const VECTOR_MASKED: u32 = 1;

/// Where the table and the pending bit array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlace {
    /// BAR that holds the table.
    pub table_bar: usize,
    /// Offset of the table, a multiple of 8.
    pub table_offset: u32,
    /// BAR that holds the pending bit array.
    pub pba_bar: usize,
    /// Offset of the pending bit array, a multiple of 8.
    pub pba_offset: u32,
}

#[derive(Debug)]
struct Entry {
    // Message address, upper message address, message data, vector control.
    regs: [u32; 4],
    // What the accelerator was told last, so that it is told changes only.
    routed: Option<MsiMessage>,
}

impl Entry {
    fn power_on() -> Self {
        Self { regs: [0, 0, 0, VECTOR_MASKED], routed: None }
    }

    fn message(&self) -> MsiMessage {
        MsiMessage {
            address: u64::from(self.regs[1]) << 32 | u64::from(self.regs[0] & !0x3),
            data: self.regs[2],
        }
    }
}

#[derive(Debug)]
struct Table {
    entries: Vec<Entry>,
    function_masked: bool,
    enabled: bool,
}

/// Adds 1 to an eventfd, from any thread. Never blocks: the count stays far below its limit.
pub(crate) fn signal(eventfd: &Fd) {
    if let Err(error) = nix::unistd::write(eventfd, &1u64.to_ne_bytes()) {
        tracing::error!(%error, "signalling an eventfd");
    }
}

/// The MSI-X state of one function.
///
/// Signalling a vector (its eventfd) and [`Msix::enabled`] take no lock; table accesses and mask
/// changes take the table's and may take the accelerator's. A message signalled while its vector is
/// masked stays in the vector, is shown by the pending bit array and is delivered by unmasking.
pub struct Msix {
    vectors: Box<[Arc<dyn MsiVector>]>,
    enabled: AtomicBool,
    table: Mutex<Table>,
}

impl Msix {
    /// Takes `vectors` message vectors (1 to 2048) from the platform, all masked.
    pub fn new(platform: &dyn Platform, vectors: u16) -> Result<Arc<Self>, IrqError> {
        if !(1..=MSIX_VECTORS_MAX).contains(&vectors) {
            return Err(IrqError::Exhausted("MSI-X table entry"));
        }
        let vectors: Box<[_]> =
            (0..vectors).map(|_| platform.msi_vector()).collect::<Result<_, _>>()?;
        let entries = vectors.iter().map(|_| Entry::power_on()).collect();
        Ok(Arc::new(Self {
            vectors,
            enabled: AtomicBool::new(false),
            table: Mutex::new(Table { entries, function_masked: false, enabled: false }),
        }))
    }

    /// Whether the guest has enabled MSI-X. While it has not, the function interrupts by INTx.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Vector `index`, or `None` past the table (which a guest may well ask for).
    pub fn vector(&self, index: u16) -> Option<&Arc<dyn MsiVector>> {
        self.vectors.get(usize::from(index))
    }

    /// Bytes of the table.
    pub fn table_size(&self) -> u64 {
        u64::from(self.vectors()) * ENTRY_BYTES
    }

    /// Bytes of the pending bit array.
    pub fn pba_size(&self) -> u64 {
        u64::from(self.vectors()).div_ceil(64) * 8
    }

    /// Fills `data` from `offset` into the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let table = self.lock();
        for (at, byte) in (offset..).zip(data) {
            let entry = table.entries.get((at / ENTRY_BYTES) as usize);
            let reg = (at % ENTRY_BYTES / 4) as usize;
            *byte = entry.map_or(0, |entry| entry.regs[reg].to_le_bytes()[(at % 4) as usize]);
        }
    }

    /// Takes `data` written at `offset` into the table.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        let mut table = self.lock();
        for (at, byte) in (offset..).zip(data) {
            let Some(entry) = table.entries.get_mut((at / ENTRY_BYTES) as usize) else { break };
            let reg = (at % ENTRY_BYTES / 4) as usize;
            let mut bytes = entry.regs[reg].to_le_bytes();
            bytes[(at % 4) as usize] = *byte;
            entry.regs[reg] = u32::from_le_bytes(bytes);
            // All of vector control but the mask bit is reserved.
            entry.regs[VECTOR_CONTROL] &= VECTOR_MASKED;
        }
        let last = offset.saturating_add(data.len().saturating_sub(1) as u64);
        for index in offset / ENTRY_BYTES..=last / ENTRY_BYTES {
            self.route(&mut table, index as usize);
        }
    }

    /// Fills `data` from `offset` into the pending bit array: all clear while MSI-X is off.
    pub fn read_pba(&self, offset: u64, data: &mut [u8]) {
        if !self.enabled() {
            return data.fill(0);
        }
        for (at, byte) in (offset..).zip(data) {
            let first = at.saturating_mul(8) as usize;
            let vectors = self.vectors.iter().skip(first).take(8);
            *byte = vectors
                .enumerate()
                .fold(0, |bits, (bit, vector)| bits | u8::from(vector.pending()) << bit);
        }
    }

    /// The Message Control register has the new value `control`. Returns whether MSI-X Enable
    /// changed.
    pub fn set_control(&self, control: u16) -> bool {
        let enabled = control & MSIX_ENABLE != 0;
        let mut table = self.lock();
        let changed = enabled != table.enabled;
        if changed && enabled {
            self.forget_signals();
        }
        table.enabled = enabled;
        table.function_masked = control & MSIX_FUNCTION_MASK != 0;
        for index in 0..table.entries.len() {
            self.route(&mut table, index);
        }
        self.enabled.store(enabled, Ordering::Release);
        changed
    }

    /// Power-on state: disabled, every vector masked.
    pub fn reset(&self) {
        let mut table = self.lock();
        self.enabled.store(false, Ordering::Release);
        (table.enabled, table.function_masked) = (false, false);
        for index in 0..table.entries.len() {
            table.entries[index].regs = Entry::power_on().regs;
            self.route(&mut table, index);
        }
    }

    /// The capability's body and write mask for a table at `place`.
    pub(super) fn capability(&self, place: MsixPlace) -> ([u8; 10], [u8; 10]) {
        let (mut body, mut mask) = ([0; 10], [0; 10]);
        body[0..2].copy_from_slice(&(self.vectors() - 1).to_le_bytes());
        body[2..6]
            .copy_from_slice(&(place.table_offset & !7 | place.table_bar as u32).to_le_bytes());
        body[6..10].copy_from_slice(&(place.pba_offset & !7 | place.pba_bar as u32).to_le_bytes());
        mask[0..2].copy_from_slice(&(MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes());
        (body, mask)
    }

    // What was signalled before MSI-X was switched off, or before a reset, is nothing that the guest
    // waits for now.
    fn forget_signals(&self) {
        for vector in self.vectors.iter().filter(|vector| vector.pending()) {
            // An eventfd that has a count gives it back at once; one that has none any more would do
            // as well.
            let _ = nix::unistd::read(vector.eventfd(), &mut [0; 8]);
        }
    }

    /// Tells the accelerator about entry `index` if what it should do there has changed.
    fn route(&self, table: &mut Table, index: usize) {
        let open = table.enabled && !table.function_masked;
        let (Some(entry), Some(vector)) = (table.entries.get_mut(index), self.vectors.get(index))
        else {
            return;
        };
        let unmasked = open && entry.regs[VECTOR_CONTROL] & VECTOR_MASKED == 0;
        let wanted = unmasked.then(|| entry.message());
        if wanted == entry.routed {
            return;
        }
        match vector.route(wanted) {
            Ok(()) => entry.routed = wanted,
            Err(error) => tracing::warn!(%error, vector = index, "an MSI-X vector stays as it was"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
