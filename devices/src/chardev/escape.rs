//! Ctrl-A, as on QEMU's terminal.

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What Ctrl-A H prints.
pub(super) const HELP: &str = "\r\n\
    C-a h    print this help\r\n\
    C-a x    exit\r\n\
    C-a c    switch between console and monitor\r\n\
    C-a C-a  sends C-a\r\n";

/// What the terminal's user wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Bytes for whoever has the terminal.
    Bytes(Vec<u8>),
    Help,
    Exit,
    Switch,
}

/// Takes escape sequences out of what is typed.
#[derive(Debug, Default)]
pub(super) struct Escape {
    /// Ctrl-A was the last byte.
    pending: bool,
}

impl Escape {
    /// Splits `bytes` into runs of plain bytes and commands, in order.
    pub(super) fn split(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut typed = Vec::new();
        let mut plain = Vec::new();
        for byte in bytes {
            if !self.pending {
                match *byte {
                    ESCAPE => self.pending = true,
                    byte => plain.push(byte),
                }
                continue;
            }
            self.pending = false;
            let command = match byte {
                b'h' | b'H' | b'?' => Typed::Help,
                b'x' | b'X' => Typed::Exit,
                b'c' | b'C' => Typed::Switch,
                &ESCAPE => {
                    plain.push(ESCAPE);
                    continue;
                }
                // As in QEMU: an unknown one is swallowed.
                _ => continue,
            };
            if !plain.is_empty() {
                typed.push(Typed::Bytes(std::mem::take(&mut plain)));
            }
            typed.push(command);
        }
        if !plain.is_empty() {
            typed.push(Typed::Bytes(plain));
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::{Escape, Typed};

    #[test]
    fn commands_are_found_across_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.split(b"ls\x01"), [Typed::Bytes(b"ls".to_vec())]);
        assert_eq!(escape.split(b"cinfo"), [Typed::Switch, Typed::Bytes(b"info".to_vec())]);
        assert_eq!(
            escape.split(b"a\x01\x01b\x01hc\x01qd\x01X"),
            [
                Typed::Bytes(b"a\x01b".to_vec()),
                Typed::Help,
                Typed::Bytes(b"cd".to_vec()),
                Typed::Exit
            ]
        );
    }
}
