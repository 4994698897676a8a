//! One object of the tree.

use super::types::{DEVICE_PROPERTIES, PropertyInfo};
use crate::error::CommandError;
use crate::objects::Object;
use crate::qdev::property::{Kind, Property};
use crate::qdev::value::{Syntax, no_property, not_writable};
use crate::qdev::{Bus, Device, DeviceState};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A part of the machine whose properties never change.
pub struct Part {
    /// Where it is.
    pub path: String,
    /// The name of its type.
    pub type_name: &'static str,
    /// Names, types and values.
    pub properties: Vec<(&'static str, &'static str, Value)>,
}

impl Part {
    /// Without properties.
    pub(super) fn new(type_name: &'static str) -> Self {
        Self { path: String::new(), type_name, properties: Vec::new() }
    }
}

/// What stands behind an object of the tree.
pub(super) enum Entity {
    Fixed(Part),
    Bus(Arc<Bus>),
    Device(Arc<Device>),
    Object(Arc<Object>),
}

/// An object of the tree.
pub struct Node {
    path: String,
    entity: Entity,
    children: BTreeMap<String, Node>,
}

impl Node {
    pub(super) fn new(path: String, entity: Entity) -> Self {
        Self { path, entity, children: BTreeMap::new() }
    }

    /// Adds what is at `path` below; `missing` makes what has to be on the way.
    pub(super) fn insert(&mut self, path: &str, entity: Entity, missing: &dyn Fn() -> Entity) {
        let mut node = self;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let below = format!("{}/{name}", node.path);
            let new = || Self::new(below, missing());
            node = node.children.entry(name.to_owned()).or_insert_with(new);
        }
        node.entity = entity;
    }

    /// Its place in the tree.
    pub fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match &self.entity {
            Entity::Fixed(part) => part.type_name,
            Entity::Bus(bus) => bus.type_name(),
            Entity::Device(device) => device.ty().name,
            Entity::Object(object) => object.ty().name,
        }
    }

    /// The objects below, in the order of their names.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.children.values()
    }

    /// The object below of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.get(name)
    }

    /// Its properties; objects below are among them.
    pub fn properties(&self) -> Vec<PropertyInfo> {
        let mut list = vec![PropertyInfo::plain("type", "string")];
        match &self.entity {
            Entity::Fixed(part) => {
                let fixed = part.properties.iter();
                list.extend(fixed.map(|(name, ty, _)| PropertyInfo::plain(name, *ty)));
            }
            Entity::Bus(_) => list.push(PropertyInfo::plain("realized", "bool")),
            Entity::Device(device) => {
                list.extend(DEVICE_PROPERTIES.map(|(name, ty)| PropertyInfo::plain(name, ty)));
                let declared = device.ty().properties();
                list.extend(declared.map(|own| PropertyInfo::plain(own.name, own.type_name())));
            }
            Entity::Object(object) => {
                let declared = object.ty().properties();
                list.extend(declared.map(|own| PropertyInfo::plain(own.name, own.type_name())));
            }
        }
        list.extend(self.children.iter().map(|(name, child)| {
            PropertyInfo::plain(name, format!("child<{}>", child.type_name()))
        }));
        list
    }

    /// The value of a property. Of children and links it is the path.
    pub fn get(&self, name: &str) -> Result<Value, CommandError> {
        if let Some(child) = self.child(name) {
            return Ok(child.path().into());
        }
        let value = match (&self.entity, name) {
            (_, "type") => Some(self.type_name().into()),
            (Entity::Fixed(part), _) => {
                let found = part.properties.iter().find(|(own, ..)| *own == name);
                found.map(|(_, _, value)| value.clone())
            }
            (Entity::Bus(bus), "realized") => Some(bus.is_open().into()),
            (Entity::Bus(_), _) => None,
            (Entity::Device(device), _) => of_device(device, name),
            (Entity::Object(object), _) => {
                let property = object.ty().properties().find(|own| own.name == name);
                property.zip(object.property(name)).map(|(own, value)| shown(own, value))
            }
        };
        value.ok_or_else(|| no_property(self.type_name(), name))
    }

    /// Sets a property. In `main`.
    pub fn set(&self, name: &str, value: &Value, syntax: Syntax) -> Result<(), CommandError> {
        let declared = match &self.entity {
            Entity::Device(device) => device.ty().properties().any(|own| own.name == name),
            Entity::Object(object) => object.ty().properties().any(|own| own.name == name),
            Entity::Fixed(_) | Entity::Bus(_) => false,
        };
        match &self.entity {
            Entity::Device(device) if declared => device.set_property(name, value, syntax),
            Entity::Object(object) if declared => object.set_property(name, value, syntax),
            _ => {
                self.get(name)?;
                Err(not_writable(self.type_name(), name))
            }
        }
    }

    /// Where the link of this name leads to.
    pub(super) fn link(&self, name: &str) -> Option<String> {
        let is_link = match &self.entity {
            Entity::Device(_) if name == "parent_bus" => true,
            Entity::Device(device) => {
                let property = device.ty().properties().find(|own| own.name == name);
                property.is_some_and(|own| matches!(own.kind, Kind::Link(_)))
            }
            _ => false,
        };
        let path = self.get(name).ok().filter(|_| is_link)?;
        path.as_str().filter(|path| !path.is_empty()).map(str::to_owned)
    }
}

fn of_device(device: &Device, name: &str) -> Option<Value> {
    let bus = device.bus();
    Some(match name {
        "parent_bus" => bus.map_or_else(String::new, |bus| bus.path().to_owned()).into(),
        "realized" => (device.state() == DeviceState::Realized).into(),
        "hotplugged" => device.hotplugged().into(),
        "hotpluggable" => bus.is_some_and(|bus| bus.kind().hotpluggable()).into(),
        _ => {
            let property = device.ty().properties().find(|own| own.name == name)?;
            match (property.kind, device.address()) {
                (Kind::PciAddress, Some(address)) => address.into(),
                _ => shown(property, device.property(name)?),
            }
        }
    })
}

/// A value as QEMU shows it: links as paths, and a number or a list where nothing was set.
fn shown(property: &Property, value: Value) -> Value {
    let unset = value.as_str() == Some("");
    match (property.kind, value.as_str()) {
        (Kind::I32 | Kind::Int, Some("")) => json!(-1),
        (Kind::Json(_), Some("")) => json!([]),
        (Kind::Link(_), Some(name)) if !unset && !name.starts_with('/') => {
            format!("{}/{name}", super::OBJECTS).into()
        }
        _ => value,
    }
}
