//! A line editor for a terminal at the far end of a stream: cursor keys, history, completion.
//!
//! A state machine: a byte in, what to show out. It never waits and never reads, so that a session
//! on a reactor can use it; libraries for the host's own terminal block instead.

mod history;
mod keys;
#[cfg(test)]
mod tests;

use super::line::LINE_BYTES_MAX;
use history::History;
pub(super) use keys::Key;
use keys::Keys;
use std::io::Write as _;

const BELL: &[u8] = b"\x07";
/// Erase to the end of the screen (ECMA-48 ED).
const ERASE_BELOW: &[u8] = b"\x1b[J";

/// What a byte led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Nothing,
    /// The line is complete.
    Line(String),
    /// The line was given up (Ctrl-C).
    Interrupted,
    /// The user asks what may follow this beginning of the line (Tab).
    Complete(String),
}

/// Edits one line after the other.
#[derive(Debug)]
pub(super) struct Editor {
    prompt: &'static str,
    keys: Keys,
    line: Vec<char>,
    /// Characters before the cursor.
    cursor: usize,
    history: History,
}

impl Editor {
    pub(super) fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            keys: Keys::default(),
            line: Vec::new(),
            cursor: 0,
            history: History::default(),
        }
    }

    /// Assembles a key outside of a line.
    pub(super) fn key(&mut self, byte: u8) -> Option<Key> {
        self.keys.take(byte)
    }

    /// Takes a byte and appends what is to be shown.
    pub(super) fn take(&mut self, byte: u8, out: &mut Vec<u8>) -> Typed {
        let Some(key) = self.keys.take(byte) else { return Typed::Nothing };
        match key {
            Key::Enter => {
                out.extend_from_slice(b"\r\n");
                let line: String = std::mem::take(&mut self.line).into_iter().collect();
                self.cursor = 0;
                self.history.add(&line);
                return Typed::Line(line);
            }
            Key::Interrupt => {
                out.extend_from_slice(b"^C\r\n");
                self.line.clear();
                self.cursor = 0;
                self.history.leave();
                return Typed::Interrupted;
            }
            Key::Tab => return Typed::Complete(self.line[..self.cursor].iter().collect()),
            Key::Left | Key::Right | Key::Home | Key::End => self.move_cursor(key, out),
            Key::Older | Key::Newer => self.browse(key, out),
            Key::ClearScreen => {
                out.extend_from_slice(b"\x1b[2J\x1b[H");
                self.show(out);
            }
            Key::Char(c) => self.insert(&[c], out),
            Key::Unknown => {}
            Key::Backspace if self.cursor == 0 => {}
            Key::Backspace => self.delete(self.cursor - 1..self.cursor, out),
            Key::Delete if self.cursor == self.line.len() => {}
            Key::Delete => self.delete(self.cursor..self.cursor + 1, out),
            Key::KillRest => self.delete(self.cursor..self.line.len(), out),
            Key::KillLine => self.delete(0..self.cursor, out),
            Key::DeleteWord => self.delete(self.word_start()..self.cursor, out),
        }
        Typed::Nothing
    }

    /// Shows prompt and line, from the left margin.
    pub(super) fn show(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prompt.as_bytes());
        self.show_from(0, out);
    }

    /// Answers [`Typed::Complete`] with the words that the one before the cursor may become.
    pub(super) fn complete(&mut self, words: &[String], out: &mut Vec<u8>) {
        let typed: String = self.line[self.word_start_exact()..self.cursor].iter().collect();
        let common = common_prefix(words);
        match words {
            [] => out.extend_from_slice(BELL),
            [only] => {
                let rest: Vec<char> = only.chars().skip(typed.chars().count()).collect();
                self.insert(&rest, out);
                if self.line.get(self.cursor).is_none_or(|next| *next != ' ') {
                    self.insert(&[' '], out);
                }
            }
            _ if common.len() > typed.len() => {
                let rest: Vec<char> = common.chars().skip(typed.chars().count()).collect();
                self.insert(&rest, out);
            }
            _ => {
                out.extend_from_slice(b"\r\n");
                let width = words.iter().map(|word| word.chars().count()).max().unwrap_or(1) + 2;
                for row in words.chunks((78 / width).max(1)) {
                    for word in row {
                        let _infallible = write!(out, "{word:width$}");
                    }
                    out.extend_from_slice(b"\r\n");
                }
                self.show(out);
            }
        }
    }

    /// Shows the line from a character on and leaves the terminal's cursor at ours.
    fn show_from(&self, first: usize, out: &mut Vec<u8>) {
        let rest: String = self.line[first..].iter().collect();
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(ERASE_BELOW);
        back(self.line.len() - self.cursor, out);
    }

    fn insert(&mut self, chars: &[char], out: &mut Vec<u8>) {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
        if chars.len() > room {
            out.extend_from_slice(BELL);
            return;
        }
        let at = self.cursor;
        self.line.splice(at..at, chars.iter().copied());
        self.cursor += chars.len();
        if self.cursor == self.line.len() {
            let text: String = chars.iter().collect();
            out.extend_from_slice(text.as_bytes());
        } else {
            self.show_from(at, out);
        }
    }

    fn delete(&mut self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        back(self.cursor - range.start, out);
        self.cursor = range.start;
        self.line.drain(range);
        self.show_from(self.cursor, out);
    }

    fn move_cursor(&mut self, key: Key, out: &mut Vec<u8>) {
        let to = match key {
            Key::Left => self.cursor.saturating_sub(1),
            Key::Right => (self.cursor + 1).min(self.line.len()),
            Key::Home => 0,
            _ => self.line.len(),
        };
        if to > self.cursor {
            let text: String = self.line[self.cursor..to].iter().collect();
            out.extend_from_slice(text.as_bytes());
        } else {
            back(self.cursor - to, out);
        }
        self.cursor = to;
    }

    fn browse(&mut self, key: Key, out: &mut Vec<u8>) {
        let current: String = self.line.iter().collect();
        let found = match key {
            Key::Older => self.history.older(&current),
            _ => self.history.newer(),
        };
        let Some(line) = found else {
            out.extend_from_slice(BELL);
            return;
        };
        back(self.cursor, out);
        self.line = line.chars().collect();
        self.cursor = self.line.len();
        self.show_from(0, out);
    }

    /// Where the word before the cursor begins, white space behind it included.
    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |last| last + 1);
        before[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |space| space + 1)
    }

    /// Where the word that the cursor touches begins.
    fn word_start_exact(&self) -> usize {
        let before = &self.line[..self.cursor];
        before.iter().rposition(|c| c.is_whitespace()).map_or(0, |space| space + 1)
    }
}

/// Moves the terminal's cursor to the left.
fn back(columns: usize, out: &mut Vec<u8>) {
    if columns > 0 {
        let _infallible = write!(out, "\x1b[{columns}D");
    }
}

fn common_prefix(words: &[String]) -> &str {
    let Some((first, others)) = words.split_first() else { return "" };
    let mut end = first.len();
    while !(first.is_char_boundary(end) && others.iter().all(|o| o.starts_with(&first[..end]))) {
        end -= 1;
    }
    &first[..end]
}
