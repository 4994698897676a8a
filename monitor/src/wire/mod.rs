//! JSON as QEMU's monitor speaks it: a streaming [`Reader`] and a [`Writer`].
//!
//! Pure: no sockets, no contexts; any thread may use them. Values are `serde_json`'s.

mod lexer;
mod parser;
mod reader;
mod text;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{Limits, Reader, SyntaxError};
pub use writer::{Mark, Style, Writer};
