//! `-object`: option strings and JSON, by the rules of `object-add`.

use super::device::json;
use crate::config::ObjectConfig;
use devices::qdev::keyval;
use devices::qdev::value::Syntax;

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
