//! Why a disk cannot be driven.

use core::fmt;

use crate::mem::OutOfMemory;
use crate::virtio::device::DeviceError;

/// Why a disk could not be driven further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskError {
    /// The transport failed.
    Device(DeviceError),
    /// No memory for queues and buffers.
    Memory(OutOfMemory),
    /// The used ring names a chain that is not in flight.
    Stranger(u32),
    /// Nothing completes although requests are in flight.
    Timeout {
        /// The device status then.
        status: u8,
        /// How many requests are missing.
        missing: u16,
    },
    /// Requests complete, but their interrupts do not come.
    NoInterrupt,
    /// A slot is too small, or already in use, for a request.
    Slot,
    /// The disk has no room for a single request, or larger blocks.
    TooSmall,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Stranger(head) => write!(f, "used ring names chain {head}, not in flight"),
            Self::Timeout { status, missing } => {
                write!(f, "{missing} requests never complete, device status {status:#04x}")
            }
            Self::NoInterrupt => write!(f, "a request completed without its interrupt"),
            Self::Slot => write!(f, "a request does not fit its slot"),
            Self::TooSmall => write!(f, "the disk is too small, or its blocks too large"),
        }
    }
}

impl From<DeviceError> for DiskError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

impl From<OutOfMemory> for DiskError {
    fn from(error: OutOfMemory) -> Self {
        Self::Memory(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_says_how_much_is_missing_and_the_status() {
        let text = DiskError::Timeout { status: 0x4f, missing: 3 }.to_string();
        assert_eq!(text, "3 requests never complete, device status 0x4f");
    }
}
