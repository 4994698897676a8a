//! How a device gets its driver's attention: the ISR byte, MSI-X vectors, INTx, NEEDS_RESET.

use super::NO_VECTOR;
use crate::pci::{IntxPin, Msix, signal};
use reactor::{Fd, OpGroup};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

/// ISR: a queue has been used (section 4.1.4.5).
const ISR_QUEUE: u8 = 1;
/// ISR: the configuration has changed.
const ISR_CONFIG: u8 = 2;

/// What the transport, the device and its queues share of a device's interrupt state.
///
/// All of it is atomic: a queue's task reads its vector and raises it without a lock.
pub(super) struct Interrupts {
    name: String,
    isr: AtomicU8,
    generation: AtomicU8,
    /// The driver may be interrupted: it has set DRIVER_OK.
    live: AtomicBool,
    needs_reset: AtomicBool,
    config_vector: AtomicU16,
    queue_vectors: Box<[AtomicU16]>,
    msix: Arc<Msix>,
    pin: Arc<IntxPin>,
}

impl Interrupts {
    pub(super) fn new(name: String, queues: usize, msix: Arc<Msix>, pin: Arc<IntxPin>) -> Self {
        Self {
            name,
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            live: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            msix,
            pin,
        }
    }

    /// Reads the ISR byte, which clears it and lets go of INTx (section 4.1.5.3).
    pub(super) fn take_isr(&self) -> u8 {
        let isr = self.isr.swap(0, Ordering::SeqCst);
        self.pin.set(false);
        // A bit that was set in between found the pin high and left it to this.
        if self.isr.load(Ordering::SeqCst) != 0 && !self.msix.enabled() {
            self.pin.set(true);
        }
        isr
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::SeqCst);
    }

    /// The driver's choice of a vector; refused ones become [`NO_VECTOR`] (section 4.1.5.1.2.1).
    pub(super) fn set_vector(&self, queue: Option<u16>, vector: u16) {
        let vector = if vector < self.msix.vectors() { vector } else { NO_VECTOR };
        if let Some(cell) = self.vector_cell(queue) {
            cell.store(vector, Ordering::Release);
        }
    }

    pub(super) fn vector(&self, queue: Option<u16>) -> u16 {
        self.vector_cell(queue).map_or(NO_VECTOR, |cell| cell.load(Ordering::Acquire))
    }

    fn vector_cell(&self, queue: Option<u16>) -> Option<&AtomicU16> {
        queue.map_or(Some(&self.config_vector), |queue| self.queue_vectors.get(usize::from(queue)))
    }

    /// The guest switched between MSI-X and INTx: a level left on the pin is nobody's.
    pub(super) fn mode_changed(&self) {
        self.pin.set(false);
    }

    /// Back to power-on state. The generation goes on counting.
    pub(super) fn reset(&self) {
        self.set_live(false);
        self.needs_reset.store(false, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
        self.take_isr();
    }

    /// Sets ISR bits and finds where to signal: `None` when INTx is driven, or nobody listens.
    fn raise(&self, bits: u8, vector: &AtomicU16) -> Option<&Fd> {
        // Mostly the bits are set already, since drivers that use MSI-X do not read them.
        if self.isr.load(Ordering::SeqCst) & bits != bits {
            self.isr.fetch_or(bits, Ordering::SeqCst);
        }
        if !self.msix.enabled() {
            self.pin.set(true);
            return None;
        }
        let vector = self.msix.vector(vector.load(Ordering::Acquire))?;
        Some(vector.eventfd())
    }

    /// Tells the driver that the configuration space has changed, if it is listening.
    fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.interrupt_config();
    }

    fn interrupt_config(&self) {
        if !self.live.load(Ordering::SeqCst) {
            return;
        }
        if let Some(eventfd) = self.raise(ISR_QUEUE | ISR_CONFIG, &self.config_vector) {
            signal(eventfd);
        }
    }

    /// Sets NEEDS_RESET and says why, once until the next reset.
    pub(super) fn fail(&self, reason: &dyn std::fmt::Display) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            tracing::warn!(device = %self.name, "needs a reset by its driver: {reason}");
            self.interrupt_config();
        }
    }

    /// The driver has set DRIVER_OK while NEEDS_RESET was on: it is told now (section 2.1.2).
    pub(super) fn announce_failure(&self) {
        if self.needs_reset() {
            self.interrupt_config();
        }
    }
}

/// A device's way to say that its configuration space has changed. Any thread.
#[derive(Clone)]
pub struct ConfigNotifier(pub(super) Arc<Interrupts>);

impl ConfigNotifier {
    /// Raises the configuration change interrupt and a new configuration generation. Before the
    /// driver has set DRIVER_OK only the generation changes.
    pub fn changed(&self) {
        self.0.config_changed();
    }
}

/// A queue's way to say that its driver broke the rules.
#[derive(Clone)]
pub struct Fault(pub(super) Arc<Interrupts>);

impl Fault {
    /// Marks the device NEEDS_RESET, interrupts the driver and logs `reason`, all of it once.
    pub fn raise(&self, reason: &dyn std::fmt::Display) {
        self.0.fail(reason);
    }

    /// Whether some queue of the device has raised it: no queue takes requests then.
    pub fn raised(&self) -> bool {
        self.0.needs_reset()
    }
}

/// A queue's used buffer notification.
pub struct QueueInterrupt {
    shared: Arc<Interrupts>,
    queue: u16,
}

impl QueueInterrupt {
    pub(super) fn new(shared: Arc<Interrupts>, queue: u16) -> Self {
        Self { shared, queue }
    }

    /// Interrupts the driver: by a submission that rides the current context's next enter, or by
    /// the INTx pin. On a reactor.
    pub fn raise(&self) {
        let Some(vector) = self.shared.vector_cell(Some(self.queue)) else { return };
        if let Some(eventfd) = self.shared.raise(ISR_QUEUE, vector) {
            OpGroup::signal_eventfd(eventfd.as_raw_fd());
        }
    }
}
