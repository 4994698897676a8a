//! What a guest asks of the machine it runs on.

use std::sync::Arc;

/// A request that a guest made through a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestRequest {
    /// Power off: ACPI sleep state S5.
    PowerOff,
    /// Reset the machine: the ACPI reset register, or the keyboard controller's reset line.
    Reset,
    /// End with this status: the debug-exit port.
    Exit(u8),
}

/// Takes requests. Called on vCPU threads, possibly with a device's lock held: it hands the request
/// over to a context and returns, and calls no device.
pub type RequestSink = Arc<dyn Fn(GuestRequest) + Send + Sync>;
