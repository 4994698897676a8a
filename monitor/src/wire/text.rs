//! From the bytes of a string token to its text.
//!
//! Strings are modified UTF-8, as in QEMU: the two bytes 0xc0 0x80 also stand for U+0000, and the
//! Unicode non-characters are refused.

const INVALID_UTF8: &str = "invalid UTF-8 sequence in string";
const INVALID_ESCAPE: &str = "invalid escape sequence in string";

/// Decodes a token including its delimiters. The error is QEMU's text without its prefix.
pub(super) fn decode(token: &[u8]) -> Result<String, String> {
    let body = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    if body.iter().all(|&byte| byte.is_ascii() && byte != b'\\') {
        return String::from_utf8(body.to_vec()).map_err(|_| INVALID_UTF8.to_owned());
    }
    let mut text = String::with_capacity(body.len());
    // Escapes that are cut short are reported with the delimiter, so the token is kept at hand.
    let mut rest = token.get(1..).unwrap_or_default();
    while rest.len() > 1 {
        let (c, used) = if rest[0] == b'\\' { escape(rest)? } else { character(rest)? };
        text.push(c);
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(text)
}

/// The character at the head of `rest` and its length.
fn character(rest: &[u8]) -> Result<(char, usize), String> {
    if rest.starts_with(&[0xc0, 0x80]) {
        return Ok(('\0', 2));
    }
    let length = match rest[0] {
        0..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(INVALID_UTF8.to_owned()),
    };
    rest.get(..length)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.chars().next())
        .filter(|&c| is_character(c))
        .map(|c| (c, length))
        .ok_or_else(|| INVALID_UTF8.to_owned())
}

/// The character of the escape sequence at the head of `rest` and the sequence's length.
fn escape(rest: &[u8]) -> Result<(char, usize), String> {
    let c = match rest.get(1) {
        Some(&c @ (b'"' | b'\'' | b'\\' | b'/')) => char::from(c),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode(rest),
        _ => return Err(INVALID_ESCAPE.to_owned()),
    };
    Ok((c, 2))
}

/// `\u` with four hexadecimal digits, or two of them that form a surrogate pair.
fn unicode(rest: &[u8]) -> Result<(char, usize), String> {
    const ONE: usize = 6;
    let first = hex4(rest);
    let found = match (first, first.and_then(|_| hex4(rest.get(ONE..).unwrap_or_default()))) {
        (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
            char::from_u32(0x1_0000 + ((high & 0x3ff) << 10) + (low & 0x3ff)).map(|c| (c, 2 * ONE))
        }
        (Some(code), _) => char::from_u32(code).map(|c| (c, ONE)),
        (None, _) => None,
    };
    found.filter(|&(c, _)| is_character(c)).ok_or_else(|| {
        let shown = rest.get(..ONE).unwrap_or(rest);
        format!("{} is not a valid Unicode character", String::from_utf8_lossy(shown))
    })
}

/// The number after a `\u` at the head of `rest`.
fn hex4(rest: &[u8]) -> Option<u32> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}

/// Whether it is not one of the 66 non-characters.
pub(super) fn is_character(c: char) -> bool {
    let code = u32::from(c);
    !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}
