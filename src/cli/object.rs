//! `-object`: option strings and JSON, by the rules of `object-add`.

use super::device::json;
use crate::config::ObjectConfig;
use devices::objects::Objects;
use devices::qdev::keyval;
use devices::qdev::value::Syntax;
use vcpu::memory::RamConfig;

/// Parses the value of `-object`.
pub(super) fn parse(text: &str) -> Result<ObjectConfig, String> {
    let option = format!("-object {text}");
    let (arguments, syntax) = if text.starts_with('{') {
        (json(text), Syntax::Json)
    } else {
        (keyval(text, "qom-type").map_err(|error| error.to_string()), Syntax::KeyVal)
    };
    let arguments = arguments.map_err(|error| format!("{option}: {error}"))?;
    Ok(ObjectConfig { option, arguments, syntax })
}

/// The machine's memory: of the size that `-m` has given or the usual one, or the object `backend`, with
/// which `-m` must agree.
pub(super) fn memory(
    given: Option<u64>,
    backend: Option<&str>,
    objects: &[ObjectConfig],
    usual: u64,
) -> Result<RamConfig, String> {
    let Some(id) = backend else { return Ok(RamConfig::new(given.unwrap_or(usual))) };
    let object = objects.iter().find(|object| object.arguments.get("id") == Some(&id.into()));
    let object = object.ok_or_else(|| format!("Memory backend '{id}' not found"))?;
    let memory = Objects::machine_memory(&object.arguments, object.syntax);
    let memory = memory.map_err(|error| format!("{}: {error}", object.option))?;
    if given.is_some_and(|given| given != memory.size) {
        return Err("Machine memory size does not match the size of the memory backend".to_owned());
    }
    Ok(memory)
}
