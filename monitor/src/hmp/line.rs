//! From bytes to lines, for peers that edit them themselves.

/// The longest line; more is ignored up to its end.
pub(super) const LINE_BYTES_MAX: usize = 4095;

const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
const CTRL_C: u8 = 0x03;
const CTRL_U: u8 = 0x15;

/// Collects a line.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    line: Vec<u8>,
    /// The byte before was a carriage return, whose line feed is part of the same end.
    after_return: bool,
}

impl LineReader {
    /// Takes a byte; gives the line that it ends.
    pub(super) fn take(&mut self, byte: u8) -> Option<String> {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                let line = std::mem::take(&mut self.line);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            BACKSPACE | DELETE => self.erase(),
            CTRL_U | CTRL_C => self.line.clear(),
            0..=0x1f if byte != b'\t' => {}
            _ if self.line.len() >= LINE_BYTES_MAX => {}
            _ => self.line.push(byte),
        }
        None
    }

    /// Removes the last character.
    fn erase(&mut self) {
        while self.line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
    }
}

#[cfg(test)]
mod tests {
    use super::LineReader;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut reader = LineReader::default();
        bytes.iter().filter_map(|byte| reader.take(*byte)).collect()
    }

    #[test]
    fn lines_end_in_any_of_the_three_ways() {
        assert_eq!(lines(b"a\nb\rc\r\nd\n\ne"), ["a", "b", "c", "d", ""]);
    }

    #[test]
    fn mistakes_can_be_erased() {
        assert_eq!(lines(b"stpo\x08\x7fop\n\x7f\x7fx\n"), ["stop", "x"]);
        assert_eq!(lines("aé\x7fb\n".as_bytes()), ["ab"]);
        assert_eq!(lines(b"wrong\x15right\nwrong\x03right\n"), ["right", "right"]);
    }

    #[test]
    fn long_lines_and_wild_bytes_are_bounded() {
        let long = [vec![b'x'; 10_000], b"\n".to_vec()].concat();
        assert_eq!(lines(&long)[0].len(), 4095);
        assert_eq!(lines(b"a\x00\x01\xff\n"), ["a\u{fffd}"]);
    }
}
