//! What can stop a run.

use std::fmt;

/// Why a run, or one case of it, came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line.
    #[error("{0}\nTry: perf --help")]
    Usage(String),
    /// The system refused something.
    #[error("{what}: {why}")]
    Io {
        /// What was asked.
        what: String,
        /// What stopped it.
        why: String,
    },
    /// A program under test did something else than it should.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    /// The system refused `what`.
    pub fn io(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Io { what: what.into(), why: why.to_string() }
    }

    /// A program under test misbehaved.
    pub fn unexpected(text: impl Into<String>) -> Self {
        Self::Unexpected(text.into())
    }
}
