//! Option strings for what is described by members: `type=unix,addr.path=x` as the JSON that it stands
//! for.

use super::qapi::{At, Members};
use super::types::{StructInfo, Type};
use crate::error::QmpError;
use devices::qdev::value::parse_size;
use serde_json::Value;

/// The JSON of `pairs`, all of whose values are strings. A dot in a key leads into a member. The
/// errors have QEMU's texts.
pub(crate) fn typed(info: &StructInfo, pairs: &Members) -> Result<Members, QmpError> {
    let mut nested = Members::new();
    for (key, value) in pairs {
        insert(&mut nested, key, value)?;
    }
    object(info, nested, At::Root)
}

fn insert(members: &mut Members, key: &str, value: &Value) -> Result<(), QmpError> {
    let inconsistent = || QmpError::generic(format!("Parameters '{key}.*' used inconsistently"));
    match key.split_once('.') {
        None => match members.insert(key.to_owned(), value.clone()) {
            Some(Value::Object(_)) => Err(inconsistent()),
            _ => Ok(()),
        },
        Some((first, rest)) => {
            let below = members.entry(first).or_insert_with(|| Value::Object(Members::new()));
            let below = below.as_object_mut().ok_or_else(inconsistent)?;
            insert(below, rest, value)
        }
    }
}

fn object(info: &StructInfo, mut given: Members, at: At<'_>) -> Result<Members, QmpError> {
    let mut found = Members::new();
    take(info, &mut given, &mut found, at)?;
    match given.keys().next() {
        None => Ok(found),
        Some(name) => {
            Err(QmpError::generic(format!("Invalid parameter '{}'", At::Member(&at, name))))
        }
    }
}

/// Moves the members that `info` has, its variant's included.
fn take(
    info: &StructInfo,
    given: &mut Members,
    found: &mut Members,
    at: At<'_>,
) -> Result<(), QmpError> {
    for member in info.members {
        if let Some(value) = given.remove(member.name) {
            let value = convert(&member.ty, value, At::Member(&at, member.name))?;
            found.insert(member.name.to_owned(), value);
        }
    }
    let Some(variants) = &info.variants else { return Ok(()) };
    let tag = found.get(variants.tag).and_then(Value::as_str);
    let case = variants.cases.iter().find(|(name, _)| Some(*name) == tag);
    case.map_or(Ok(()), |(_, case)| take(case, given, found, at))
}

fn convert(ty: &Type, value: Value, at: At<'_>) -> Result<Value, QmpError> {
    let expects = |what: &str| QmpError::generic(format!("Parameter '{at}' expects {what}"));
    match (ty, value) {
        (Type::Struct(info), Value::Object(members)) => {
            object(info, members, at).map(Value::Object)
        }
        (Type::Boolean, Value::String(text)) => match text.as_str() {
            "on" | "yes" | "true" | "y" => Ok(true.into()),
            "off" | "no" | "false" | "n" => Ok(false.into()),
            _ => Err(expects("'on' or 'off'")),
        },
        (Type::Integer, Value::String(text)) => {
            parse_size(&text).map(Value::from).ok_or_else(|| expects("integer"))
        }
        (_, Value::Object(members)) => {
            let name = members.keys().next().map_or("", String::as_str);
            Err(QmpError::generic(format!("Invalid parameter '{}'", At::Member(&at, name))))
        }
        // Whoever reads it says what is wrong with the rest.
        (_, value) => Ok(value),
    }
}
