//! INTx: interrupt pins, and the shared lines they are routed to (PCI Local Bus 3.0, section
//! 2.2.6).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vcpu::irq::{IrqLine, Platform};

/// The first input of the interrupt controllers that PCI interrupts use.
pub const PCI_GSI_BASE: u32 = 16;
/// How many inputs from there on they use.
pub const PCI_GSI_COUNT: u32 = 8;

/// The input that pin `pin` (0 for INTA) of device `device` on the root bus is wired to. The _PRT
/// says the same.
pub fn root_bus_gsi(device: u8, pin: u8) -> u32 {
    PCI_GSI_BASE + (u32::from(device) + u32::from(pin)) % PCI_GSI_COUNT
}

/// An input that several pins drive: high while any of them does.
pub struct SharedLine {
    drivers: Mutex<u32>,
    line: Arc<dyn IrqLine>,
}

impl SharedLine {
    /// A line nobody drives.
    pub fn new(line: Arc<dyn IrqLine>) -> Self {
        Self { drivers: Mutex::new(0), line }
    }

    // The level is set under the lock, so that it cannot be overtaken by an older one.
    fn drive(&self, high: bool) {
        let mut drivers = lock(&self.drivers);
        let before = *drivers;
        *drivers = if high { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (*drivers == 0) {
            self.line.set_level(high);
        }
    }
}

/// The lines that PCI interrupts of one machine share.
pub struct IntxRouter {
    lines: Vec<Arc<SharedLine>>,
}

impl IntxRouter {
    /// Takes the platform's inputs 16 to 23.
    pub fn new(platform: &dyn Platform) -> Self {
        let line = |n| Arc::new(SharedLine::new(platform.irq_line(PCI_GSI_BASE + n)));
        Self { lines: (0..PCI_GSI_COUNT).map(line).collect() }
    }

    /// The line of pin `pin` (0 for INTA) of root bus device `device`.
    pub fn line(&self, device: u8, pin: u8) -> Arc<SharedLine> {
        let index = root_bus_gsi(device, pin) - PCI_GSI_BASE;
        Arc::clone(&self.lines[index as usize])
    }
}

#[derive(Default)]
struct Wire {
    line: Option<Arc<SharedLine>>,
    disabled: bool,
    driving: bool,
}

/// The interrupt pin of one function. Any thread may drive it.
#[derive(Default)]
pub struct IntxPin {
    asserted: AtomicBool,
    wire: Mutex<Wire>,
}

impl IntxPin {
    /// A pin that is low and not wired yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Drives the pin: level-triggered, so it stays until it is driven low.
    pub fn set(&self, asserted: bool) {
        if self.asserted.swap(asserted, Ordering::AcqRel) != asserted {
            self.update(&mut lock(&self.wire));
        }
    }

    /// Whether the function wants an interrupt (what Interrupt Status shows, disabled or not).
    pub fn asserted(&self) -> bool {
        self.asserted.load(Ordering::Acquire)
    }

    /// Follows Interrupt Disable in the Command register.
    pub(super) fn set_disabled(&self, disabled: bool) {
        let mut wire = lock(&self.wire);
        wire.disabled = disabled;
        self.update(&mut wire);
    }

    /// Wires the pin to `line`, or to nothing.
    pub(super) fn connect(&self, line: Option<Arc<SharedLine>>) {
        let mut wire = lock(&self.wire);
        if wire.driving {
            wire.driving = false;
            if let Some(old) = &wire.line {
                old.drive(false);
            }
        }
        wire.line = line;
        self.update(&mut wire);
    }

    // Reads the level under the lock: of two racing calls the later one to come here sees the
    // latest.
    fn update(&self, wire: &mut Wire) {
        let drive = self.asserted() && !wire.disabled;
        if let Some(line) = &wire.line
            && drive != wire.driving
        {
            line.drive(drive);
            wire.driving = drive;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
