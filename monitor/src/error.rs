//! The error of a command, as it goes over the wire.

use crate::wire::Writer;

pub use devices::ErrorClass;

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
        Self::new(error.class, error.text)
    }
}
