//! `-device`: option strings and JSON, by the rules of `device_add`.

use crate::config::DeviceConfig;
use devices::qdev::{DeviceRequest, Types};
use monitor::registry::Value;
use monitor::wire::Reader;

/// What `-device` asks for.
pub(super) enum Device {
    /// The help of a type, or of all.
    Help(String),
    /// A device.
    Plug(DeviceConfig),
}

/// Parses the value of `-device`.
pub(super) fn parse(text: &str) -> Result<Device, String> {
    let failed = |error: &dyn std::fmt::Display| format!("-device {text}: {error}");
    if let Some(help) = Types::new().help_for(text).map_err(|error| failed(&error))? {
        return Ok(Device::Help(help));
    }
    let request = if text.starts_with('{') {
        let value = json(text).map_err(|error| failed(&error))?;
        DeviceRequest::json(value)
    } else {
        DeviceRequest::keyval(text).map_err(|error| failed(&error))?
    };
    Ok(Device::Plug(DeviceConfig { option: format!("-device {text}"), request }))
}

/// An object as QEMU's reader takes it, single quotes included.
pub(super) fn json(text: &str) -> Result<serde_json::Map<String, Value>, String> {
    let mut reader = Reader::default();
    let mut rest = text.as_bytes();
    match reader.next(&mut rest) {
        Some(Ok(Value::Object(object))) if rest.iter().all(u8::is_ascii_whitespace) => Ok(object),
        Some(Ok(_)) => Err("JSON parse error, one object is expected".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("JSON parse error, premature EOI".to_owned()),
    }
}
