//! The writer: QEMU's two layouts, into one buffer.

use super::text::is_character;
use serde_json::{Number, Value};
use std::io::Write as _;

/// How replies and events are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// One line: `{"a": 1, "b": [2, 3]}`.
    #[default]
    Line,
    /// A member or element a line, four spaces a level (`pretty=on`).
    Pretty,
}

/// Appends JSON to a buffer. The caller keeps the grammar: a [`key`](Self::key) before each member,
/// an [`element`](Self::element) before each element, each `begin_` with its `end_`.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    style: Style,
    depth: usize,
    /// Something precedes on this level, so that a comma is due.
    follows: bool,
}

impl Writer {
    /// A writer with an empty buffer.
    pub fn new(style: Style) -> Self {
        Self { out: Vec::with_capacity(128), style, depth: 0, follows: false }
    }

    /// The layout.
    pub fn style(&self) -> Style {
        self.style
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Ends a message: `\r\n`, and gives what was written.
    pub fn into_message(mut self) -> Vec<u8> {
        self.line_end();
        self.out
    }

    /// A place to come back to with [`rewind`](Self::rewind).
    pub fn mark(&self) -> Mark {
        Mark { length: self.out.len(), depth: self.depth, follows: self.follows }
    }

    /// Takes back everything written since `mark`.
    pub fn rewind(&mut self, mark: &Mark) {
        self.out.truncate(mark.length);
        self.depth = mark.depth;
        self.follows = mark.follows;
    }

    /// `{`
    pub fn begin_object(&mut self) {
        self.begin(b'{');
    }

    /// `}`
    pub fn end_object(&mut self) {
        self.end(b'}');
    }

    /// `[`
    pub fn begin_array(&mut self) {
        self.begin(b'[');
    }

    /// `]`
    pub fn end_array(&mut self) {
        self.end(b']');
    }

    /// The name of a member, whose value comes next.
    pub fn key(&mut self, name: &str) {
        self.separate();
        self.text(name);
        self.out.extend_from_slice(b": ");
        self.follows = true;
    }

    /// An element comes next.
    pub fn element(&mut self) {
        self.separate();
        self.follows = true;
    }

    /// A string: ASCII only, everything else escaped.
    pub fn str(&mut self, text: &str) {
        self.text(text);
    }

    /// A signed number.
    pub fn int(&mut self, n: i64) {
        let _ = write!(self.out, "{n}");
    }

    /// An unsigned number.
    pub fn uint(&mut self, n: u64) {
        let _ = write!(self.out, "{n}");
    }

    /// A floating-point number in the shortest form that reads back the same; what JSON cannot
    /// express becomes `null`.
    pub fn float(&mut self, n: f64) {
        match Number::from_f64(n) {
            Some(n) => {
                let _ = write!(self.out, "{n}");
            }
            None => self.null(),
        }
    }

    /// `true` or `false`
    pub fn bool(&mut self, b: bool) {
        self.out.extend_from_slice(if b { b"true" } else { b"false" });
    }

    /// `null`
    pub fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    /// A value that was written before, in the same layout and from the same depth.
    pub(crate) fn raw(&mut self, json: &[u8]) {
        self.out.extend_from_slice(json);
    }

    /// Any value. Recurses as deep as the value.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.null(),
            Value::Bool(b) => self.bool(*b),
            Value::Number(n) => {
                let _ = write!(self.out, "{n}");
            }
            Value::String(text) => self.text(text),
            Value::Array(elements) => {
                self.begin_array();
                for element in elements {
                    self.element();
                    self.value(element);
                }
                self.end_array();
            }
            Value::Object(members) => {
                self.begin_object();
                for (name, member) in members {
                    self.key(name);
                    self.value(member);
                }
                self.end_object();
            }
        }
    }

    fn begin(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.depth += 1;
        self.follows = false;
    }

    fn end(&mut self, bracket: u8) {
        self.depth = self.depth.saturating_sub(1);
        if self.style == Style::Pretty {
            self.new_line();
        }
        self.out.push(bracket);
        self.follows = true;
    }

    fn separate(&mut self) {
        match (self.follows, self.style) {
            (true, Style::Line) => self.out.extend_from_slice(b", "),
            (true, Style::Pretty) => {
                self.out.push(b',');
                self.new_line();
            }
            (false, Style::Line) => {}
            (false, Style::Pretty) => self.new_line(),
        }
    }

    fn new_line(&mut self) {
        self.line_end();
        self.out.resize(self.out.len() + 4 * self.depth, b' ');
    }

    fn line_end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'"');
        let mut rest = text;
        while let Some(at) = rest.bytes().position(needs_escape) {
            let (plain, tail) = rest.split_at(at);
            self.out.extend_from_slice(plain.as_bytes());
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                self.escape(c);
            }
            rest = chars.as_str();
        }
        self.out.extend_from_slice(rest.as_bytes());
        self.out.push(b'"');
    }

    fn escape(&mut self, c: char) {
        let short: &[u8] = match c {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\u{8}' => b"\\b",
            '\u{c}' => b"\\f",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            _ => {
                // What no reader takes, as in QEMU: an error may quote it.
                let c = if is_character(c) { c } else { char::REPLACEMENT_CHARACTER };
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(self.out, "\\u{unit:04X}");
                }
                return;
            }
        };
        self.out.extend_from_slice(short);
    }
}

/// A position in a [`Writer`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    length: usize,
    depth: usize,
    follows: bool,
}

fn needs_escape(byte: u8) -> bool {
    !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\'
}
