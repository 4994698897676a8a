//! The line editor of the console: what a key does, without the console itself.

/// Longest line, in bytes.
pub(crate) const LINE_MAX: usize = 256;

/// What the terminal has to show for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Nothing.
    Nothing,
    /// The byte itself.
    Byte(u8),
    /// Take back the last character.
    Erase,
    /// The line is finished: end it on the terminal and use `Line::text`.
    Enter,
    /// The line was thrown away: show so and prompt again.
    Cancel,
}

/// The line being typed: printable ASCII only.
#[derive(Debug)]
pub(crate) struct Line {
    bytes: [u8; LINE_MAX],
    len: usize,
    after_return: bool,
}

impl Line {
    /// An empty line.
    pub fn new() -> Self {
        Self { bytes: [0; LINE_MAX], len: 0, after_return: false }
    }

    /// Takes a received byte.
    pub fn key(&mut self, byte: u8) -> Echo {
        // Carriage return and line feed together are one end of line.
        let second_half = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        match byte {
            b'\n' if second_half => Echo::Nothing,
            b'\r' | b'\n' => Echo::Enter,
            0x08 | 0x7f if self.len > 0 => {
                self.len -= 1;
                Echo::Erase
            }
            0x03 => {
                self.len = 0;
                Echo::Cancel
            }
            b' '..=b'~' if self.len < LINE_MAX => {
                self.bytes[self.len] = byte;
                self.len += 1;
                Echo::Byte(byte)
            }
            _ => Echo::Nothing,
        }
    }

    /// What has been typed.
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }

    /// Starts a new line.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> (Line, Vec<Echo>) {
        let mut line = Line::new();
        let echoes = bytes.iter().map(|&byte| line.key(byte)).collect();
        (line, echoes)
    }

    #[test]
    fn keys_are_echoed_and_collected() {
        let (line, echoes) = typed(b"hi\r");
        assert_eq!(line.text(), "hi");
        assert_eq!(echoes, [Echo::Byte(b'h'), Echo::Byte(b'i'), Echo::Enter]);
    }

    #[test]
    fn backspace_and_delete_erase_down_to_nothing() {
        let (line, echoes) = typed(b"ab\x08\x7f\x7fc");
        assert_eq!(line.text(), "c");
        assert_eq!(echoes[2..5], [Echo::Erase, Echo::Erase, Echo::Nothing]);
    }

    #[test]
    fn control_c_clears() {
        let (line, echoes) = typed(b"rubbish\x03");
        assert_eq!((line.text(), echoes[7]), ("", Echo::Cancel));
    }

    #[test]
    fn carriage_return_line_feed_is_one_end_of_line() {
        let (_, echoes) = typed(b"\r\n\n\r");
        assert_eq!(echoes, [Echo::Enter, Echo::Nothing, Echo::Enter, Echo::Enter]);
    }

    #[test]
    fn a_full_line_takes_no_more_and_odd_bytes_are_ignored() {
        let (mut line, _) = typed(&[b'x'; LINE_MAX + 10]);
        assert_eq!(line.text().len(), LINE_MAX);
        assert_eq!(line.key(0x1b), Echo::Nothing);
        assert_eq!(line.key(0xff), Echo::Nothing);
        assert_eq!(line.key(0x08), Echo::Erase);
    }
}
