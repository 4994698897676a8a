//! The arguments of a line: expressions, words and formats, with QEMU's texts for what is wrong.

use crate::error::QmpError;

/// Why a line failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command did.
    Command(QmpError),
    /// It is not written as it must be.
    Syntax(String),
    /// An argument is missing or one too many; the text follows the command's name.
    Argument(&'static str),
}

impl From<QmpError> for Failure {
    fn from(error: QmpError) -> Self {
        Self::Command(error)
    }
}

fn syntax(text: impl Into<String>) -> Failure {
    Failure::Syntax(text.into())
}

/// Arguments that have not been taken, from the left.
pub(super) struct Args<'a> {
    rest: &'a str,
}

impl<'a> Args<'a> {
    pub(super) fn new(rest: &'a str) -> Self {
        Self { rest: rest.trim_start() }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default().trim_start();
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Failure> {
        match self.rest {
            "" => Ok(()),
            _ => Err(Failure::Argument("extraneous characters at the end of line")),
        }
    }

    /// A number, or several with the operators of C: `+ -` bind weaker than `& | ^`, as in QEMU.
    pub(super) fn expression(&mut self) -> Result<i64, Failure> {
        self.binary(0, 0)
    }

    /// An expression that fits 32 bits.
    pub(super) fn expression32(&mut self, name: &str) -> Result<i64, Failure> {
        let value = self.expression()?;
        if i32::try_from(value).is_err() && u32::try_from(value).is_err() {
            let text = format!("'{name}' has failed: integer is for 32-bit values");
            return Err(syntax(text));
        }
        Ok(value)
    }

    /// `level` 0: sums, 1: bits, 2: products. `depth` bounds the recursion.
    fn binary(&mut self, level: usize, depth: usize) -> Result<i64, Failure> {
        const OPERATORS: [&str; 3] = ["+-", "&|^", "*/%"];
        let Some(operators) = OPERATORS.get(level) else { return self.unary(depth) };
        let mut value = self.binary(level + 1, depth)?;
        while let Some(operator) = self.peek().filter(|c| operators.contains(*c)) {
            self.skip(1);
            let other = self.binary(level + 1, depth)?;
            if other == 0 && matches!(operator, '/' | '%') {
                return Err(syntax("division by zero"));
            }
            value = match operator {
                '+' => value.wrapping_add(other),
                '-' => value.wrapping_sub(other),
                '&' => value & other,
                '|' => value | other,
                '^' => value ^ other,
                '*' => value.wrapping_mul(other),
                '/' => value.wrapping_div(other),
                _ => value.wrapping_rem(other),
            };
        }
        Ok(value)
    }

    fn unary(&mut self, depth: usize) -> Result<i64, Failure> {
        const DEPTH_MAX: usize = 64;
        if depth > DEPTH_MAX {
            return Err(syntax("the expression is nested too deeply"));
        }
        let Some(first) = self.peek() else { return Err(syntax("unexpected end of expression")) };
        match first {
            '+' | '-' | '~' => {
                self.skip(1);
                let value = self.unary(depth + 1)?;
                Ok(match first {
                    '-' => value.wrapping_neg(),
                    '~' => !value,
                    _ => value,
                })
            }
            '(' => {
                self.skip(1);
                let value = self.binary(0, depth + 1)?;
                if self.peek() != Some(')') {
                    return Err(syntax("')' expected"));
                }
                self.skip(1);
                Ok(value)
            }
            '0'..='9' => self.number(),
            _ => Err(syntax(format!("invalid char '{first}' in expression"))),
        }
    }

    /// As strtoull(3) with base 0.
    fn number(&mut self) -> Result<i64, Failure> {
        let hexadecimal = self
            .rest
            .strip_prefix("0x")
            .or_else(|| self.rest.strip_prefix("0X"))
            .filter(|digits| digits.starts_with(|c: char| c.is_ascii_hexdigit()));
        let (digits, radix) = match hexadecimal {
            Some(digits) => (digits, 16),
            None if self.rest.starts_with('0') => (self.rest, 8),
            None => (self.rest, 10),
        };
        let length = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        let number = u64::from_str_radix(digits.get(..length).unwrap_or_default(), radix);
        let number = number.map_err(|_| syntax("number too large"))?;
        self.skip(self.rest.len() - digits.len() + length);
        Ok(number as i64)
    }

    /// A word; in quotes it may contain spaces, quotes and `\n`, `\r`, `\\`, `\'`, `\"`.
    pub(super) fn word(&mut self) -> Result<String, Failure> {
        if self.rest.is_empty() {
            return Err(Failure::Argument("string expected"));
        }
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
            let word = self.rest.get(..end).unwrap_or_default().to_owned();
            self.skip(end);
            return Ok(word);
        };
        let (mut word, mut chars) = (String::new(), quoted.char_indices());
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.skip(at + 2);
                    return Ok(word);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => word.push('\n'),
                    Some('r') => word.push('\r'),
                    Some(c @ ('\\' | '\'' | '"')) => word.push(c),
                    Some(c) => return Err(syntax(format!("unsupported escape code: '\\{c}'"))),
                    None => break,
                },
                c => word.push(c),
            }
        }
        Err(syntax("unterminated string"))
    }

    /// `on` or `off`.
    pub(super) fn switch(&mut self) -> Result<bool, Failure> {
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let on = match self.rest.get(..end) {
            Some("on") => true,
            Some("off") => false,
            _ => return Err(syntax("Expected 'on' or 'off'")),
        };
        self.skip(end);
        Ok(on)
    }

    /// The rest of the line.
    pub(super) fn rest(&self) -> Result<&'a str, Failure> {
        match self.rest {
            "" => Err(Failure::Argument("string expected")),
            rest => Ok(rest.trim_end()),
        }
    }

    /// `/fmt`: how many items, how they are shown and how large they are.
    pub(super) fn format(&mut self) -> Result<Format, Failure> {
        let mut format = Format::default();
        let Some(text) = self.rest.strip_prefix('/') else { return Ok(format) };
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let text = text.get(..end).unwrap_or_default();
        let letters = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = text.get(..text.len() - letters.len()).unwrap_or_default();
        if !digits.is_empty() {
            format.count = digits.parse().map_err(|_| syntax("number too large"))?;
        }
        for letter in letters.chars() {
            match letter {
                'o' | 'd' | 'u' | 'x' | 'c' => format.letter = letter,
                'b' => format.bytes = 1,
                'h' => format.bytes = 2,
                'w' => format.bytes = 4,
                'g' | 'L' => format.bytes = 8,
                _ => return Err(syntax(format!("invalid char in format: '{letter}'"))),
            }
        }
        self.skip(end + 1);
        Ok(format)
    }
}

