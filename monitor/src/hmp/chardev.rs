//! Character devices and descriptors as lines of text.

use super::args::{Args, Failure};
use crate::commands::chardev::{self, ChardevRemove, ChardevSendBreak, RingbufRead, RingbufWrite};
use crate::commands::descriptors::{self, FdName};
use crate::core::Env;
use crate::error::QmpError;
use devices::chardev::Backend;
use devices::chardev::parse::parse;
use devices::text::split_commas;
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

/// An option string of `-chardev`: the id, what it is, and whether front ends share it.
fn option(text: &str) -> Result<(String, Backend, bool), QmpError> {
    parse(text).map_err(|error| {
        QmpError::generic(error.strip_prefix("-chardev: ").unwrap_or(&error).to_owned())
    })
}

/// `chardev-add socket,id=ID,...`
pub(super) async fn add(env: &Env, rest: &str) -> Result<String, Failure> {
    let (id, backend, shared) = option(Args::new(rest).rest()?)?;
    let chardevs = env.machine()?.chardevs();
    let base = shared.then(|| format!("{id}-base"));
    let made = match base.clone() {
        None => chardevs.add(&id, backend).await,
        Some(base) => {
            let pty = chardevs.add(&base, backend).await.map_err(QmpError::from)?;
            chardevs.add(&id, Backend::Mux { base }).await.map(|_| pty)
        }
    };
    let pty = made.map_err(|error| {
        // What was made for it; somebody may have removed it meanwhile.
        let _gone = base.map(|base| chardevs.remove(&base));
        QmpError::from(error)
    })?;
    Ok(told(&id, pty))
}

/// `chardev-change ID socket,...`
pub(super) async fn change(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let id = args.word()?;
    let asked = args.rest()?;
    let chardevs = env.machine()?.chardevs();
    if !chardevs.contains(&id) {
        return Err(QmpError::generic(format!("Chardev '{id}' does not exist")).into());
    }
    if split_commas(asked).iter().any(|part| part.starts_with("id=")) {
        return Err(QmpError::generic("Unexpected 'id' parameter").into());
    }
    let (id, backend, shared) = option(&format!("{asked},id={id}"))?;
    if shared {
        return Err(QmpError::generic("Mux device hotswap not supported yet").into());
    }
    chardevs.check_change(&id, &backend).map_err(QmpError::from)?;
    let pty = chardevs.change(&id, backend).await.map_err(QmpError::from)?;
    Ok(told(&id, pty))
}

/// Where a pseudo terminal is to be found.
fn told(id: &str, pty: Option<String>) -> String {
    let line = |pty| format!("char device redirected to {pty} (label {id})\n");
    pty.map(line).unwrap_or_default()
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

/// Control characters come as `\u` with four hexadecimal digits, a backslash as two.
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
