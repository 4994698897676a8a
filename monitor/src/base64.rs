//! Base 64 (RFC 4648, section 4), as QEMU reads it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let index = (bits >> (18 - 6 * n) & 63) as usize;
            text.push(if n > chunk.len() { '=' } else { char::from(ALPHABET[index]) });
        }
    }
    text
}

/// `None` for characters that are neither of the alphabet nor `=` nor line feeds, as in QEMU; also as
/// there, an end that is no whole group of four gives nothing.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count, mut padding) = (0u32, 0, 0);
    for byte in text.bytes().filter(|byte| *byte != b'\n') {
        let value = match byte {
            b'=' => {
                padding += 1;
                0
            }
            _ => ALPHABET.iter().position(|known| *known == byte)? as u32,
        };
        bits = bits << 6 | value;
        count += 1;
        if count == 4 {
            let group = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
            bytes
                .extend_from_slice(group.get(..3usize.saturating_sub(padding)).unwrap_or_default());
            (bits, count, padding) = (0, 0, 0);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

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
            assert_eq!(decode(coded).unwrap(), plain.as_bytes());
        }
    }

    /// What QEMU 10.0 makes of them.
    #[test]
    fn what_is_no_base_64_is_refused_or_cut() {
        assert_eq!(decode("Zm9v!"), None);
        assert_eq!(decode("Zm9v Zm9v"), None);
        assert_eq!(decode("Zm\n9v").unwrap(), b"foo");
        assert_eq!(decode("hello").unwrap(), b"\x85\xe9\x65");
        assert_eq!(decode("aGk").unwrap(), b"");
        assert_eq!(decode("=").unwrap(), b"");
    }
}
