//! The error of a command, as it goes over the wire.

use crate::wire::Writer;

/// QMP's error classes. Clients may rely on the class, never on the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Everything a client need not tell apart.
    GenericError,
    /// The command does not exist, or not in this mode.
    CommandNotFound,
    /// The device has no medium or backend.
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

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{desc}")]
pub struct QmpError {
    class: ErrorClass,
    desc: String,
}

impl QmpError {
    /// An error of the given class. `desc` is one sentence for a person.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self { class, desc: desc.into() }
    }

    /// An error that clients need not tell from others.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self::new(ErrorClass::GenericError, desc)
    }

    /// The class.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The text.
    pub fn desc(&self) -> &str {
        &self.desc
    }

    /// Writes the value of an `error` member.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.begin_object();
        writer.key("class");
        writer.str(self.class.name());
        writer.key("desc");
        writer.str(&self.desc);
        writer.end_object();
    }
}

impl From<devices::CommandError> for QmpError {
    fn from(error: devices::CommandError) -> Self {
        let class = match error.class {
            devices::ErrorClass::GenericError => ErrorClass::GenericError,
            devices::ErrorClass::CommandNotFound => ErrorClass::CommandNotFound,
            devices::ErrorClass::DeviceNotActive => ErrorClass::DeviceNotActive,
            devices::ErrorClass::DeviceNotFound => ErrorClass::DeviceNotFound,
            devices::ErrorClass::KvmMissingCap => ErrorClass::KvmMissingCap,
        };
        Self::new(class, error.text)
    }
}
