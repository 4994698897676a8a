//! Introspection: the declarations in the form of `query-qmp-schema` (QEMU's `qapi/introspect.json`).
//!
//! Types get numbers instead of names, as in QEMU, so that nobody relies on names.

use super::qapi::{At, Members, Qapi, QapiStruct, mistyped, take_member};
use super::types::{
    AlternateInfo, EnumInfo, EventInfo, MemberInfo, StructInfo, Type, VariantsInfo,
};
use super::{Registry, Value};
use crate::error::QmpError;
use crate::wire::Writer;
use crate::{qapi_enum, qapi_struct};
use std::collections::BTreeMap;

qapi_enum! {
    /// What an entry of the schema describes.
    pub enum SchemaMetaType {
        /// A type that JSON has.
        Builtin = "builtin",
        /// A set of words.
        Enum = "enum",
        /// A list.
        Array = "array",
        /// A set of members.
        Object = "object",
        /// One of several types.
        Alternate = "alternate",
        /// A command.
        Command = "command",
        /// An event.
        Event = "event",
    }
}

qapi_enum! {
    /// A type of JSON.
    pub enum JsonType {
        /// A string.
        String = "string",
        /// Any number.
        Number = "number",
        /// A number without a fraction.
        Int = "int",
        /// `true` or `false`.
        Boolean = "boolean",
        /// `null`.
        Null = "null",
        /// An object.
        Object = "object",
        /// An array.
        Array = "array",
        /// Anything.
        Value = "value",
    }
}

qapi_struct! {
    /// A type that JSON has.
    pub struct SchemaInfoBuiltin {
        /// Which one.
        pub json_type: JsonType = "json-type",
    }
}

qapi_struct! {
    /// A word.
    pub struct SchemaInfoEnumMember {
        /// The word.
        pub name: String = "name",
        /// Its features.
        pub features: Option<Vec<String>> = "features",
    }
}

qapi_struct! {
    /// A set of words.
    pub struct SchemaInfoEnum {
        /// The words.
        pub members: Vec<SchemaInfoEnumMember> = "members",
        /// The words again, for older clients.
        pub values: Vec<String> = "values",
    }
}

qapi_struct! {
    /// A list.
    pub struct SchemaInfoArray {
        /// The type of its elements.
        pub element_type: String = "element-type",
    }
}

qapi_struct! {
    /// A member of an object.
    pub struct SchemaInfoObjectMember {
        /// Its name.
        pub name: String = "name",
        /// Its type.
        pub ty: String = "type",
        /// Present, and null, where the member is optional.
        pub default: Option<Value> = "default",
        /// Its features.
        pub features: Option<Vec<String>> = "features",
    }
}

qapi_struct! {
    /// Members that an object has in one case.
    pub struct SchemaInfoObjectVariant {
        /// The word of the tag.
        pub case: String = "case",
        /// The type with the members.
        pub ty: String = "type",
    }
}

qapi_struct! {
    /// A set of members.
    pub struct SchemaInfoObject {
        /// The members.
        pub members: Vec<SchemaInfoObjectMember> = "members",
        /// The member that decides about the variants.
        pub tag: Option<String> = "tag",
        /// More members, depending on the tag.
        pub variants: Option<Vec<SchemaInfoObjectVariant>> = "variants",
    }
}

qapi_struct! {
    /// One of the types.
    pub struct SchemaInfoAlternateMember {
        /// The type.
        pub ty: String = "type",
    }
}

qapi_struct! {
    /// One of several types.
    pub struct SchemaInfoAlternate {
        /// The types.
        pub members: Vec<SchemaInfoAlternateMember> = "members",
    }
}

qapi_struct! {
    /// A command.
    pub struct SchemaInfoCommand {
        /// The object type of the arguments.
        pub arg_type: String = "arg-type",
        /// The type of what it returns.
        pub ret_type: String = "ret-type",
        /// Whether it may run out of band; absent: no.
        pub allow_oob: Option<bool> = "allow-oob",
    }
}

qapi_struct! {
    /// An event.
    pub struct SchemaInfoEvent {
        /// The object type of its data.
        pub arg_type: String = "arg-type",
    }
}

