//! The object tree as management clients walk it: `/machine`, its devices, `/objects`.
//!
//! A snapshot, made for each command from the device tree and the objects: what changes later is not in it, and
//! devices in it stay alive as long as it does. It may be taken on any thread; properties are set in `main`.

mod node;
mod types;

pub use node::{Node, Part};
pub use types::{PropertyInfo, device_properties, list_types, type_properties};

use crate::error::CommandError;
use crate::qdev::property::Kind;
use crate::qdev::value::Properties;
use crate::qdev::{Bus, DeviceTree, Visit, is_system_bus};
use node::Entity;
use serde_json::Value;
use std::sync::Arc;

/// Where objects are.
const OBJECTS: &str = "/objects";

/// The tree of one moment.
pub struct ObjectTree {
    root: Node,
}

impl ObjectTree {
    /// The tree of these devices, their objects, and `parts` of the machine that neither of them has.
    pub fn new(tree: &DeviceTree, parts: impl IntoIterator<Item = Part>) -> Self {
        let container = || Entity::Fixed(Part::new("container"));
        let bare = is_system_bus(tree.root());
        let mut entries: Vec<(String, Entity)> = [
            ("/machine", if bare { "none-machine" } else { "pc-machine" }),
            ("/machine/peripheral", "container"),
            ("/machine/peripheral-anon", "container"),
            ("/machine/unattached", "container"),
            (OBJECTS, "container"),
        ]
        .map(|(path, ty)| (path.to_owned(), Entity::Fixed(Part::new(ty))))
        .into();
        if !bare {
            let bridge = Entity::Fixed(Part::new("i440FX-pcihost"));
            entries.push(("/machine/i440fx".to_owned(), bridge));
        }
        let bus = |bus: &Arc<Bus>| (bus.path().to_owned(), Entity::Bus(Arc::clone(bus)));
        entries.push(bus(tree.root()));
        let guard = rcu::read();
        let _all = tree.root().walk(
            &guard,
            &mut |device| {
                entries.push((device.path().to_owned(), Entity::Device(Arc::clone(device))));
                entries.extend(device.buses().iter().map(bus));
                Visit::Continue(())
            },
            &mut |_| Visit::Continue(()),
        );
        drop(guard);
        for object in tree.resources().objects.all() {
            entries.push((format!("{OBJECTS}/{}", object.id()), Entity::Object(object)));
        }
        entries.extend(parts.into_iter().map(|part| (part.path.clone(), Entity::Fixed(part))));
        // Parents ahead of their children.
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut root = Node::new(String::new(), container());
        for (path, entity) in entries {
            root.insert(&path, entity, &container);
        }
        Self { root }
    }

    /// What is at `path`: from the root where it begins with a slash, else anywhere where it is
    /// unambiguous. Links are followed.
    pub fn resolve(&self, path: &str) -> Result<&Node, CommandError> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if path.starts_with('/') {
            let found = self.follow(&self.root, &parts);
            return found.ok_or_else(|| CommandError::device_not_found(path));
        }
        let mut found = Vec::new();
        self.search(&self.root, &parts, &mut found);
        match found[..] {
            [] => Err(CommandError::device_not_found(path)),
            [node] => Ok(node),
            _ => Err(CommandError::generic(format!("Path '{path}' is ambiguous"))),
        }
    }

    fn search<'t>(&'t self, from: &'t Node, parts: &[&str], found: &mut Vec<&'t Node>) {
        found.extend(self.follow(from, parts));
        for child in from.children() {
            if found.len() < 2 {
                self.search(child, parts, found);
            }
        }
    }

    fn follow<'t>(&'t self, from: &'t Node, parts: &[&str]) -> Option<&'t Node> {
        parts.iter().try_fold(from, |node, name| match node.child(name) {
            Some(child) => Some(child),
            None => self.canonical(&node.link(name)?),
        })
    }

    fn canonical(&self, path: &str) -> Option<&Node> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(&self.root, |node, name| node.child(name))
    }
}

/// Removes the object with this id, unless a device uses it. In `main`.
pub fn remove_object(tree: &DeviceTree, id: &str) -> Result<(), CommandError> {
    let objects = &tree.resources().objects;
    let used = || tree.devices().iter().any(|device| names(&device.properties(), id));
    if objects.find(id).is_some() && used() {
        let text = format!("object '{id}' is in use, can not be deleted");
        return Err(CommandError::generic(text));
    }
    objects.remove(id)
}

/// Whether one of the properties names the object.
fn names(properties: &Properties, id: &str) -> bool {
    let is_it = |name: &str| name.strip_prefix("/objects/").unwrap_or(name) == id;
    let of_element = |element: &Value| {
        let name = element.get("iothread").and_then(Value::as_str);
        name.is_some_and(is_it)
    };
    properties.declared().any(|property| match property.kind {
        Kind::Link(_) => properties.text(property.name).is_some_and(is_it),
        Kind::Json(_) => {
            let list = properties.json(property.name).and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(of_element))
        }
        _ => false,
    })
}
