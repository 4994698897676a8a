//! The object tree and the types of objects.

use crate::core::Env;
use crate::error::QmpError;
use crate::machine::Cpu;
use crate::qapi_struct;
use crate::registry::{Command, Registry, Value};
use devices::qdev::value::Syntax;
use devices::qom::{self, ObjectTree, Part, PropertyInfo};
use serde_json::json;

qapi_struct! {
    /// A property of an object.
    pub struct ObjectPropertyInfo {
        /// Its name.
        pub name: String = "name",
        /// Its type: a type of QAPI, or `child<T>` and `link<T>` for an object of type T.
        pub ty: String = "type",
        /// What it is for.
        pub description: Option<String> = "description",
        /// What it holds where nobody sets it.
        pub default_value: Option<Value> = "default-value",
    }
}

qapi_struct! {
    /// A type.
    pub struct ObjectTypeInfo {
        /// Its name.
        pub name: String = "name",
        /// There are instances of derived types only; absent where there are some of it.
        pub is_abstract: Option<bool> = "abstract",
        /// The type that it derives from.
        pub parent: Option<String> = "parent",
    }
}

qapi_struct! {
    /// An object of the tree.
    pub struct QomList {
        /// From the root, or a part of that where it is unambiguous.
        pub path: String = "path",
    }
}

qapi_struct! {
    /// A property of an object.
    pub struct QomGet {
        /// The object: from the root, or a part of that where it is unambiguous.
        pub path: String = "path",
        /// The name of the property.
        pub property: String = "property",
    }
}

qapi_struct! {
    /// A value for a property of an object.
    pub struct QomSet {
        /// The object: from the root, or a part of that where it is unambiguous.
        pub path: String = "path",
        /// The name of the property.
        pub property: String = "property",
        /// The value.
        pub value: Value = "value",
    }
}

qapi_struct! {
    /// Which types.
    pub struct QomListTypes {
        /// Those that are or derive from this one.
        pub implements: Option<String> = "implements",
        /// Also those that there are no instances of.
        pub with_abstract: Option<bool> = "abstract",
    }
}

qapi_struct! {
    /// A type.
    pub struct TypeName {
        /// Its name.
        pub typename: String = "typename",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let list = Command::plain("qom-list", "The properties of an object.", qom_list);
    registry.add(list.allow_preconfig());
    let get = Command::plain("qom-get", "The value of a property.", qom_get);
    registry.add(get.allow_preconfig());
    let set = Command::coroutine("qom-set", "Sets a property.", qom_set);
    registry.add(set.allow_preconfig());
    let types = Command::plain("qom-list-types", "The types of objects.", qom_list_types);
    registry.add(types.allow_preconfig());
    let properties = Command::plain(
        "qom-list-properties",
        "The properties that the objects of a type have.",
        qom_list_properties,
    );
    registry.add(properties.allow_preconfig());
    let properties = Command::plain(
        "device-list-properties",
        "The properties that device_add takes for a type.",
        device_list_properties,
    );
    registry.add(properties.allow_preconfig());
}

/// The vCPU where query-cpus-fast says that it is.
fn part((index, cpu): (usize, Cpu)) -> Part {
    let properties = [("socket-id", cpu.socket), ("core-id", cpu.core), ("thread-id", cpu.thread)];
    Part {
        path: format!("/machine/unattached/cpu[{index}]"),
        type_name: "host-x86_64-cpu",
        properties: properties.map(|(name, id)| (name, "int32", json!(id))).into(),
    }
}

/// The tree at this moment.
pub(crate) fn tree(env: &Env) -> Result<ObjectTree, QmpError> {
    let cpus = env.machine()?.cpus();
    Ok(ObjectTree::new(env.devices()?, cpus.into_iter().enumerate().map(part)))
}

fn infos(list: Vec<PropertyInfo>) -> Vec<ObjectPropertyInfo> {
    let info = |property: PropertyInfo| ObjectPropertyInfo {
        name: property.name,
        ty: property.ty,
        description: property.description,
        default_value: property.default,
    };
    list.into_iter().map(info).collect()
}

pub(crate) fn qom_list(
    env: &Env,
    QomList { path }: QomList,
) -> Result<Vec<ObjectPropertyInfo>, QmpError> {
    Ok(infos(tree(env)?.resolve(&path)?.properties()))
}

pub(crate) fn qom_get(env: &Env, QomGet { path, property }: QomGet) -> Result<Value, QmpError> {
    Ok(tree(env)?.resolve(&path)?.get(&property)?)
}

/// Sets a property to a value written like this. In main.
pub(crate) fn set(env: &Env, asked: &QomSet, syntax: Syntax) -> Result<(), QmpError> {
    let tree = tree(env)?;
    Ok(tree.resolve(&asked.path)?.set(&asked.property, &asked.value, syntax)?)
}

async fn qom_set(env: Env, asked: QomSet) -> Result<(), QmpError> {
    set(&env, &asked, Syntax::Json)
}

fn qom_list_types(
    env: &Env,
    QomListTypes { implements, with_abstract }: QomListTypes,
) -> Result<Vec<ObjectTypeInfo>, QmpError> {
    let with_abstract = with_abstract == Some(true);
    let types = env.devices()?.types();
    let types = qom::list_types(types, implements.as_deref(), with_abstract);
    let info = |ty: devices::qdev::TypeInfo| ObjectTypeInfo {
        name: ty.name.to_owned(),
        is_abstract: ty.is_abstract.then_some(true),
        parent: ty.parent.map(str::to_owned),
    };
    Ok(types.into_iter().map(info).collect())
}

fn qom_list_properties(
    env: &Env,
    TypeName { typename }: TypeName,
) -> Result<Vec<ObjectPropertyInfo>, QmpError> {
    Ok(infos(qom::type_properties(env.devices()?.types(), &typename)?))
}

fn device_list_properties(
    env: &Env,
    TypeName { typename }: TypeName,
) -> Result<Vec<ObjectPropertyInfo>, QmpError> {
    Ok(infos(qom::device_properties(env.devices()?.types(), &typename)?))
}
