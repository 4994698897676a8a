//! Character devices and descriptors as lines of text.

use super::args::{Args, Failure};
use crate::commands::chardev::{self, ChardevRemove, ChardevSendBreak, RingbufRead, RingbufWrite};
use crate::commands::descriptors::{self, FdName};
use crate::core::Env;
use crate::error::QmpError;
use std::fmt::Write as _;

/// `info chardev`
pub(super) fn list(env: &Env) -> Result<String, QmpError> {
    let mut text = String::new();
    for info in chardev::query_chardev(env, ())? {
        let _infallible = writeln!(text, "{}: filename={}", info.label, info.filename);
    }
    Ok(text)
}

/// The one word that follows.
fn word(rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let word = args.word()?;
    args.end()?;
    Ok(word)
}

pub(super) fn remove(env: &Env, rest: &str) -> Result<String, Failure> {
    chardev::chardev_remove(env, ChardevRemove { id: word(rest)? })?;
    Ok(String::new())
}

pub(super) fn send_break(env: &Env, rest: &str) -> Result<String, Failure> {
    chardev::chardev_send_break(env, ChardevSendBreak { id: word(rest)? })?;
    Ok(String::new())
}

pub(super) fn get_fd(env: &Env, rest: &str) -> Result<String, Failure> {
    descriptors::getfd(env, FdName { fdname: word(rest)? })?;
    Ok(String::new())
}

pub(super) fn close_fd(env: &Env, rest: &str) -> Result<String, Failure> {
    descriptors::closefd(env, FdName { fdname: word(rest)? })?;
    Ok(String::new())
}

pub(super) fn ring_write(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let (device, data) = (args.word()?, args.word()?);
    args.end()?;
    chardev::ringbuf_write(env, RingbufWrite { device, data, format: None })?;
    Ok(String::new())
}

/// Control characters come as `\uXXXX`, a backslash as two.
pub(super) fn ring_read(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let (device, size) = (args.word()?, args.expression32("ringbuf_read")?);
    args.end()?;
    let read = chardev::ringbuf_read(env, RingbufRead { device, size, format: None })?;
    let mut text = String::new();
    for c in read.chars() {
        let _infallible = match c {
            '\\' => write!(text, "\\\\"),
            '\0'..='\x1f' if c != '\n' && c != '\t' => write!(text, "\\u{:04X}", u32::from(c)),
            '\x7f' => write!(text, "\\u{:04X}", u32::from(c)),
            _ => write!(text, "{c}"),
        };
    }
    text.push('\n');
    Ok(text)
}
