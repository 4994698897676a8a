//! The commands, a file for each group. Names, arguments, results and errors are those of QEMU 10;
//! the ones that QEMU lacks are marked.

#![expect(
    clippy::unnecessary_wraps,
    reason = "handlers have one shape, whether they can fail or not"
)]

pub(crate) mod actions;
pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod chardev;
pub(crate) mod chardev_backend;
pub(crate) mod command_line;
mod cpu;
pub(crate) mod descriptors;
pub(crate) mod guest;
pub(crate) mod inspect;
pub(crate) mod memory;
pub(crate) mod monitor;
pub(crate) mod net;
pub(crate) mod net_backend;
pub(crate) mod objects;
pub(crate) mod qdev;
pub(crate) mod qom;
pub(crate) mod reactors;
pub(crate) mod run_state;
pub(crate) mod schema;
pub(crate) mod sessions;

use crate::core::Env;
use crate::registry::{Qapi, Registry};
use crate::wire::{Style, Writer};

/// All commands.
pub(crate) fn registry() -> Registry<Env> {
    let mut registry = Registry::new();
    monitor::register(&mut registry);
    actions::register(&mut registry);
    command_line::register(&mut registry);
    run_state::register(&mut registry);
    inspect::register(&mut registry);
    guest::register(&mut registry);
    cpu::register(&mut registry);
    memory::register(&mut registry);
    qdev::register(&mut registry);
    objects::register(&mut registry);
    qom::register(&mut registry);
    reactors::register(&mut registry);
    schema::register(&mut registry);
    block::register(&mut registry);
    descriptors::register(&mut registry);
    sessions::register(&mut registry);
    chardev::register(&mut registry);
    net::register(&mut registry);
    balloon::register(&mut registry);
    registry
}

/// The first message of a session.
pub(crate) fn greeting(style: Style) -> Vec<u8> {
    let mut writer = Writer::new(style);
    writer.begin_object();
    writer.key("QMP");
    writer.begin_object();
    writer.key("version");
    inspect::version().write(&mut writer);
    writer.key("capabilities");
    writer.begin_array();
    writer.element();
    writer.str(monitor::QmpCapability::Oob.name());
    writer.end_array();
    writer.end_object();
    writer.end_object();
    writer.into_message()
}
