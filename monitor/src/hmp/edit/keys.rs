//! From bytes to keys: UTF-8, and the escape sequences of terminals (ECMA-48, xterm).

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Tab,
    Interrupt,
    Backspace,
    Delete,
    DeleteWord,
    KillLine,
    KillRest,
    Left,
    Right,
    Home,
    End,
    Older,
    Newer,
    ClearScreen,
    /// Something without a meaning here.
    Unknown,
}

/// Parameter bytes of a sequence that are kept; longer ones mean nothing here.
const PARAMETERS_MAX: usize = 8;

#[derive(Debug, Default)]
enum State {
    #[default]
    Ground,
    /// A carriage return came, whose line feed is part of the same key.
    AfterReturn,
    Escape,
    /// `ESC [` and parameters.
    Control(Vec<u8>),
    /// `ESC O`.
    Shift3,
    /// A character, and how many bytes it still lacks.
    Utf8(Vec<u8>, usize),
}

/// Assembles keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    state: State,
}

impl Keys {
    /// Takes a byte; gives the key that it ends.
    pub(super) fn take(&mut self, byte: u8) -> Option<Key> {
        match std::mem::take(&mut self.state) {
            State::AfterReturn if byte == b'\n' => None,
            State::Ground | State::AfterReturn => self.begin(byte),
            State::Escape => {
                match byte {
                    b'[' => self.state = State::Control(Vec::new()),
                    b'O' => self.state = State::Shift3,
                    // Alt and a key, or Escape itself: nothing here.
                    _ => return Some(Key::Unknown),
                }
                None
            }
            State::Control(mut parameters) => {
                if (0x40..=0x7e).contains(&byte) {
                    return Some(sequence(&parameters, byte));
                }
                if parameters.len() < PARAMETERS_MAX {
                    parameters.push(byte);
                }
                self.state = State::Control(parameters);
                None
            }
            State::Shift3 => Some(sequence(b"", byte)),
            State::Utf8(mut bytes, missing) => {
                if byte & 0xc0 != 0x80 {
                    // The character broke off; this byte begins another key.
                    return self.begin(byte);
                }
                bytes.push(byte);
                if missing > 1 {
                    self.state = State::Utf8(bytes, missing - 1);
                    return None;
                }
                let text = std::str::from_utf8(&bytes).ok();
                Some(text.and_then(|text| text.chars().next()).map_or(Key::Unknown, Key::Char))
            }
        }
    }

    fn begin(&mut self, byte: u8) -> Option<Key> {
        let missing = match byte {
            0x1b => {
                self.state = State::Escape;
                return None;
            }
            b'\r' => {
                self.state = State::AfterReturn;
                return Some(Key::Enter);
            }
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            _ => return Some(single(byte)),
        };
        self.state = State::Utf8(vec![byte], missing);
        None
    }
}

fn single(byte: u8) -> Key {
    const fn ctrl(letter: u8) -> u8 {
        letter & 0x1f
    }
    const A: u8 = ctrl(b'A');
    const B: u8 = ctrl(b'B');
    const C: u8 = ctrl(b'C');
    const D: u8 = ctrl(b'D');
    const E: u8 = ctrl(b'E');
    const F: u8 = ctrl(b'F');
    const H: u8 = ctrl(b'H');
    const K: u8 = ctrl(b'K');
    const L: u8 = ctrl(b'L');
    const N: u8 = ctrl(b'N');
    const P: u8 = ctrl(b'P');
    const U: u8 = ctrl(b'U');
    const W: u8 = ctrl(b'W');
    match byte {
        b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x20..=0x7e => Key::Char(char::from(byte)),
        0x7f | H => Key::Backspace,
        A => Key::Home,
        B => Key::Left,
        C => Key::Interrupt,
        D => Key::Delete,
        E => Key::End,
        F => Key::Right,
        K => Key::KillRest,
        L => Key::ClearScreen,
        N => Key::Newer,
        P => Key::Older,
        U => Key::KillLine,
        W => Key::DeleteWord,
        _ => Key::Unknown,
    }
}

/// The last byte of a control sequence and its parameters.
fn sequence(parameters: &[u8], last: u8) -> Key {
    match (parameters, last) {
        (_, b'A') => Key::Older,
        (_, b'B') => Key::Newer,
        (_, b'C') => Key::Right,
        (_, b'D') => Key::Left,
        (_, b'H') | (b"1" | b"7", b'~') => Key::Home,
        (_, b'F') | (b"4" | b"8", b'~') => Key::End,
        (b"3", b'~') => Key::Delete,
        _ => Key::Unknown,
    }
}
