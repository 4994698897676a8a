//! Bytes from a socket into lines.

/// Bytes of a line at most: a `write` of 8 MiB fits.
pub(super) const LINE_MAX: usize = 16 << 20;

/// A line was longer than [`LINE_MAX`]; its end has been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Collects bytes until there is a line.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// How many of them are known to hold no end of line.
    searched: usize,
    /// The line has outgrown the bound; the rest of it is thrown away.
    skipping: bool,
}

impl Lines {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Option<Result<String, TooLong>> {
        let found = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = found.map(|at| at + self.searched) else {
            self.searched = self.bytes.len();
            if self.skipping || self.searched > LINE_MAX {
                self.skipping = true;
                (self.bytes, self.searched) = (Vec::new(), 0);
            }
            return None;
        };
        self.searched = 0;
        let line: Vec<u8> = self.bytes.drain(..=end).take(end).collect();
        if std::mem::take(&mut self.skipping) || line.len() > LINE_MAX {
            return Some(Err(TooLong));
        }
        Some(Ok(String::from_utf8_lossy(&line).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_in_order() {
        let mut lines = Lines::default();
        lines.feed(b"one\ntw");
        assert_eq!(lines.next(), Some(Ok("one".to_owned())));
        assert_eq!(lines.next(), None);
        lines.feed(b"o\n\n\xff\n");
        assert_eq!(lines.next(), Some(Ok("two".to_owned())));
        assert_eq!(lines.next(), Some(Ok(String::new())));
        assert_eq!(lines.next(), Some(Ok("\u{fffd}".to_owned())));
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            lines.feed(&chunk);
            assert_eq!(lines.next(), None);
            assert!(lines.bytes.len() <= LINE_MAX + chunk.len());
        }
        lines.feed(b"\nafter\n");
        assert_eq!(lines.next(), Some(Err(TooLong)));
        assert_eq!(lines.next(), Some(Ok("after".to_owned())));
    }
}
