//! Interrupts of a machine that has no interrupt controller to speak of.

use super::PhysicalMemory;
use crate::irq::{Inputs, IrqError, IrqLine, MsiMessage, MsiVector, Platform};
use crate::sys;
use reactor::sync::Notify;
use reactor::{CancelOnDrop, Context, Fd, io};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The platform of a machine under test.
pub struct Qtest {
    memory: PhysicalMemory,
    inputs: Arc<Inputs>,
    /// Where the messages are stored from.
    context: OnceLock<Context>,
}

impl Qtest {
    /// How many interrupt inputs there are, numbered from 0.
    pub const INPUTS: u32 = crate::irq::INPUTS;

    /// A platform whose messages go to `memory` and whose interrupt inputs tell `inputs` of each change,
    /// on whichever thread drives the line; it must not block.
    pub fn new(
        memory: PhysicalMemory,
        inputs: impl Fn(u32, bool) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { memory, inputs: Inputs::new(inputs), context: OnceLock::new() })
    }

    /// Messages are stored by tasks of `context` from now on: of the one that serves the program
    /// outside, so that it sees a message only after all that the device did before. Needed before the
    /// first vector is made; later calls change nothing.
    pub fn attach(&self, context: Context) {
        self.context.get_or_init(|| context);
    }
}

impl Platform for Qtest {
    fn msi_vector(&self) -> Result<Arc<dyn MsiVector>, IrqError> {
        let fd = sys::eventfd().map_err(|source| IrqError::Accelerator {
            what: "an eventfd for an interrupt vector",
            source,
        })?;
        let context =
            self.context.get().ok_or(IrqError::Exhausted("context for interrupt messages"))?;
        let shared = Arc::new(Shared {
            fd,
            message: Mutex::default(),
            routed: Notify::new(),
            memory: self.memory.clone(),
        });
        let task = context.spawn("interrupt message", Arc::clone(&shared).serve());
        Ok(Arc::new(Vector { shared, _task: CancelOnDrop::new(task) }))
    }

    fn irq_line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        self.inputs.line(gsi)
    }
}

/// What a vector and its task share.
struct Shared {
    fd: Fd,
    /// `None` while masked.
    message: Mutex<Option<MsiMessage>>,
    /// The vector has been given a message.
    routed: Notify,
    memory: PhysicalMemory,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<MsiMessage>> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a message whenever the vector is signalled and not masked.
    async fn serve(self: Arc<Self>) {
        loop {
            if self.lock().is_none() {
                self.routed.notified().await;
                continue;
            }
            // A poll and not a read: what is signalled while masked stays in the eventfd.
            if let Err(error) = io::poll(&self.fd, libc::POLLIN as u32).await {
                tracing::error!(%error, "an interrupt vector is silent from here on");
                return;
            }
            self.deliver();
        }
    }

    /// Stores the message if the vector is signalled and not masked.
    fn deliver(&self) {
        let message = self.lock();
        let Some(MsiMessage { address, data }) = *message else { return };
        if !sys::take(&self.fd) {
            return;
        }
        // Under the lock, so that a masked vector has stored its last message; but a store to a
        // device may come back here.
        let held = self.memory.is_ram(address, size_of_val(&data)).then_some(message);
        self.memory.write(address, &data.to_le_bytes());
        drop(held);
    }
}

struct Vector {
    shared: Arc<Shared>,
    _task: CancelOnDrop<()>,
}

impl MsiVector for Vector {
    fn eventfd(&self) -> &Fd {
        &self.shared.fd
    }

    fn route(&self, message: Option<MsiMessage>) -> Result<(), IrqError> {
        *self.shared.lock() = message;
        let Some(MsiMessage { address, data }) = message else { return Ok(()) };
        // What was pending is there when this returns. The caller may hold locks that a store to a
        // device would need: that one is left to the task.
        if self.shared.memory.is_ram(address, size_of_val(&data)) {
            self.shared.deliver();
        }
        self.shared.routed.notify_one();
        Ok(())
    }

    fn pending(&self) -> bool {
        let message = self.shared.lock();
        message.is_none() && sys::readable(&self.shared.fd)
    }
}
