//! Base64 (RFC 4648, section 4): strict, and as lenient as QEMU where QEMU is.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// With padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            // One digit more than there are bytes says something; the others pad.
            let digit = ALPHABET[(bits >> (18 - 6 * n) & 0x3f) as usize];
            text.push(if n <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// `None` for what is not base64. Padding may be left out.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|c| *c != b'=').map_or(0, |last| last + 1);
    let (digits, padding) = text.split_at(end);
    if digits.len() % 4 == 1 || padding.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            bits = bits << 6 | u32::from(value(*digit)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

/// As QEMU's decoder: line feeds are skipped, an end that is no whole group of four gives nothing;
/// `None` for other characters that are neither of the alphabet nor `=`.
pub fn decode_lenient(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count, mut padding) = (0u32, 0, 0usize);
    for digit in text.iter().filter(|digit| **digit != b'\n') {
        padding += usize::from(*digit == b'=');
        let value = if *digit == b'=' { 0 } else { value(*digit)? };
        bits = bits << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            let whole = 3usize.saturating_sub(padding);
            bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
            (bits, count, padding) = (0, 0, 0);
        }
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{decode, decode_lenient, encode};

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn vectors_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded.as_bytes()).as_deref(), Some(plain.as_bytes()));
            assert_eq!(decode_lenient(coded.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(decode(b"Zm9vYg").as_deref(), Some(&b"foob"[..]));
        assert_eq!(decode(b"/+8").as_deref(), Some(&[0xff, 0xef][..]));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["A", "A!!", "Z-==", "Zg===", "Zg=a", "\u{e9}"] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong}");
        }
    }

    /// What QEMU 10.0 makes of them.
    #[test]
    fn what_the_lenient_decoder_refuses_or_cuts() {
        for (text, bytes) in [
            ("Zm9v!", None),
            ("Zm9v Zm9v", None),
            ("Zm\n9v", Some(&b"foo"[..])),
            ("hello", Some(b"\x85\xe9\x65")),
            ("aGk", Some(b"")),
            ("=", Some(b"")),
            ("====", Some(b"")),
        ] {
            assert_eq!(decode_lenient(text.as_bytes()).as_deref(), bytes, "{text}");
        }
    }
}
