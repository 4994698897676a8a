//! Character devices: streams of bytes to the outside, by id.
//!
//! | what | where | runs in |
//! |---|---|---|
//! | the table of a machine: [`Chardevs`] | `table` | made in any context; back ends in *iohandler* |
//! | what they are made of: [`Backend`], [`Address`] | `options`, `address` | pure |
//! | what users write: [`parse`] | `parse` | pure |
//! | front ends: [`FrontEnd`], [`Connection`] | `slot`, `connection` | where the front end lives |
//! | a front end of single bytes, as a serial port is: [`BytePort`] | `port` | *iohandler* |
//! | the back ends | `socket`, `pty`, `ringbuf`, `mux`, `terminal` | *iohandler* |
//! | listening sockets and who may connect: [`listener`], [`AllowList`] | `listener`, `peer` | any |
//!
//! A back end is a source of connections, one at a time. It makes the next one only after its front
//! end has dropped the one before. Front ends get descriptors, so that a monitor can take passed
//! descriptors and ask who is at the other end; whatever is no socket can be bridged to one.

mod address;
mod backend;
mod connection;
mod escape;
mod inherited;
pub mod listener;
mod mux;
mod options;
pub mod parse;
mod peer;
mod port;
mod pty;
mod ringbuf;
mod slot;
mod socket;
mod table;
mod terminal;

pub use address::Address;
pub use connection::{Connection, Held};
pub use inherited::inherited;
pub use options::{Backend, RINGBUF_SIZE, SocketFrom, SocketOptions};
pub use peer::{AllowList, Peer};
pub use port::BytePort;
pub use slot::{FrontEnd, FrontEndKind};
pub use socket::admits;
pub use table::{ChardevInfo, Chardevs};
pub use terminal::screen;

/// The kinds of back ends there are, as QEMU names them.
pub const BACKENDS: &[&str] =
    &["file", "memory", "mux", "null", "pty", "ringbuf", "socket", "stdio"];
