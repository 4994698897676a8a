//! The monitor as its clients see it: real sockets, real reactors, a machine that only remembers.

mod block;
mod chardev;
mod client;
mod contexts;
mod descriptors;
mod differences;
mod events;
mod flow;
mod fuzz;
mod human;
mod interleave;
mod life;
mod memory;
mod negotiation;
mod network;
mod preconfig;
mod qemu;
mod queries;
mod reference;
mod schema;
mod stage;
