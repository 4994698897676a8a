//! Values of properties: parsed from JSON or from option strings, read by those who realize.

use super::property::{Kind, ON_OFF_AUTO, Property, Words};
use crate::error::CommandError;
use crate::keyval;
use crate::text::switch;
use serde_json::{Map, Value};

/// How values were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// JSON: every value has its type.
    Json,
    /// `key=value`: every value is a string.
    KeyVal,
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq)]
pub enum PropValue {
    /// None was given, and there is no default.
    Unset,
    /// A switch.
    Bool(bool),
    /// An unsigned number.
    Uint(u64),
    /// A signed number.
    Int(i64),
    /// A text, a word, a name.
    Text(String),
    /// A list or an object.
    Json(Value),
}

impl PropValue {
    /// As a management client sees it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Unset => "".into(),
            Self::Bool(on) => (*on).into(),
            Self::Uint(n) => (*n).into(),
            Self::Int(n) => (*n).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Json(value) => value.clone(),
        }
    }
}

fn mistyped(name: &str, expected: &str) -> CommandError {
    CommandError::generic(format!("Invalid parameter type for '{name}', expected: {expected}"))
}

fn expects(name: &str, what: &str) -> CommandError {
    CommandError::generic(format!("Parameter '{name}' expects {what}"))
}

/// Parses `value` for `property` of a type called `owner`. The errors have QEMU's texts.
pub(super) fn parse(
    property: &Property,
    owner: &str,
    value: &Value,
    syntax: Syntax,
) -> Result<PropValue, CommandError> {
    let name = property.name;
    match property.kind {
        Kind::Bool => boolean(name, value, syntax).map(PropValue::Bool),
        Kind::OnOffAuto => word(name, value, &ON_OFF_AUTO),
        Kind::Enum(words) => word(name, value, words),
        Kind::U8 => unsigned(name, value, syntax, "uint8_t", u8::MAX.into()),
        Kind::U16 => unsigned(name, value, syntax, "uint16_t", u16::MAX.into()),
        Kind::U32 => unsigned(name, value, syntax, "uint32_t", u32::MAX.into()),
        Kind::U64 => unsigned(name, value, syntax, "uint64", u64::MAX),
        Kind::I32 => signed(name, value, syntax, "int32_t", i32::MIN.into(), i32::MAX.into()),
        Kind::Int => signed(name, value, syntax, "int64", i64::MIN, i64::MAX),
        Kind::Size => size(name, value, syntax),
        Kind::Str | Kind::Drive | Kind::Chardev | Kind::Netdev | Kind::Link(_) => {
            text(name, value).map(|text| PropValue::Text(text.to_owned()))
        }
        Kind::PciAddress => address(name, owner, value, syntax),
        Kind::MacAddress => mac(name, owner, value),
        Kind::Json(_) => json(name, value, syntax),
    }
}

fn text<'v>(name: &str, value: &'v Value) -> Result<&'v str, CommandError> {
    value.as_str().ok_or_else(|| mistyped(name, "string"))
}

fn boolean(name: &str, value: &Value, syntax: Syntax) -> Result<bool, CommandError> {
    match (syntax, value) {
        (Syntax::Json, _) => value.as_bool().ok_or_else(|| mistyped(name, "boolean")),
        (Syntax::KeyVal, value) => {
            value.as_str().and_then(switch).ok_or_else(|| expects(name, "'on' or 'off'"))
        }
    }
}

fn word(name: &str, value: &Value, words: &Words) -> Result<PropValue, CommandError> {
    let given = text(name, value)?;
    if !words.words.contains(&given) {
        let text = format!("Parameter '{name}' does not accept value '{given}'");
        return Err(CommandError::generic(text));
    }
    Ok(PropValue::Text(given.to_owned()))
}

