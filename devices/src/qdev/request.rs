//! What is asked for: a device's type and properties, from JSON or from an option string.

use super::value::Syntax;
use crate::error::CommandError;
use crate::text::{is_identifier, split_commas};
use serde_json::{Map, Value};

/// A device to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRequest {
    /// `driver`, `id`, `bus` and the properties.
    pub arguments: Map<String, Value>,
    /// How the values were written.
    pub syntax: Syntax,
}

impl DeviceRequest {
    /// From the arguments of `device_add`, or from JSON on the command line.
    pub fn json(arguments: Map<String, Value>) -> Self {
        Self { arguments, syntax: Syntax::Json }
    }

    /// From an option string, `virtio-blk-pci,drive=d0,addr=4`. Text that begins with `{` is JSON, which the
    /// caller parses.
    pub fn keyval(text: &str) -> Result<Self, CommandError> {
        let arguments = keyval(text, "driver")?;
        if let Some(Value::String(id)) = arguments.get("id")
            && !is_identifier(id)
        {
            return Err(CommandError::generic("Parameter 'id' expects an identifier"));
        }
        Ok(Self { arguments, syntax: Syntax::KeyVal })
    }

    /// A name among the arguments: `driver`, `id` or `bus`. Other types than strings count as absent, as in
    /// QEMU.
    pub(super) fn name(&self, key: &str) -> Option<&str> {
        self.arguments.get(key).and_then(Value::as_str)
    }

    /// The arguments that are properties.
    pub(super) fn properties(&self) -> Map<String, Value> {
        let of_device = |key: &str| matches!(key, "driver" | "id" | "bus");
        let own = self.arguments.iter().filter(|(key, _)| !of_device(key));
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Parses `value,key=value,...`. A first part without `=` is the value of `implied`; any other one is a
/// switch that is on (`noX`: X is off). `,,` is a literal comma. A key that is repeated has its last
/// value, as in QEMU.
pub fn keyval(text: &str, implied: &str) -> Result<Map<String, Value>, CommandError> {
    let mut arguments = Map::new();
    for (n, part) in split_commas(text).into_iter().enumerate() {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if part.is_empty() => continue,
            None if n == 0 => (implied.to_owned(), part),
            None => match part.strip_prefix("no") {
                Some(key) if !key.is_empty() => (key.to_owned(), "off".to_owned()),
                _ => (part, "on".to_owned()),
            },
        };
        if key.is_empty() {
            return Err(CommandError::generic("Invalid parameter ''"));
        }
        arguments.insert(key, Value::String(value));
    }
    Ok(arguments)
}
