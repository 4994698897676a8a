//! Errors of management commands that are found below the monitor.

/// QMP's error classes. Clients may rely on the class, never on the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Everything a client need not tell apart.
    GenericError,
    /// The command does not exist, or not in this mode.
    CommandNotFound,
    /// The device has no medium or back end.
    DeviceNotActive,
    /// No device of this name.
    DeviceNotFound,
    /// The kernel's KVM lacks a capability.
    KvmMissingCap,
}

impl ErrorClass {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::KvmMissingCap => "KVMMissingCap",
        }
    }
}

/// Why a management command failed: what its client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CommandError {
    /// What a client may rely on.
    pub class: ErrorClass,
    /// One sentence for a person; QEMU's where it has one.
    pub text: String,
}

impl CommandError {
    /// An error of the given class.
    pub fn new(class: ErrorClass, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }

    /// An error that clients need not tell from others.
    pub fn generic(text: impl Into<String>) -> Self {
        Self::new(ErrorClass::GenericError, text)
    }

    /// There is no device, object or path of this name.
    pub fn device_not_found(name: &str) -> Self {
        Self::new(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"))
    }
}
