//! What can be wrong with a back end.

use crate::chardev::error_text;
use crate::error::CommandError;
use std::io;

/// Why a back end cannot be made, or found.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The id is taken.
    #[error("Duplicate ID '{0}'")]
    Duplicate(String),
    /// The id cannot be one.
    #[error("Parameter 'id' expects an identifier")]
    BadId,
    /// There is no back end of this id.
    #[error("Device '{0}' not found")]
    NotFound(String),
    /// Another device has it.
    #[error("netdev '{0}' is in use by another device")]
    InUse(String),
    /// Options that exclude one another, or that are missing.
    #[error("{0}")]
    Options(String),
    /// The kernel refused.
    #[error("{what}: {}", error_text(source))]
    System {
        /// What was tried.
        what: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl NetError {
    pub(super) fn system(what: impl Into<String>, source: io::Error) -> Self {
        Self::System { what: what.into(), source }
    }
}

impl From<NetError> for CommandError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::NotFound(name) => Self::device_not_found(&name),
            other => Self::generic(other.to_string()),
        }
    }
}
