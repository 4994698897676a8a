//! The token state machine: one byte in, one decision out.
//!
//! The language is RFC 8259 with the extensions of QEMU's reader: strings may also be delimited by
//! apostrophes, `\'` is an escape, and a byte that can start no token (0xff is the customary one)
//! throws away what has been collected.

/// What a finished token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    LeftCurly,
    RightCurly,
    LeftSquare,
    RightSquare,
    Colon,
    Comma,
    Integer,
    Float,
    Keyword,
    String,
}

/// Where in a token the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Between tokens.
    Start,
    /// After an error: bytes are skipped until one that may begin anew.
    Recovery,
    /// In a string with this delimiter.
    Text(u8),
    /// After a backslash in a string with this delimiter.
    Escape(u8),
    Sign,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    Keyword,
}

/// What to do with a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It belongs to no token.
    Skip,
    /// It belongs to the token, which goes on in this state.
    Push(State),
    /// It ends the token and belongs to it.
    Last(Kind),
    /// The token ended before it; look at it again from [`State::Start`].
    Before(Kind),
    /// Look at it again from [`State::Start`].
    Restart,
    /// It fits nothing: the token so far, with it, is an error.
    Stray,
}

impl State {
    pub(super) fn step(self, byte: u8) -> Step {
        match self {
            Self::Start => start(byte),
            Self::Recovery => recover(byte),
            Self::Text(delimiter) => match byte {
                _ if byte == delimiter => Step::Last(Kind::String),
                b'\\' => Step::Push(Self::Escape(delimiter)),
                0x20..=0xfd => Step::Push(self),
                _ => Step::Stray,
            },
            Self::Escape(delimiter) => match byte {
                0x20..=0xfd => Step::Push(Self::Text(delimiter)),
                _ => Step::Stray,
            },
            Self::Keyword => match byte {
                b'a'..=b'z' => Step::Push(self),
                _ => Step::Before(Kind::Keyword),
            },
            _ => self.number(byte),
        }
    }

    fn number(self, byte: u8) -> Step {
        match (self, byte) {
            (Self::Sign, b'0') => Step::Push(Self::Zero),
            (Self::Sign, b'1'..=b'9') | (Self::Digits, b'0'..=b'9') => Step::Push(Self::Digits),
            (Self::Zero, b'0'..=b'9') => Step::Stray,
            (Self::Zero | Self::Digits, b'.') => Step::Push(Self::Point),
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Step::Push(Self::Exponent),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Step::Push(Self::Fraction),
            (Self::Exponent, b'+' | b'-') => Step::Push(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Step::Push(Self::ExponentDigits)
            }
            (Self::Zero | Self::Digits, _) => Step::Before(Kind::Integer),
            (Self::Fraction | Self::ExponentDigits, _) => Step::Before(Kind::Float),
            _ => Step::Stray,
        }
    }
}

fn start(byte: u8) -> Step {
    match byte {
        b' ' | b'\t' | b'\r' | b'\n' => Step::Skip,
        b'"' | b'\'' => Step::Push(State::Text(byte)),
        b'{' => Step::Last(Kind::LeftCurly),
        b'}' => Step::Last(Kind::RightCurly),
        b'[' => Step::Last(Kind::LeftSquare),
        b']' => Step::Last(Kind::RightSquare),
        b':' => Step::Last(Kind::Colon),
        b',' => Step::Last(Kind::Comma),
        b'-' => Step::Push(State::Sign),
        b'0' => Step::Push(State::Zero),
        b'1'..=b'9' => Step::Push(State::Digits),
        b'a'..=b'z' => Step::Push(State::Keyword),
        _ => Step::Stray,
    }
}

/// Control characters but TAB, structural characters and 0xfe and 0xff begin anew.
fn recover(byte: u8) -> Step {
    match byte {
        b'\t' => Step::Skip,
        0..=0x1f | 0xfe | 0xff | b'{' | b'}' | b'[' | b']' | b':' | b',' => Step::Restart,
        _ => Step::Skip,
    }
}

/// Length of the head of `input` that continues a string with this delimiter without changing its
/// state.
pub(super) fn plain_text(input: &[u8], delimiter: u8) -> usize {
    let plain = |byte: u8| byte != delimiter && byte != b'\\' && (0x20..=0xfd).contains(&byte);
    input.iter().position(|&byte| !plain(byte)).unwrap_or(input.len())
}
