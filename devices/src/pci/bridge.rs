//! Bridges: the type 1 header, and what one forwards (PCI-to-PCI Bridge 1.2, chapter 3).

use super::config::{COMMAND, COMMAND_IO, COMMAND_MEMORY, ConfigBuilder, ConfigSpace, HEADER_TYPE};
use super::function::Attachment;
use super::segment::PciSegment;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vcpu::bus::Space;

/// Base address registers of a type 1 header.
pub const BRIDGE_BAR_COUNT: usize = 2;
/// Header Type of a bridge.
const HEADER_BRIDGE: u8 = 1;
const PRIMARY_BUS: u16 = 0x18;
const SECONDARY_BUS: u16 = 0x19;
const SUBORDINATE_BUS: u16 = 0x1a;
const IO_BASE: u16 = 0x1c;
const IO_LIMIT: u16 = 0x1d;
const MEMORY_BASE: u16 = 0x20;
const MEMORY_LIMIT: u16 = 0x22;
const PREFETCH_BASE: u16 = 0x24;
const PREFETCH_LIMIT: u16 = 0x26;
const PREFETCH_BASE_HIGH: u16 = 0x28;
const PREFETCH_LIMIT_HIGH: u16 = 0x2c;
const IO_BASE_HIGH: u16 = 0x30;
const IO_LIMIT_HIGH: u16 = 0x32;
const BRIDGE_CONTROL: u16 = 0x3e;

/// The registers that say what is forwarded.
pub(super) const FORWARDING: [Range<u16>; 2] = [COMMAND..COMMAND + 2, PRIMARY_BUS..0x34];

/// I/O windows are of 4 KiB, with 16-bit addresses here; memory windows of 1 MiB.
const IO_16_BIT: u8 = 0;
const PREFETCH_64_BIT: u16 = 1;
const MEMORY_STEP: u64 = 1 << 20;
const IO_STEP: u64 = 1 << 12;

/// Makes the header of `config`, which is of type 0, one of type 1.
pub(super) fn lay_out(config: &mut ConfigBuilder) {
    config.set(HEADER_TYPE, &[HEADER_BRIDGE]);
    // What a type 0 header has as subsystem IDs.
    config.set(PREFETCH_LIMIT_HIGH, &[0; 4]);
    config.writable(PRIMARY_BUS, &[0xff; 4]);
    config.set(IO_BASE, &[IO_16_BIT; 2]);
    config.writable(IO_BASE, &[0xf0; 2]);
    for register in [MEMORY_BASE, MEMORY_LIMIT] {
        config.writable(register, &0xfff0u16.to_le_bytes());
    }
    for register in [PREFETCH_BASE, PREFETCH_LIMIT] {
        config.set(register, &PREFETCH_64_BIT.to_le_bytes());
        config.writable(register, &0xfff0u16.to_le_bytes());
    }
    config.writable(PREFETCH_BASE_HIGH, &[0xff; 8]);
    // Parity and SERR# reporting, VGA bits and secondary bus reset: kept, without effect.
    config.writable(BRIDGE_CONTROL, &0x005fu16.to_le_bytes());
}

/// An address range as query-pci shows it: the last address may be below the first, where
/// nothing is forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeWindow {
    /// The first address.
    pub base: u64,
    /// The last one.
    pub limit: u64,
}

impl BridgeWindow {
    fn holds(self, base: u64, size: u64) -> bool {
        let last = size.checked_sub(1).and_then(|more| base.checked_add(more));
        base >= self.base && last.is_some_and(|last| last <= self.limit)
    }
}

/// The bus numbers and windows of a bridge, as its registers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeView {
    /// Number of the bus it is on.
    pub primary: u8,
    /// Number of the bus below.
    pub secondary: u8,
    /// The highest number below.
    pub subordinate: u8,
    /// Ports.
    pub io: BridgeWindow,
    /// Memory.
    pub memory: BridgeWindow,
    /// Prefetchable memory.
    pub prefetch: BridgeWindow,
    io_on: bool,
    memory_on: bool,
}

impl BridgeView {
    /// What `config`, of type 1, says.
    pub fn of(config: &ConfigSpace) -> Self {
        let io = |low: u16, high: u16| {
            u64::from(config.u16(high)) << 16 | u64::from(config.u8(low) & 0xf0) << 8
        };
        let memory = |register: u16| u64::from(config.u16(register) & 0xfff0) << 16;
        let wide = |low: u16, high: u16| u64::from(config.u32(high)) << 32 | memory(low);
        let command = config.u16(COMMAND);
        let window = |base, limit: u64, step| BridgeWindow { base, limit: limit + (step - 1) };
        Self {
            primary: config.u8(PRIMARY_BUS),
            secondary: config.u8(SECONDARY_BUS),
            subordinate: config.u8(SUBORDINATE_BUS),
            io: window(io(IO_BASE, IO_BASE_HIGH), io(IO_LIMIT, IO_LIMIT_HIGH), IO_STEP),
            memory: window(memory(MEMORY_BASE), memory(MEMORY_LIMIT), MEMORY_STEP),
            prefetch: window(
                wide(PREFETCH_BASE, PREFETCH_BASE_HIGH),
                wide(PREFETCH_LIMIT, PREFETCH_LIMIT_HIGH),
                MEMORY_STEP,
            ),
            io_on: command & COMMAND_IO != 0,
            memory_on: command & COMMAND_MEMORY != 0,
        }
    }

    fn forwards(&self, space: Space, base: u64, size: u64) -> bool {
        match space {
            Space::Pio => self.io_on && self.io.holds(base, size),
            Space::Mmio => {
                let windows = [self.memory, self.prefetch];
                self.memory_on && windows.iter().any(|window| window.holds(base, size))
            }
        }
    }
}

/// The bridge behind a function: its secondary bus, and what passes. Followed by the function's
/// configuration writes, under the function's lock; read from any thread.
pub struct PciBridge {
    segment: Arc<PciSegment>,
    /// What configuration accesses look for, without a lock. 0: not set up by the guest yet.
    secondary: AtomicU8,
    view: Mutex<BridgeView>,
}

impl PciBridge {
    /// A bridge with a link below: nothing is forwarded.
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            segment: PciSegment::link(this),
            secondary: AtomicU8::new(0),
            view: Mutex::default(),
        })
    }

    /// The bus below.
    pub fn segment(&self) -> &Arc<PciSegment> {
        &self.segment
    }

    /// The number of the bus below; 0 while the guest has given it none.
    pub fn secondary(&self) -> u8 {
        self.secondary.load(Ordering::Acquire)
    }

    /// Its bus numbers and windows.
    pub fn view(&self) -> BridgeView {
        *self.lock()
    }

    /// Whether an access from above reaches the bus below.
    pub(super) fn forwards(&self, space: Space, base: u64, size: u64) -> bool {
        self.lock().forwards(space, base, size)
    }

    /// The registers have changed; what is below decodes accordingly when this returns.
    pub(super) fn follow(&self, config: &ConfigSpace) {
        let view = BridgeView::of(config);
        let before = std::mem::replace(&mut *self.lock(), view);
        self.secondary.store(view.secondary, Ordering::Release);
        if before != view {
            self.segment.redecode();
        }
    }

    /// The bridge's own function has been connected, or (`None`) taken off.
    pub(super) fn connect(&self, own: Option<&Attachment>) {
        self.segment.rewire(own.cloned());
    }

    fn lock(&self) -> MutexGuard<'_, BridgeView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
