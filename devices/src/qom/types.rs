//! Types by name, and the properties that their instances have.

use crate::error::{CommandError, ErrorClass};
use crate::objects::{OBJECT_TYPES, ObjectType};
use crate::qdev::property::Property;
use crate::qdev::{DeviceType, PCI_PROPERTIES, TYPE_TREE, TypeInfo, Types};
use serde_json::Value;

/// What every object that users make implements.
const USER_CREATABLE: &str = "user-creatable";

/// What every device has beside what its type declares.
pub(super) const DEVICE_PROPERTIES: [(&str, &str); 4] = [
    ("parent_bus", "link<bus>"),
    ("realized", "bool"),
    ("hotplugged", "bool"),
    ("hotpluggable", "bool"),
];

/// What there is to say about a property without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct PropertyInfo {
    /// Its name.
    pub name: String,
    /// The name of its type, `child<T>` and `link<T>` for objects.
    pub ty: String,
    /// What it is for.
    pub description: Option<String>,
    /// What it holds where nobody sets it.
    pub default: Option<Value>,
}

impl PropertyInfo {
    pub(super) fn plain(name: &str, ty: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ty: ty.into(), description: None, default: None }
    }

    fn declared(property: &Property) -> Self {
        Self {
            description: property.help.map(str::to_owned),
            default: property.default_json(),
            ..Self::plain(property.name, property.type_name())
        }
    }
}

/// Everything there is to a type of this name.
struct Found {
    info: TypeInfo,
    device: Option<&'static DeviceType>,
    object: Option<&'static ObjectType>,
}

fn all(types: &Types) -> impl Iterator<Item = Found> {
    let made = |name, parent| TypeInfo { name, parent: Some(parent), is_abstract: false };
    let tree = TYPE_TREE.iter().map(|info| Found { info: *info, device: None, object: None });
    let devices = types.devices().iter().map(move |ty| Found {
        info: made(ty.name, ty.parent),
        device: Some(ty),
        object: None,
    });
    let objects = OBJECT_TYPES.iter().map(move |ty| Found {
        info: made(ty.name, ty.parent),
        device: None,
        object: Some(ty),
    });
    tree.chain(devices).chain(objects)
}

/// Whether `found` is of the type called `base` or derives from it.
fn implements(found: &Found, base: &str) -> bool {
    if found.object.is_some() && base == USER_CREATABLE {
        return true;
    }
    let mut at = Some(found.info);
    while let Some(info) = at {
        if info.name == base {
            return true;
        }
        at = TYPE_TREE.iter().find(|ty| Some(ty.name) == info.parent).copied();
    }
    false
}

/// The types that are or derive from `base`; those that there are no instances of only on demand.
pub fn list_types(types: &Types, base: Option<&str>, with_abstract: bool) -> Vec<TypeInfo> {
    let wanted = |found: &Found| {
        (with_abstract || !found.info.is_abstract)
            && base.is_none_or(|base| implements(found, base))
    };
    all(types).filter(wanted).map(|found| found.info).collect()
}

/// The properties of a type's instances.
pub fn type_properties(types: &Types, name: &str) -> Result<Vec<PropertyInfo>, CommandError> {
    let found = all(types).find(|found| found.info.name == name).ok_or_else(|| {
        CommandError::new(ErrorClass::DeviceNotFound, format!("Class '{name}' not found"))
    })?;
    let mut list = vec![PropertyInfo::plain("type", "string")];
    if implements(&found, "device") {
        list.extend(DEVICE_PROPERTIES.map(|(name, ty)| PropertyInfo::plain(name, ty)));
    }
    match (found.device, found.object) {
        (Some(ty), _) => list.extend(ty.properties().map(PropertyInfo::declared)),
        (None, Some(ty)) => {
            let declared = ty.properties();
            list.extend(declared.map(|own| PropertyInfo::plain(own.name, own.type_name())));
        }
        (None, None) if implements(&found, "pci-device") => {
            list.extend(PCI_PROPERTIES.iter().map(PropertyInfo::declared));
        }
        (None, None) => {}
    }
    Ok(list)
}

/// The properties that `device_add` takes for a type.
pub fn device_properties(types: &Types, name: &str) -> Result<Vec<PropertyInfo>, CommandError> {
    let found = all(types).find(|found| found.info.name == name);
    let found = found.ok_or_else(|| CommandError::device_not_found(name))?;
    if found.info.is_abstract || !implements(&found, "device") {
        let text = "Parameter 'typename' expects a non-abstract device type";
        return Err(CommandError::generic(text));
    }
    let mut list = type_properties(types, name)?;
    list.retain(|property| {
        let common = DEVICE_PROPERTIES.iter().any(|(name, _)| *name == property.name);
        !common && property.name != "type"
    });
    Ok(list)
}
