//! KVM, guest memory, address spaces and boot loaders (in the making).
pub mod bus;
pub mod irq;
