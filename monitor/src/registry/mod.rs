//! Commands and the types of their arguments and results.
//!
//! Pure: no sockets, no contexts; any thread may use it.

mod command;
pub(crate) mod keyval;
mod macros;
mod qapi;
pub mod schema;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use command::Handler;
pub use command::{Command, Declaration, Kind, markers};
pub(crate) use qapi::write_list;
pub use qapi::{At, Members, Qapi, QapiStruct, mistyped, refuse_rest, take_member, unknown_word};
pub use serde_json::Value;
pub use types::{AlternateInfo, EnumInfo, EventInfo, MemberInfo, StructInfo, Type, VariantsInfo};
pub(crate) use types::{members, optional, required};

use std::collections::BTreeMap;

/// The commands of an environment, by name.
pub struct Registry<E> {
    commands: BTreeMap<&'static str, Command<E>>,
}

impl<E> Default for Registry<E> {
    fn default() -> Self {
        Self { commands: BTreeMap::new() }
    }
}

impl<E> Registry<E> {
    /// No commands.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command.
    ///
    /// # Panics
    /// When there is one of that name already: a mistake in the program.
    pub fn add(&mut self, command: impl Into<Command<E>>) {
        let command = command.into();
        let name = command.name();
        let before = self.commands.insert(name, command);
        assert!(before.is_none(), "the command '{name}' was declared twice");
    }

    /// The command of this name.
    pub fn find(&self, name: &str) -> Option<&Command<E>> {
        self.commands.get(name)
    }

    /// All commands in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Command<E>> {
        self.commands.values()
    }
}
