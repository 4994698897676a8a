//! How devices raise interrupts and hear doorbells, free of KVM: the in-kernel irqchip
//! implements these ([`crate::kvm`]), and an accelerator that has none does too ([`crate::qtest`]).

mod inputs;

pub(crate) use inputs::{INPUTS, Inputs};

use crate::bus::Space;
use reactor::Fd;
use std::sync::Arc;

/// Why an interrupt or doorbell resource could not be had.
#[derive(Debug, thiserror::Error)]
pub enum IrqError {
    /// No route, vector or doorbell is left.
    #[error("no {0} is left on this machine; use fewer devices or queues")]
    Exhausted(&'static str),
    /// The accelerator refused.
    #[error("{what} was refused by the accelerator")]
    Accelerator {
        /// The operation.
        what: &'static str,
        /// What it answered.
        #[source]
        source: std::io::Error,
    },
}

/// The address and data that a device stores to raise a message-signalled interrupt
/// (PCI Local Bus 3.0, section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// One vector of a device that signals by message.
pub trait MsiVector: Send + Sync {
    /// The eventfd that delivers the interrupt when 1 is added to it. While the vector is masked the
    /// count stays in the eventfd, which is what the pending bit array shows.
    fn eventfd(&self) -> &Fd;
    /// Routes the vector to `message`, or masks it with `None`. Delivers what was pending.
    fn route(&self, message: Option<MsiMessage>) -> Result<(), IrqError>;
    /// Whether the masked vector has been signalled. Always false while routed.
    fn pending(&self) -> bool;
}

/// A level-triggered or edge-triggered input of the interrupt controllers.
pub trait IrqLine: Send + Sync {
    /// Drives the line.
    fn set_level(&self, high: bool);
}

/// What a machine offers to devices that interrupt and are rung.
///
/// Any thread may call it; calls may take the accelerator's locks, so none belongs on the
/// data path.
pub trait Platform: Send + Sync {
    /// A new message vector, masked.
    fn msi_vector(&self) -> Result<Arc<dyn MsiVector>, IrqError>;
    /// Input `gsi` of the interrupt controllers (0 to 23).
    fn irq_line(&self, gsi: u32) -> Arc<dyn IrqLine>;
    /// Makes guest writes of `len` bytes (0: any width) at `address` add 1 to `fd` without an exit
    /// to a device; `datamatch` narrows it to one value.
    ///
    /// Does nothing unless the accelerator can do so: every write then reaches its device, which
    /// rings by itself.
    fn add_doorbell(
        &self,
        _space: Space,
        _address: u64,
        _len: u32,
        _datamatch: Option<u64>,
        _fd: &Fd,
    ) -> Result<(), IrqError> {
        Ok(())
    }
    /// Undoes [`Platform::add_doorbell`] called with the same arguments.
    fn remove_doorbell(
        &self,
        _space: Space,
        _address: u64,
        _len: u32,
        _datamatch: Option<u64>,
        _fd: &Fd,
    ) {
    }
}