/// How numbers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) count: u64,
    /// `x`, `d`, `u`, `o` or `c`.
    pub(super) letter: char,
    /// Bytes of an item.
    pub(super) bytes: usize,
}

impl Default for Format {
    fn default() -> Self {
        Self { count: 1, letter: 'x', bytes: 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Args, Failure, Format};

    fn text(failure: Failure) -> String {
        match failure {
            Failure::Syntax(text) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn expressions_are_those_of_qemu() {
        for (written, value) in [
            ("10", 10),
            ("0x10+0x10*2", 48),
            ("010", 8),
            ("0", 0),
            ("-1", -1),
            ("~0 & 0xff", 255),
            ("1 + 2 & 3", 3),
            ("(1 + 2) * 3 % 4", 1),
            ("0xffffffffffffffff", -1),
        ] {
            let mut args = Args::new(written);
            assert_eq!(args.expression().map_err(text), Ok(value), "{written}");
            args.end().map_err(text).unwrap();
        }
        for (written, error) in [
            ("", "unexpected end of expression"),
            ("1 +", "unexpected end of expression"),
            ("a", "invalid char 'a' in expression"),
            ("1/0", "division by zero"),
            ("(1", "')' expected"),
            ("99999999999999999999", "number too large"),
        ] {
            assert_eq!(Args::new(written).expression().map_err(text), Err(error.to_owned()));
        }
        assert!(Args::new(&"(".repeat(100_000)).expression().is_err());
        assert!(Args::new(&"-".repeat(100_000)).expression().is_err());
    }

    #[test]
    fn words_may_be_quoted() {
        let mut args = Args::new(r#" a "b c\n\"" d"#);
        assert_eq!(args.word().map_err(text), Ok("a".to_owned()));
        assert_eq!(args.word().map_err(text), Ok("b c\n\"".to_owned()));
        assert!(matches!(args.end(), Err(Failure::Argument(_))));
        assert_eq!(Args::new("\"a").word().map_err(text), Err("unterminated string".to_owned()));
    }

    #[test]
    fn formats_have_a_count_a_letter_and_a_size() {
        let mut args = Args::new("/4xg 8");
        let format = Format { count: 4, letter: 'x', bytes: 8 };
        assert_eq!(args.format().map_err(text), Ok(format));
        assert_eq!(args.expression().map_err(text), Ok(8));
        assert_eq!(Args::new("8").format().map_err(text), Ok(Format::default()));
        let error = Args::new("/2s 0").format().map_err(text);
        assert_eq!(error, Err("invalid char in format: 's'".to_owned()));
    }
}
