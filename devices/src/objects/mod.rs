//! Objects that users create beside devices: `-object`, `object-add`.
//!
//! Their types share the property machinery of devices ([`crate::qdev::property`]). The table may be read on
//! any thread; `main` changes it.
//!
//! | type | what it is |
//! |---|---|
//! | `iothread` | a core context to put queues on |
//! | `memory-backend-file`, `-memfd`, `-ram` | memory, of which one may be the machine's |
//! | `rng-random`, `rng-builtin` | sources of random bytes |
//! | `secret` | a password or a key |
//! | `throttle-group` | limits that several disks share |

mod memory;
mod secret;
#[cfg(test)]
mod tests;
mod throttle;
mod types;

pub use throttle::LIMITS;
pub(crate) use throttle::check as check_limits;
pub use types::{OBJECT_TYPES, ObjectType};

use crate::block::graph::{ThrottleGroup, ThrottleGroups};
use crate::error::CommandError;
use crate::fdset::{FdSets, Opened};
use crate::qdev::value::{Properties, Syntax};
use crate::text::is_identifier;
use reactor::Context;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vcpu::memory::{RamConfig, SpareMemory};

/// What is behind an object.
#[derive(Debug)]
pub enum Body {
    /// Nothing but its properties.
    Plain,
    /// The context that an I/O thread is bound to.
    IoThread {
        /// The context.
        context: Context,
        /// The number of its thread on the host.
        thread_id: i32,
    },
    /// Memory; `None`: the machine's own, which is mapped already.
    Memory(Option<SpareMemory>),
    /// The file that random bytes are read from.
    Random(Opened),
    /// The bytes of a secret.
    Secret(Vec<u8>),
    /// Limits that several share.
    Throttle(Arc<ThrottleGroup>),
}

/// An object.
pub struct Object {
    ty: &'static ObjectType,
    id: String,
    properties: Mutex<Properties>,
    body: Body,
}

impl Object {
    /// Its type.
    pub fn ty(&self) -> &'static ObjectType {
        self.ty
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is behind it.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// A copy of its properties.
    pub fn properties(&self) -> Properties {
        lock(&self.properties).clone()
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<Value> {
        if let (Body::Throttle(group), "limits") = (&self.body, name) {
            return Some(group.limits().to_json());
        }
        let value = lock(&self.properties).get(name).map(super::qdev::value::PropValue::to_json)?;
        Some(value)
    }

    /// Sets a property that may change while the object lives. In `main`.
    pub fn set_property(
        &self,
        name: &str,
        value: &Value,
        syntax: Syntax,
    ) -> Result<(), CommandError> {
        let mut properties = lock(&self.properties);
        let owner = self.ty.name;
        let property = properties.declared().find(|property| property.name == name);
        let property = property.ok_or_else(|| crate::qdev::value::no_property(owner, name))?;
        if !property.live {
            let text = format!("Property '{name}' can no longer be set");
            return Err(CommandError::generic(text));
        }
        let mut changed = properties.clone();
        changed.set(name, value, syntax)?;
        (self.ty.check)(&changed)?;
        if let Body::Throttle(group) = &self.body {
            group.set_limits(throttle::change(group.limits(), changed.json("limits"))?);
        }
        *properties = changed;
        Ok(())
    }
}

/// The objects of a machine, by id.
pub struct Objects {
    cores: Vec<Context>,
    /// I/O threads take the cores in turns.
    next_core: AtomicUsize,
    table: Mutex<BTreeMap<String, Arc<Object>>>,
    fdsets: FdSets,
    throttle_groups: Arc<ThrottleGroups>,
    /// The id of the machine's memory.
    machine_memory: Option<String>,
}

impl Objects {
    /// No objects. I/O threads will be bound to `cores`.
    pub fn new(cores: &[Context]) -> Arc<Self> {
        Self::in_machine(cores, FdSets::default(), None, Arc::default())
    }

    /// The same; paths of files may mean `fdsets`, and the memory back end called `machine_memory` is the
    /// machine's, mapped as [`machine_memory`](Self::machine_memory) says. Disks share
    /// `throttle_groups`.
    pub fn in_machine(
        cores: &[Context],
        fdsets: FdSets,
        machine_memory: Option<String>,
        throttle_groups: Arc<ThrottleGroups>,
    ) -> Arc<Self> {
        let (next_core, table) = (AtomicUsize::new(0), Mutex::default());
        let cores = cores.to_vec();
        Arc::new(Self { cores, next_core, table, fdsets, throttle_groups, machine_memory })
    }

    /// The memory that `arguments` describe: what a machine is to be made with. Any thread.
    pub fn machine_memory(
        arguments: &Map<String, Value>,
        syntax: Syntax,
    ) -> Result<RamConfig, CommandError> {
        let (ty, id, properties) = Self::parse(arguments, syntax)?;
        if ty.parent != memory::PARENT {
            return Err(CommandError::generic(format!("Memory backend '{id}' not found")));
        }
        Ok(memory::config(&properties))
    }

