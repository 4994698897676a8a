//! Values that go over the wire, with their types.

use super::types::{StructInfo, Type};
use crate::error::QmpError;
use crate::wire::Writer;
use serde_json::{Map, Value};
use std::fmt;

/// The arguments of a command, or an object inside them.
pub type Members = Map<String, Value>;

/// A type of the management protocol: how it is described, read and written. The macros
/// `qapi_struct!` and `qapi_enum!` implement it.
pub trait Qapi: Sized {
    /// The description.
    const TYPE: Type;
    /// Whether a member of this type may be absent.
    const OPTIONAL: bool = false;

    /// Reads a value found at `at`; the errors have QEMU's texts.
    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError>;

    /// The value of an absent member.
    fn absent(at: At<'_>) -> Result<Self, QmpError> {
        Err(QmpError::generic(format!("Parameter '{at}' is missing")))
    }

    /// Writes the value.
    fn write(&self, writer: &mut Writer);

    /// Writes it as a member.
    fn write_member(&self, name: &str, writer: &mut Writer) {
        writer.key(name);
        self.write(writer);
    }
}

/// A [`Qapi`] type that is an object, as the arguments of a command are.
pub trait QapiStruct: Qapi {
    /// The description.
    const INFO: &'static StructInfo;

    /// Takes its members out of `members` and reads them.
    fn take_members(members: &mut Members, at: At<'_>) -> Result<Self, QmpError>;

    /// Reads it from members that are all its own.
    fn read_members(mut members: Members, at: At<'_>) -> Result<Self, QmpError> {
        let value = Self::take_members(&mut members, at)?;
        refuse_rest(&members, at)?;
        Ok(value)
    }

    /// Writes its members into an object that was begun.
    fn write_members(&self, writer: &mut Writer);
}

/// Where in the arguments a value was found, for messages: `keys[0].data`.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// The arguments as a whole.
    Root,
    /// A member of what is at the first.
    Member(&'a At<'a>, &'a str),
    /// An element of what is at the first.
    Element(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Self::Root, name) => f.write_str(name),
            Self::Member(at, name) => write!(f, "{at}.{name}"),
            Self::Element(at, n) => write!(f, "{at}[{n}]"),
        }
    }
}

/// Takes the member `name` out of `members` and reads it.
pub fn take_member<T: Qapi>(members: &mut Members, name: &str, at: At<'_>) -> Result<T, QmpError> {
    let at = At::Member(&at, name);
    match members.remove(name) {
        Some(value) => T::read(value, at),
        None => T::absent(at),
    }
}

/// Refuses members that nobody took.
pub fn refuse_rest(members: &Members, at: At<'_>) -> Result<(), QmpError> {
    match members.keys().next() {
        None => Ok(()),
        Some(name) => {
            let at = At::Member(&at, name);
            Err(QmpError::generic(format!("Parameter '{at}' is unexpected")))
        }
    }
}

/// The error for a value of the wrong type.
pub fn mistyped(at: At<'_>, expected: &str) -> QmpError {
    QmpError::generic(format!("Invalid parameter type for '{at}', expected: {expected}"))
}

/// The error for a word that is not among those of an enumeration.
pub fn unknown_word(at: At<'_>, word: &str) -> QmpError {
    let text = match at {
        At::Member(_, name) => format!("Parameter '{name}' does not accept value '{word}'"),
        _ => format!("Parameter '{at}' does not accept value '{word}'"),
    };
    QmpError::generic(text)
}

/// Writes a list.
pub(crate) fn write_list<T: Qapi>(elements: &[T], writer: &mut Writer) {
    writer.begin_array();
    for element in elements {
        writer.element();
        element.write(writer);
    }
    writer.end_array();
}

impl Qapi for String {
    const TYPE: Type = Type::String;

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(mistyped(at, "string")),
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.str(self);
    }
}

impl Qapi for bool {
    const TYPE: Type = Type::Boolean;

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        value.as_bool().ok_or_else(|| mistyped(at, "boolean"))
    }

    fn write(&self, writer: &mut Writer) {
        writer.bool(*self);
    }
}

impl Qapi for i64 {
    const TYPE: Type = Type::Integer;

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        value.as_i64().ok_or_else(|| mistyped(at, "integer"))
    }

    fn write(&self, writer: &mut Writer) {
        writer.int(*self);
    }
}

impl Qapi for u64 {
    const TYPE: Type = Type::Integer;

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        // As in QEMU, a negative number is the one with the same bits.
        let number = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        number.ok_or_else(|| mistyped(at, "integer"))
    }

    fn write(&self, writer: &mut Writer) {
        writer.uint(*self);
    }
}

impl Qapi for f64 {
    const TYPE: Type = Type::Number;

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        value.as_f64().ok_or_else(|| mistyped(at, "number"))
    }

    fn write(&self, writer: &mut Writer) {
        writer.float(*self);
    }
}

impl Qapi for Value {
    const TYPE: Type = Type::Any;

    fn read(value: Value, _: At<'_>) -> Result<Self, QmpError> {
        Ok(value)
    }

    fn write(&self, writer: &mut Writer) {
        writer.value(self);
    }
}

impl<T: Qapi> Qapi for Vec<T> {
    const TYPE: Type = Type::Array(&T::TYPE);

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        let Value::Array(elements) = value else { return Err(mistyped(at, "array")) };
        elements
            .into_iter()
            .enumerate()
            .map(|(n, element)| T::read(element, At::Element(&at, n)))
            .collect()
    }

    fn write(&self, writer: &mut Writer) {
        write_list(self, writer);
    }
}

impl<T: Qapi> Qapi for Option<T> {
    const TYPE: Type = T::TYPE;
    const OPTIONAL: bool = true;

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        T::read(value, at).map(Some)
    }

    fn absent(_: At<'_>) -> Result<Self, QmpError> {
        Ok(None)
    }

    /// Only members may be absent; elsewhere it is `null`.
    fn write(&self, writer: &mut Writer) {
        match self {
            Some(value) => value.write(writer),
            None => writer.null(),
        }
    }

    fn write_member(&self, name: &str, writer: &mut Writer) {
        if let Some(value) = self {
            value.write_member(name, writer);
        }
    }
}

/// No arguments; nothing to return.
impl Qapi for () {
    const TYPE: Type = Type::Struct(Self::INFO);

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        let Value::Object(members) = value else { return Err(mistyped(at, "object")) };
        Self::read_members(members, at)
    }

    fn write(&self, writer: &mut Writer) {
        writer.begin_object();
        writer.end_object();
    }
}

impl QapiStruct for () {
    const INFO: &'static StructInfo =
        &StructInfo { name: "", doc: "", members: &[], variants: None };

    fn take_members(_: &mut Members, _: At<'_>) -> Result<Self, QmpError> {
        Ok(())
    }

    fn write_members(&self, _: &mut Writer) {}
}
