//! Secrets: given as data or in a file, as they are or in base64 (RFC 4648, section 4).

use super::Body;
use super::types::system_text;
use crate::base64;
use crate::error::CommandError;
use crate::qdev::value::Properties;
use reactor::io as rio;

/// More than any key or password has.
const FILE_BYTES_MAX: usize = 1 << 20;

pub(super) async fn load(properties: &Properties) -> Result<Body, CommandError> {
    let generic = |text: &str| Err(CommandError::generic(text));
    if properties.text("keyid").is_some() || properties.text("iv").is_some() {
        return generic(
            "secrets are given in plain or base64 form here, not encrypted: leave out keyid and iv",
        );
    }
    let mut bytes = match (properties.text("data"), properties.text("file")) {
        (None, None) => return generic("Either 'file' or 'data' must be provided"),
        (Some(_), Some(_)) => return generic("'file' and 'data' are mutually exclusive"),
        (Some(data), None) => data.as_bytes().to_vec(),
        (None, Some(file)) => read(file).await?,
    };
    let bytes = match properties.text("format") {
        Some("base64") => {
            bytes.retain(|c| !c.is_ascii_whitespace());
            base64::decode(&bytes).ok_or_else(|| {
                let text = "the secret is not valid base64; give format=raw, or encode it";
                CommandError::generic(text)
            })?
        }
        _ => bytes,
    };
    Ok(Body::Secret(bytes))
}

async fn read(name: &str) -> Result<Vec<u8>, CommandError> {
    let failed = |error: &std::io::Error| {
        let text = system_text(error);
        CommandError::generic(format!(
            "Unable to read {name}: Failed to open file \u{201c}{name}\u{201d}: {text}"
        ))
    };
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = rio::openat(name.as_ref(), flags, 0).await.map_err(|error| failed(&error))?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let (result, back) = rio::read(&file, buffer).await;
        buffer = back;
        let count = result.map_err(|error| failed(&error))?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            return Ok(bytes);
        };
        if bytes.len() + count > FILE_BYTES_MAX {
            let text = format!("{name} is longer than {FILE_BYTES_MAX} bytes: no secret is");
            return Err(CommandError::generic(text));
        }
        bytes.extend_from_slice(part);
    }
}
