//! From the tokens of one message to its value.

use super::lexer::Kind;
use super::text;
use serde_json::{Map, Number, Value};

/// A token of the message being collected; its bytes are `start..end` of the collected text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Parses one message. Recursion is as deep as the brackets, which the reader bounds.
pub(super) fn parse(tokens: &[Token], text: &[u8]) -> Result<Value, String> {
    Parser { tokens, text, at: 0 }.value()
}

struct Parser<'a> {
    tokens: &'a [Token],
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Result<Token, String> {
        self.tokens.get(self.at).copied().ok_or_else(|| "premature EOI".to_owned())
    }

    fn next(&mut self) -> Result<Token, String> {
        let token = self.peek()?;
        self.at += 1;
        Ok(token)
    }

    fn bytes(&self, token: Token) -> &'a [u8] {
        self.text.get(token.start as usize..token.end as usize).unwrap_or_default()
    }

    /// The token's text; numbers and keywords are ASCII.
    fn ascii(&self, token: Token) -> &'a str {
        std::str::from_utf8(self.bytes(token)).unwrap_or_default()
    }

    fn value(&mut self) -> Result<Value, String> {
        let token = self.peek()?;
        let value = match token.kind {
            Kind::LeftCurly => return self.object(),
            Kind::LeftSquare => return self.array(),
            Kind::String => Value::String(text::decode(self.bytes(token))?),
            Kind::Integer => integer(self.ascii(token))?,
            Kind::Float => float(self.ascii(token))?,
            Kind::Keyword => match self.ascii(token) {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                other => return Err(format!("invalid keyword '{other}'")),
            },
            Kind::RightCurly | Kind::RightSquare | Kind::Colon | Kind::Comma => {
                return Err("expecting value".to_owned());
            }
        };
        self.at += 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, String> {
        let mut members = Map::new();
        self.at += 1;
        if self.peek()?.kind == Kind::RightCurly {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            self.pair(&mut members)?;
            match self.next()?.kind {
                Kind::RightCurly => return Ok(Value::Object(members)),
                Kind::Comma => {}
                _ => return Err("expected separator in dict".to_owned()),
            }
        }
    }

    fn pair(&mut self, members: &mut Map<String, Value>) -> Result<(), String> {
        let Value::String(key) = self.value()? else {
            return Err("key is not a string in object".to_owned());
        };
        if self.next()?.kind != Kind::Colon {
            return Err("missing : in object pair".to_owned());
        }
        let value = self.value()?;
        if members.insert(key, value).is_some() {
            return Err("duplicate key".to_owned());
        }
        Ok(())
    }

    fn array(&mut self) -> Result<Value, String> {
        let mut elements = Vec::new();
        self.at += 1;
        if self.peek()?.kind == Kind::RightSquare {
            self.at += 1;
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            match self.next()?.kind {
                Kind::RightSquare => return Ok(Value::Array(elements)),
                Kind::Comma => {}
                _ => return Err("expected separator in list".to_owned()),
            }
        }
    }
}

/// An integer outside of `i64` and `u64` becomes a float, as in QEMU.
fn integer(digits: &str) -> Result<Value, String> {
    if let Ok(n) = digits.parse::<i64>() {
        return Ok(n.into());
    }
    if let Ok(n) = digits.parse::<u64>() {
        return Ok(n.into());
    }
    float(digits)
}

fn float(digits: &str) -> Result<Value, String> {
    digits
        .parse::<f64>()
        .ok()
        .and_then(Number::from_f64)
        .map(Value::Number)
        .ok_or_else(|| format!("number '{digits}' is out of range"))
}