/// Decimal, or hexadecimal after `0x`, or octal after `0`, as strtol(3) with base 0 reads it.
fn number(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match lower {
        Some(hexadecimal) => (16, hexadecimal),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    let number = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))?;
    Some(if negative { -i128::from(number) } else { number.into() })
}

fn json_number(value: &Value) -> Option<i128> {
    value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))
}

fn unsigned(
    name: &str,
    value: &Value,
    syntax: Syntax,
    ty: &str,
    max: u64,
) -> Result<PropValue, CommandError> {
    let number = match syntax {
        Syntax::Json => json_number(value).ok_or_else(|| expects(name, "uint64"))?,
        Syntax::KeyVal => {
            value.as_str().and_then(number).ok_or_else(|| expects(name, "integer"))?
        }
    };
    let number = u64::try_from(number).ok().filter(|number| *number <= max);
    number.map(PropValue::Uint).ok_or_else(|| expects(name, ty))
}

fn signed(
    name: &str,
    value: &Value,
    syntax: Syntax,
    ty: &str,
    min: i64,
    max: i64,
) -> Result<PropValue, CommandError> {
    let number = match syntax {
        Syntax::Json => json_number(value).ok_or_else(|| mistyped(name, "integer"))?,
        Syntax::KeyVal => {
            value.as_str().and_then(number).ok_or_else(|| expects(name, "integer"))?
        }
    };
    let number = i64::try_from(number).ok().filter(|number| (min..=max).contains(number));
    number.map(PropValue::Int).ok_or_else(|| expects(name, ty))
}

/// A size with QEMU's suffixes (B, K, M, G, T, P, E); a bare number counts bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    if text.starts_with("0x") {
        return number(text).and_then(|number| u64::try_from(number).ok());
    }
    match text.strip_suffix(['e', 'E']) {
        Some(digits) => digits.parse::<u64>().ok()?.checked_mul(1 << 60),
        None => keyval::size(text, 1),
    }
}

fn size(name: &str, value: &Value, syntax: Syntax) -> Result<PropValue, CommandError> {
    let size = match syntax {
        Syntax::Json => value.as_u64().ok_or_else(|| expects(name, "uint64"))?,
        Syntax::KeyVal => {
            value.as_str().and_then(parse_size).ok_or_else(|| expects(name, "size"))?
        }
    };
    Ok(PropValue::Uint(size))
}

/// `4`, `4.0`, `04.0`, `0x4`, `0x4.1`: slot and function in hexadecimal. Gives both as one number.
fn slot(text: &str) -> Option<u8> {
    let (slot, function) = text.split_once('.').unwrap_or((text, "0"));
    let slot = slot.strip_prefix("0x").unwrap_or(slot);
    let hexadecimal =
        |text: &str| u8::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'));
    let (slot, function) = (hexadecimal(slot)?, hexadecimal(function)?);
    (slot < 32 && function < 8).then_some(slot << 3 | function)
}

fn address(
    name: &str,
    owner: &str,
    value: &Value,
    syntax: Syntax,
) -> Result<PropValue, CommandError> {
    match value {
        Value::Number(number) if syntax == Syntax::Json => {
            let range = "a value between -1 and 255";
            let devfn = number.as_i64().filter(|devfn| (-1..=255).contains(devfn));
            devfn.map(PropValue::Int).ok_or_else(|| expects(name, range))
        }
        Value::String(text) => {
            let devfn = slot(text).ok_or_else(|| refused(owner, name, text))?;
            Ok(PropValue::Int(devfn.into()))
        }
        _ => {
            let text = format!("Invalid parameter type for '{name}', expected int or str");
            Err(CommandError::generic(text))
        }
    }
}

fn refused(owner: &str, name: &str, value: &str) -> CommandError {
    CommandError::generic(format!("Property '{owner}.{name}' doesn't take value '{value}'"))
}

fn mac(name: &str, owner: &str, value: &Value) -> Result<PropValue, CommandError> {
    let given = text(name, value)?;
    parse_mac(given).ok_or_else(|| refused(owner, name, given))?;
    Ok(PropValue::Text(given.to_owned()))
}

