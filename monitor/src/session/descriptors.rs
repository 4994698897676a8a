//! File descriptors that clients have passed (`SCM_RIGHTS`): those of a session, by name. The sets
//! that outlive it are [`devices::fdset`]'s.

use crate::error::QmpError;
use reactor::Fd;
use std::collections::BTreeMap;

/// Descriptors taken with one message, as in QEMU.
pub(crate) const FDS_PER_MESSAGE_MAX: usize = 16;
/// Descriptors that a session may name.
const NAMED_MAX: usize = 256;

/// The descriptors of a session.
#[derive(Default)]
pub(crate) struct Descriptors {
    /// Came with the latest message that brought any, and wait for a command to take them.
    arrived: Vec<Fd>,
    named: BTreeMap<String, Fd>,
}

impl Descriptors {
    /// Those that came before and were not taken are closed.
    pub(crate) fn arrive(&mut self, fds: Vec<Fd>) {
        self.arrived = fds;
    }

    /// The first one that arrived; the others are closed.
    pub(crate) fn take_arrived(&mut self) -> Result<Fd, QmpError> {
        let first = std::mem::take(&mut self.arrived).into_iter().next();
        first.ok_or_else(|| QmpError::generic("No file descriptor supplied via SCM_RIGHTS"))
    }

    /// `getfd`
    pub(crate) fn name(&mut self, name: String) -> Result<(), QmpError> {
        let fd = self.take_arrived()?;
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            let text = "Parameter 'fdname' expects a name not starting with a digit";
            return Err(QmpError::generic(text));
        }
        if self.named.len() >= NAMED_MAX && !self.named.contains_key(&name) {
            let text = format!("This session has named {NAMED_MAX} descriptors: close some first");
            return Err(QmpError::generic(text));
        }
        self.named.insert(name, fd);
        Ok(())
    }

    /// Takes a named one out, for a command that uses it.
    pub(crate) fn take_named(&mut self, name: &str) -> Result<Fd, QmpError> {
        let text = || format!("File descriptor named '{name}' has not been found");
        self.named.remove(name).ok_or_else(|| QmpError::generic(text()))
    }

    /// `closefd`
    pub(crate) fn close(&mut self, name: &str) -> Result<(), QmpError> {
        let text = || format!("File descriptor named '{name}' not found");
        self.named.remove(name).map(drop).ok_or_else(|| QmpError::generic(text()))
    }
}