qapi_struct! {
    /// What all entries have.
    pub struct SchemaInfoBase {
        /// The name of a command, an event or a built-in type; else a number.
        pub name: String = "name",
        /// What the entry describes.
        pub meta_type: SchemaMetaType = "meta-type",
        /// Its features.
        pub features: Option<Vec<String>> = "features",
    }
}

/// An entry of the schema.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaInfo {
    /// The name of a command, an event or a built-in type; else a number.
    pub name: String,
    /// Its features.
    pub features: Option<Vec<String>>,
    /// What it describes.
    pub data: SchemaData,
}

macro_rules! schema_data {
    ($( $variant:ident($ty:ty), )*) => {
        /// What an entry of the schema says about its subject.
        #[derive(Clone, Debug, PartialEq)]
        pub enum SchemaData {
            $( #[doc = concat!("[`", stringify!($ty), "`]")] $variant($ty), )*
        }

        impl SchemaData {
            /// What the entry describes.
            pub fn meta_type(&self) -> SchemaMetaType {
                match self {
                    $( Self::$variant(_) => SchemaMetaType::$variant, )*
                }
            }

            fn take(kind: SchemaMetaType, members: &mut Members, at: At<'_>) -> Result<Self, QmpError> {
                match kind {
                    $( SchemaMetaType::$variant => <$ty>::take_members(members, at).map(Self::$variant), )*
                }
            }

            fn write_members(&self, writer: &mut Writer) {
                match self {
                    $( Self::$variant(data) => data.write_members(writer), )*
                }
            }
        }

        const CASES: &[(&str, &StructInfo)] =
            &[$( (SchemaMetaType::$variant.name(), <$ty>::INFO), )*];
    };
}

schema_data! {
    Builtin(SchemaInfoBuiltin),
    Enum(SchemaInfoEnum),
    Array(SchemaInfoArray),
    Object(SchemaInfoObject),
    Alternate(SchemaInfoAlternate),
    Command(SchemaInfoCommand),
    Event(SchemaInfoEvent),
}

impl Qapi for SchemaInfo {
    const TYPE: Type = Type::Struct(Self::INFO);

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        let Value::Object(members) = value else { return Err(mistyped(at, "object")) };
        Self::read_members(members, at)
    }

    fn write(&self, writer: &mut Writer) {
        writer.begin_object();
        self.write_members(writer);
        writer.end_object();
    }
}

impl QapiStruct for SchemaInfo {
    const INFO: &'static StructInfo = &StructInfo {
        name: "SchemaInfo",
        doc: "An entry of the schema.\n",
        members: SchemaInfoBase::INFO.members,
        variants: Some(VariantsInfo { tag: "meta-type", cases: CASES }),
    };

    fn take_members(members: &mut Members, at: At<'_>) -> Result<Self, QmpError> {
        let name = take_member(members, "name", at)?;
        let kind = take_member(members, "meta-type", at)?;
        let features = take_member(members, "features", at)?;
        Ok(Self { name, features, data: SchemaData::take(kind, members, at)? })
    }

    fn write_members(&self, writer: &mut Writer) {
        self.name.write_member("name", writer);
        self.data.meta_type().write_member("meta-type", writer);
        self.features.write_member("features", writer);
        self.data.write_members(writer);
    }
}

/// The schema of these commands and events: first they, then the types that they need.
pub fn introspect<E>(registry: &Registry<E>, events: &[EventInfo]) -> Vec<SchemaInfo> {
    let mut schema = Schema::default();
    for command in registry.iter() {
        let data = SchemaData::Command(SchemaInfoCommand {
            arg_type: schema.object(command.arguments()),
            ret_type: schema.name(&command.returns()),
            allow_oob: command.allow_oob().then_some(true),
        });
        let features = command.features().iter().map(|&feature| feature.to_owned()).collect();
        let features = Some(features).filter(|features: &Vec<_>| !features.is_empty());
        schema.roots.push(SchemaInfo { name: command.name().to_owned(), features, data });
    }
    for event in events {
        let data = SchemaData::Event(SchemaInfoEvent { arg_type: schema.object(event.data) });
        schema.roots.push(entry(event.name.to_owned(), data));
    }
    schema.roots.append(&mut schema.types);
    schema.roots
}

fn entry(name: String, data: SchemaData) -> SchemaInfo {
    SchemaInfo { name, features: None, data }
}

