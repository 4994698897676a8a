//! File descriptors that clients have passed (`SCM_RIGHTS`): those of a session, by name, and the
//! sets that outlive it.

use crate::error::QmpError;
use reactor::Fd;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

/// Descriptors taken with one message, as in QEMU.
pub(crate) const FDS_PER_MESSAGE_MAX: usize = 16;
/// Descriptors that a session may name.
const NAMED_MAX: usize = 256;
/// Descriptors in all sets.
const IN_SETS_MAX: usize = 1024;

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
        self.named.remove(name).map(drop).ok_or_else(|| not_found(name))
    }
}

fn not_found(name: &str) -> QmpError {
    QmpError::generic(format!("File descriptor named '{name}' not found"))
}

/// A descriptor of a set.
pub(crate) struct Entry {
    pub(crate) fd: Fd,
    pub(crate) opaque: Option<String>,
}

impl Entry {
    /// Its number in this process.
    pub(crate) fn number(&self) -> i64 {
        self.fd.as_raw_fd().into()
    }
}

/// The sets of descriptors. They belong to all sessions.
#[derive(Default)]
pub(crate) struct FdSets {
    sets: BTreeMap<i64, Vec<Entry>>,
}

impl FdSets {
    /// Adds to a set, which need not exist; without `id` to a new one. Gives the set and the number.
    pub(crate) fn add(
        &mut self,
        id: Option<i64>,
        fd: Fd,
        opaque: Option<String>,
    ) -> Result<(i64, i64), QmpError> {
        if id.is_some_and(|id| id < 0) {
            let text = "Parameter 'fdset-id' expects a non-negative value";
            return Err(QmpError::generic(text));
        }
        if self.sets.values().map(Vec::len).sum::<usize>() >= IN_SETS_MAX {
            let text = format!("The sets hold {IN_SETS_MAX} descriptors: remove some first");
            return Err(QmpError::generic(text));
        }
        // A set has a descriptor, so that one of these is free.
        let ids = 0..=IN_SETS_MAX as i64;
        let free = || ids.clone().find(|id| !self.sets.contains_key(id));
        let id = id.or_else(free).unwrap_or_default();
        let entry = Entry { fd, opaque };
        let number = entry.number();
        self.sets.entry(id).or_default().push(entry);
        Ok((id, number))
    }

    /// Removes one descriptor of a set, or all.
    pub(crate) fn remove(&mut self, id: i64, number: Option<i64>) -> Result<(), QmpError> {
        let missing = || match number {
            Some(number) => not_found(&format!("fdset-id:{id}, fd:{number}")),
            None => not_found(&format!("fdset-id:{id}")),
        };
        let entries = self.sets.get_mut(&id).ok_or_else(missing)?;
        let before = entries.len();
        entries.retain(|entry| number.is_some_and(|number| entry.number() != number));
        if entries.len() == before {
            return Err(missing());
        }
        if entries.is_empty() {
            self.sets.remove(&id);
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &[Entry])> {
        self.sets.iter().map(|(id, entries)| (*id, entries.as_slice()))
    }

    pub(crate) fn clear(&mut self) {
        self.sets.clear();
    }
}