/// An Ethernet address: six bytes in hexadecimal, separated by colons or dashes.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// In option strings there is no way to write a list but JSON itself.
fn json(name: &str, value: &Value, syntax: Syntax) -> Result<PropValue, CommandError> {
    match (syntax, value) {
        (Syntax::Json, Value::Array(_) | Value::Object(_)) => Ok(PropValue::Json(value.clone())),
        _ => Err(mistyped(name, "array")),
    }
}

/// The values of all properties of one device or object.
#[derive(Clone, Debug)]
pub struct Properties {
    owner: &'static str,
    values: Vec<(&'static Property, PropValue)>,
}

impl Properties {
    /// The defaults.
    pub(crate) fn defaults(
        owner: &'static str,
        declared: impl Iterator<Item = &'static Property>,
    ) -> Self {
        let values = declared.map(|property| (property, property.initial())).collect();
        Self { owner, values }
    }

    /// Sets each member of `given`.
    pub(super) fn apply(
        &mut self,
        given: &Map<String, Value>,
        syntax: Syntax,
    ) -> Result<(), CommandError> {
        given.iter().try_for_each(|(name, value)| self.set(name, value, syntax))
    }

    /// Sets one property.
    pub(crate) fn set(
        &mut self,
        name: &str,
        value: &Value,
        syntax: Syntax,
    ) -> Result<(), CommandError> {
        let owner = self.owner;
        let entry = self.values.iter_mut().find(|(property, _)| property.name == name);
        let (property, place) = entry.ok_or_else(|| no_property(owner, name))?;
        if property.read_only {
            return Err(not_writable(owner, name));
        }
        *place = parse(property, owner, value, syntax)?;
        Ok(())
    }

    /// Gives a property no value.
    pub(super) fn unset(&mut self, name: &str) {
        if let Some((_, place)) = self.values.iter_mut().find(|(known, _)| known.name == name) {
            *place = PropValue::Unset;
        }
    }

    /// Gives a property the value that it has in `other`.
    pub(super) fn take_over(&mut self, name: &str, other: &Self) {
        let place = self.values.iter_mut().find(|(known, _)| known.name == name);
        if let (Some((_, place)), Some(value)) = (place, other.get(name)) {
            *place = value.clone();
        }
    }

    /// The type whose properties they are.
    pub fn owner(&self) -> &'static str {
        self.owner
    }

    /// The declarations, in their order.
    pub fn declared(&self) -> impl Iterator<Item = &'static Property> + '_ {
        self.values.iter().map(|(property, _)| *property)
    }

    /// The value of `name`; `None` where no such property is declared.
    pub fn get(&self, name: &str) -> Option<&PropValue> {
        self.values.iter().find(|(property, _)| property.name == name).map(|(_, value)| value)
    }

    /// A switch; off where it is not one.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Some(PropValue::Bool(true)))
    }

    /// An unsigned number; 0 where it is not one.
    pub fn uint(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(PropValue::Uint(n)) => *n,
            _ => 0,
        }
    }

    /// A signed number; 0 where it is not one.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(PropValue::Int(n)) => *n,
            _ => 0,
        }
    }

    /// A text, a word or a name, where one is set.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(PropValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A list or an object, where one is set.
    pub fn json(&self, name: &str) -> Option<&Value> {
        match self.get(name) {
            Some(PropValue::Json(value)) => Some(value),
            _ => None,
        }
    }
}

/// The error for a property that only the device sets.
pub(crate) fn not_writable(owner: &str, name: &str) -> CommandError {
    CommandError::generic(format!("Property '{owner}.{name}' is not writable"))
}

/// The error for a property that a type has not.
pub(crate) fn no_property(owner: &str, name: &str) -> CommandError {
    CommandError::generic(format!("Property '{owner}.{name}' not found"))
}
