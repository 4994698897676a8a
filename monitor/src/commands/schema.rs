//! `query-qmp-schema`: what this monitor accepts, returns and tells.

use crate::core::Env;
use crate::error::QmpError;
use crate::event::EVENTS;
use crate::registry::schema::{SchemaInfo, introspect};
use crate::registry::{At, Command, Qapi, Registry, Type, Value, write_list};
use crate::wire::{Style, Writer};
use std::sync::Arc;

/// The schema, written once for all who ask. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Introspection {
    entries: Arc<[SchemaInfo]>,
    line: Arc<[u8]>,
}

impl Introspection {
    pub(crate) fn new<E>(registry: &Registry<E>) -> Self {
        Self::of(introspect(registry, EVENTS))
    }

    fn of(entries: Vec<SchemaInfo>) -> Self {
        let mut writer = Writer::new(Style::Line);
        entries.write(&mut writer);
        Self { entries: entries.into(), line: writer.into_bytes().into() }
    }
}

impl Qapi for Introspection {
    const TYPE: Type = <Vec<SchemaInfo>>::TYPE;

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        Vec::read(value, at).map(Self::of)
    }

    fn write(&self, writer: &mut Writer) {
        match writer.style() {
            Style::Line => writer.raw(&self.line),
            Style::Pretty => write_list(&self.entries, writer),
        }
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let schema = Command::plain(
        "query-qmp-schema",
        "All commands, events and their types. Types are numbered: only commands, events, members \
         and words have names to rely on.",
        query_qmp_schema,
    );
    registry.add(schema.allow_preconfig());
}

fn query_qmp_schema(env: &Env, (): ()) -> Result<Introspection, QmpError> {
    Ok(env.core.schema.get_or_init(|| Introspection::new(&env.core.registry)).clone())
}