/// A schema being written down.
#[derive(Default)]
struct Schema {
    roots: Vec<SchemaInfo>,
    types: Vec<SchemaInfo>,
    /// The names given to types, by the names in the declarations.
    names: BTreeMap<String, String>,
}

impl Schema {
    /// The name of a type, which is described if it has not been yet.
    fn name(&mut self, ty: &Type) -> String {
        let (name, json) = match ty {
            Type::Struct(info) => return self.object(info),
            Type::Enum(info) => return self.words(info),
            Type::Array(element) => return self.list(element),
            Type::Alternate(info) => return self.alternate(info),
            Type::Later(ty) => return self.name(&ty()),
            Type::String => ("str", JsonType::String),
            Type::Integer => ("int", JsonType::Int),
            Type::Number => ("number", JsonType::Number),
            Type::Boolean => ("bool", JsonType::Boolean),
            Type::Null => ("null", JsonType::Null),
            Type::Any => ("any", JsonType::Value),
        };
        if self.names.insert(name.to_owned(), name.to_owned()).is_none() {
            let data = SchemaData::Builtin(SchemaInfoBuiltin { json_type: json });
            self.types.push(entry(name.to_owned(), data));
        }
        name.to_owned()
    }

    /// Gives a number to a type. `Err`: it has one.
    fn number(&mut self, declared: &str) -> Result<String, String> {
        if let Some(name) = self.names.get(declared) {
            return Err(name.clone());
        }
        let number = self.names.len().to_string();
        self.names.insert(declared.to_owned(), number.clone());
        Ok(number)
    }

    fn list(&mut self, element: &Type) -> String {
        let element_type = self.name(element);
        let name = format!("[{element_type}]");
        if self.names.insert(name.clone(), name.clone()).is_none() {
            let data = SchemaData::Array(SchemaInfoArray { element_type });
            self.types.push(entry(name.clone(), data));
        }
        name
    }

    fn words(&mut self, info: &EnumInfo) -> String {
        let name = match self.number(info.name) {
            Ok(new) => new,
            Err(known) => return known,
        };
        let values: Vec<String> = info.values.iter().map(|(word, _)| (*word).to_owned()).collect();
        let member = |name: &String| SchemaInfoEnumMember { name: name.clone(), features: None };
        let members = values.iter().map(member).collect();
        self.types.push(entry(name.clone(), SchemaData::Enum(SchemaInfoEnum { members, values })));
        name
    }

    fn alternate(&mut self, info: &AlternateInfo) -> String {
        let name = match self.number(info.name) {
            Ok(new) => new,
            Err(known) => return known,
        };
        let member = |ty: &Type| SchemaInfoAlternateMember { ty: self.name(ty) };
        let members = info.members.iter().map(member).collect();
        let data = SchemaData::Alternate(SchemaInfoAlternate { members });
        self.types.push(entry(name.clone(), data));
        name
    }

    fn object(&mut self, info: &StructInfo) -> String {
        // All objects without members are one type, whatever they are called.
        let empty = info.members.is_empty() && info.variants.is_none();
        let name = match self.number(if empty { "" } else { info.name }) {
            Ok(new) => new,
            Err(known) => return known,
        };
        let members = info.members.iter().map(|member| self.member(member)).collect();
        let variants = info.variants.as_ref().map(|variants| self.variants(variants));
        let tag = info.variants.as_ref().map(|variants| variants.tag.to_owned());
        let data = SchemaData::Object(SchemaInfoObject { members, tag, variants });
        self.types.push(entry(name.clone(), data));
        name
    }

    fn member(&mut self, member: &MemberInfo) -> SchemaInfoObjectMember {
        SchemaInfoObjectMember {
            name: member.name.to_owned(),
            ty: self.name(&member.ty),
            default: member.optional.then_some(Value::Null),
            features: None,
        }
    }

    fn variants(&mut self, variants: &VariantsInfo) -> Vec<SchemaInfoObjectVariant> {
        let variant = |(case, info): &(&str, &StructInfo)| SchemaInfoObjectVariant {
            case: (*case).to_owned(),
            ty: self.object(info),
        };
        variants.cases.iter().map(variant).collect()
    }
}
