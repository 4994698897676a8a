//! The streaming reader.

use super::lexer::{Kind, State, Step, plain_text};
use super::parser::{self, Token};
use serde_json::Value;

/// What a peer may make the reader collect for one message.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of tokens, white space not counted.
    pub text_bytes_max: usize,
    /// Tokens.
    pub tokens_max: usize,
    /// Open brackets of both kinds.
    pub depth_max: usize,
}

impl Default for Limits {
    /// QEMU's depth; sizes that no command needs and a monitor can spare for a client.
    fn default() -> Self {
        Self { text_bytes_max: 4 << 20, tokens_max: 128 << 10, depth_max: 1024 }
    }
}

/// What was wrong with the input, in QEMU's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(String);

/// Reads JSON values from a stream of bytes that may be split anywhere.
///
/// Reading goes on after every error: what was collected is dropped, and so are bytes up to the
/// next control or structural character or 0xfe or 0xff.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    state: State,
    /// The tokens of the message so far, and behind them the unfinished one.
    text: Vec<u8>,
    token_start: usize,
    tokens: Vec<Token>,
    curly: i32,
    square: i32,
}

/// Capacity that is kept from one message to the next.
const KEPT_BYTES: usize = 16 << 10;

impl Default for Reader {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Reader {
    /// A reader at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        let text_bytes_max = limits.text_bytes_max.min(u32::MAX as usize / 2);
        Self {
            limits: Limits { text_bytes_max, ..limits },
            state: State::Start,
            text: Vec::new(),
            token_start: 0,
            tokens: Vec::new(),
            curly: 0,
            square: 0,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next value or the next error;
    /// `None` when all of `input` has been taken without reaching either.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<Value, SyntaxError>> {
        while let Some((&byte, rest)) = input.split_first() {
            if let State::Text(delimiter) = self.state {
                let (plain, rest) = input.split_at(plain_text(input, delimiter));
                if !plain.is_empty() {
                    self.text.extend_from_slice(plain);
                    *input = rest;
                    if self.text.len() > self.limits.text_bytes_max {
                        return Some(Err(self.too_large()));
                    }
                    continue;
                }
            }
            let step = self.state.step(byte);
            if !matches!(step, Step::Before(_) | Step::Restart) {
                *input = rest;
            }
            if let Some(result) = self.take(step, byte) {
                return Some(result);
            }
        }
        None
    }

    /// Drops everything collected.
    pub fn reset(&mut self) {
        self.forget();
        self.state = State::Start;
    }

    fn take(&mut self, step: Step, byte: u8) -> Option<Result<Value, SyntaxError>> {
        match step {
            Step::Skip => None,
            Step::Restart => {
                self.state = State::Start;
                None
            }
            Step::Push(state) => {
                self.text.push(byte);
                self.state = state;
                (self.text.len() > self.limits.text_bytes_max).then(|| Err(self.too_large()))
            }
            Step::Last(kind) => {
                self.text.push(byte);
                self.finish(kind)
            }
            Step::Before(kind) => self.finish(kind),
            Step::Stray => {
                self.text.push(byte);
                Some(Err(self.stray()))
            }
        }
    }

    /// Files a finished token and parses the message if it completes one.
    fn finish(&mut self, kind: Kind) -> Option<Result<Value, SyntaxError>> {
        self.state = State::Start;
        match kind {
            Kind::LeftCurly => self.curly += 1,
            Kind::RightCurly => self.curly -= 1,
            Kind::LeftSquare => self.square += 1,
            Kind::RightSquare => self.square -= 1,
            _ => {}
        }
        let refused = if self.text.len() > self.limits.text_bytes_max {
            Some("JSON token size limit exceeded")
        } else if self.tokens.len() >= self.limits.tokens_max {
            Some("JSON token count limit exceeded")
        } else if usize::try_from(self.curly + self.square).is_ok_and(|n| n > self.limits.depth_max)
        {
            Some("JSON nesting depth limit exceeded")
        } else {
            None
        };
        if let Some(text) = refused {
            self.forget();
            return Some(Err(SyntaxError(text.to_owned())));
        }
        self.tokens.push(Token {
            kind,
            start: self.token_start as u32,
            end: self.text.len() as u32,
        });
        self.token_start = self.text.len();
        let open = (self.curly > 0 || self.square > 0) && self.curly >= 0 && self.square >= 0;
        if open {
            return None;
        }
        let result = parser::parse(&self.tokens, &self.text).map_err(|text| syntax(&text));
        self.forget();
        Some(result)
    }

    fn stray(&mut self) -> SyntaxError {
        let token = self.text.get(self.token_start..).unwrap_or_default();
        // QEMU prints a C string.
        let shown = token.split(|&byte| byte == 0).next().unwrap_or_default();
        let error = syntax(&format!("stray '{}'", String::from_utf8_lossy(shown)));
        self.forget();
        self.state = State::Recovery;
        error
    }

    fn too_large(&mut self) -> SyntaxError {
        self.forget();
        self.state = State::Recovery;
        SyntaxError("JSON token size limit exceeded".to_owned())
    }

    fn forget(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES);
        self.tokens.clear();
        self.tokens.shrink_to(KEPT_BYTES / size_of::<Token>());
        self.token_start = 0;
        self.curly = 0;
        self.square = 0;
    }
}

fn syntax(text: &str) -> SyntaxError {
    SyntaxError(format!("JSON parse error, {text}"))
}
