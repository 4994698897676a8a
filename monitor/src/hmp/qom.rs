//! The object tree as text.

use super::args::{Args, Failure};
use crate::commands::objects::{self, ObjectDel};
use crate::commands::qom::{self, QomGet, QomList, QomSet};
use crate::core::Env;
use crate::error::{ErrorClass, QmpError};
use crate::wire::{Style, Writer};
use devices::qdev::keyval;
use devices::qdev::value::Syntax;
use devices::qom::Node;
use serde_json::Value;
use std::fmt::Write as _;

pub(super) async fn object_add(env: &Env, rest: &str) -> Result<String, Failure> {
    let arguments = keyval(rest, "qom-type").map_err(QmpError::from)?;
    objects::add(env, &arguments, Syntax::KeyVal).await?;
    Ok(String::new())
}

pub(super) async fn object_del(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let id = args.word()?;
    args.end()?;
    objects::object_del(env.clone(), ObjectDel { id }).await?;
    Ok(String::new())
}

pub(super) fn list(env: &Env, rest: &str) -> Result<String, Failure> {
    if rest.is_empty() {
        return Ok("/\n".to_owned());
    }
    let mut args = Args::new(rest);
    let path = args.word()?;
    args.end()?;
    let mut text = String::new();
    for property in qom::qom_list(env, QomList { path })? {
        let _infallible = writeln!(text, "{} ({})", property.name, property.ty);
    }
    Ok(text)
}

pub(super) fn get(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let (path, property) = (args.word()?, args.word()?);
    args.end()?;
    let mut writer = Writer::new(Style::Pretty);
    writer.value(&qom::qom_get(env, QomGet { path, property })?);
    Ok(format!("{}\n", String::from_utf8_lossy(&writer.into_bytes())))
}

/// `-j`: the value is JSON. It is the rest of the line.
pub(super) fn set(env: &Env, rest: &str) -> Result<String, Failure> {
    let (json, rest) = match rest.strip_prefix("-j") {
        Some(rest) if rest.starts_with(char::is_whitespace) => (true, rest),
        _ => (false, rest),
    };
    let mut args = Args::new(rest);
    let (path, property, value) = (args.word()?, args.word()?, args.rest()?);
    let (value, syntax) = if json {
        let parsed = serde_json::from_str(value);
        let parsed =
            parsed.map_err(|error| QmpError::generic(format!("JSON parse error, {error}")))?;
        (parsed, Syntax::Json)
    } else {
        (Value::from(value), Syntax::KeyVal)
    };
    qom::set(env, &QomSet { path, property, value }, syntax)?;
    Ok(String::new())
}

/// `info qom-tree`: the objects below a path, without their properties.
pub(super) fn tree(env: &Env, rest: &str) -> Result<String, Failure> {
    let path = if rest.is_empty() { "/machine" } else { rest };
    let tree = qom::tree(env)?;
    let node = match tree.resolve(path).map_err(QmpError::from) {
        Ok(node) => node,
        Err(error) if error.class() == ErrorClass::DeviceNotFound => {
            return Ok(format!("Path '{path}' could not be resolved.\n"));
        }
        Err(_) => return Ok(format!("Warning: Path '{path}' is ambiguous.\n")),
    };
    let mut text = format!("{} ({})\n", node.path(), node.type_name());
    below(node, 1, &mut text);
    Ok(text)
}

fn below(node: &Node, depth: usize, text: &mut String) {
    for child in node.children() {
        let name = child.path().rsplit('/').next().unwrap_or_default();
        let _infallible = writeln!(text, "{:1$}/{name} ({2})", "", 2 * depth, child.type_name());
        below(child, depth + 1, text);
    }
}