    /// Creates the object that `arguments` describe: `qom-type`, `id` and properties. In `main`.
    pub async fn add(
        &self,
        arguments: &Map<String, Value>,
        syntax: Syntax,
    ) -> Result<(), CommandError> {
        let (ty, id, properties) = Self::parse(arguments, syntax)?;
        self.refuse_duplicate(id)?;
        let body = if ty.parent == memory::PARENT && self.machine_memory.as_deref() == Some(id) {
            Body::Memory(None)
        } else {
            (ty.make)(self, id, &properties).await?
        };
        // Another one may have come while this one was being made.
        self.refuse_duplicate(id)?;
        let id = id.to_owned();
        let object = Object { ty, id: id.clone(), properties: Mutex::new(properties), body };
        self.lock().insert(id, Arc::new(object));
        Ok(())
    }

    /// The type, the id and the properties that `arguments` name, checked.
    fn parse(
        arguments: &Map<String, Value>,
        syntax: Syntax,
    ) -> Result<(&'static ObjectType, &str, Properties), CommandError> {
        let ty = Self::name(arguments, "qom-type")?;
        let ty = OBJECT_TYPES.iter().find(|known| known.name == ty).ok_or_else(|| {
            let text = format!("Parameter 'qom-type' does not accept value '{ty}'");
            CommandError::generic(text)
        })?;
        let id = Self::name(arguments, "id")?;
        let mut properties = Properties::defaults(ty.name, ty.properties());
        let mut arguments = arguments.clone();
        if ty.name == "throttle-group"
            && let Some(limits) = throttle::take_single(&mut arguments, syntax)?
        {
            properties.set("limits", &limits, Syntax::Json)?;
        }
        for (name, value) in &arguments {
            if matches!(name.as_str(), "qom-type" | "id") {
                continue;
            }
            if properties.get(name).is_none() {
                return Err(CommandError::generic(match syntax {
                    Syntax::Json => format!("Parameter '{name}' is unexpected"),
                    Syntax::KeyVal => format!("Invalid parameter '{name}'"),
                }));
            }
            properties.set(name, value, syntax)?;
        }
        (ty.check)(&properties)?;
        if !is_identifier(id) {
            return Err(CommandError::generic("Parameter 'id' expects an identifier"));
        }
        Ok((ty, id, properties))
    }

    fn name<'a>(arguments: &'a Map<String, Value>, key: &str) -> Result<&'a str, CommandError> {
        match arguments.get(key) {
            None => Err(CommandError::generic(format!("Parameter '{key}' is missing"))),
            Some(Value::String(name)) => Ok(name),
            Some(_) => {
                let text = format!("Invalid parameter type for '{key}', expected: string");
                Err(CommandError::generic(text))
            }
        }
    }

    fn refuse_duplicate(&self, id: &str) -> Result<(), CommandError> {
        if !self.lock().contains_key(id) {
            return Ok(());
        }
        let text = format!("attempt to add duplicate property '{id}' to object (type 'container')");
        Err(CommandError::generic(text))
    }

    /// Removes an object; who uses it keeps what it had from it. In `main`.
    pub fn remove(&self, id: &str) -> Result<(), CommandError> {
        let mut table = self.lock();
        let in_use = match table.get(id).map(|object| &object.body) {
            Some(Body::Memory(None)) => true,
            Some(Body::Throttle(group)) => Arc::strong_count(group) > 1,
            _ => false,
        };
        if in_use {
            let text = format!("object '{id}' is in use, can not be deleted");
            return Err(CommandError::generic(text));
        }
        let removed = table.remove(id);
        drop(table);
        removed.map(drop).ok_or_else(|| CommandError::generic(format!("object '{id}' not found")))
    }

    /// The object of this id. Any thread.
    pub fn find(&self, id: &str) -> Option<Arc<Object>> {
        self.lock().get(id).cloned()
    }

    /// All objects, by id. Any thread.
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.lock().values().cloned().collect()
    }

    /// The context that the I/O thread with this id or path is bound to. Any thread.
    pub fn iothread(&self, name: &str) -> Option<Context> {
        let object = self.find(name.strip_prefix("/objects/").unwrap_or(name))?;
        match object.body() {
            Body::IoThread { context, .. } => Some(context.clone()),
            _ => None,
        }
    }

    /// The core of the next I/O thread.
    fn next_core(&self) -> Result<Context, CommandError> {
        let turn = self.next_core.fetch_add(1, Ordering::Relaxed);
        let core = self.cores.get(turn % self.cores.len().max(1));
        core.cloned().ok_or_else(|| CommandError::generic("there is no core for an I/O thread"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Object>>> {
        lock(&self.table)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
