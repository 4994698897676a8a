//! From bytes to lines.

/// The longest line; more is ignored up to its end.
const LINE_BYTES_MAX: usize = 4095;

const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
const CTRL_C: u8 = 0x03;
const CTRL_U: u8 = 0x15;

/// What a byte led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing to do but to echo this.
    Echo(&'static [u8]),
    /// Echo the byte itself.
    EchoByte,
    /// The line is complete.
    Line(String),
    /// The line was given up (Ctrl-C).
    Abandoned,
}

/// Collects a line.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    line: Vec<u8>,
    /// The byte before was a carriage return, whose line feed is part of the same end.
    after_return: bool,
}

impl LineReader {
    pub(super) fn take(&mut self, byte: u8) -> Input {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => Input::Echo(b""),
            b'\r' | b'\n' => {
                let line = std::mem::take(&mut self.line);
                Input::Line(String::from_utf8_lossy(&line).into_owned())
            }
            BACKSPACE | DELETE if self.erase() => Input::Echo(b"\x08 \x08"),
            BACKSPACE | DELETE => Input::Echo(b""),
            CTRL_U => {
                while self.erase() {}
                Input::Echo(b"\r\x1b[K")
            }
            CTRL_C => {
                self.line.clear();
                Input::Abandoned
            }
            0..=0x1f if byte != b'\t' => Input::Echo(b""),
            _ if self.line.len() >= LINE_BYTES_MAX => Input::Echo(b"\x07"),
            _ => {
                self.line.push(byte);
                Input::EchoByte
            }
        }
    }

    /// Removes the last character. False when there is none.
    fn erase(&mut self) -> bool {
        while let Some(byte) = self.line.pop() {
            let continues = byte & 0xc0 == 0x80;
            if !continues {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Input, LineReader};

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut reader = LineReader::default();
        let mut lines = Vec::new();
        for byte in bytes {
            if let Input::Line(line) = reader.take(*byte) {
                lines.push(line);
            }
        }
        lines
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
