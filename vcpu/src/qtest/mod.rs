//! The accelerator for device tests: a machine with no processor and no KVM.
//!
//! A program outside does the accesses that a guest would do, through [`PhysicalMemory`] and the port
//! space. Doorbells are accesses like others. A message-signalled interrupt is a store of its data to
//! its address, which may be plain RAM; an interrupt line only tells whoever listens.

mod memory;
mod platform;
#[cfg(test)]
mod tests;

pub use memory::PhysicalMemory;
pub use platform::Qtest;
