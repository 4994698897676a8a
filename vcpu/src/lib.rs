//! KVM, guest memory, address spaces, vCPU threads and boot loaders. No device is named here:
//! devices are behind [`bus::BusDevice`] and see the machine through [`irq::Platform`].
pub mod address_space;
pub mod bus;
pub mod cpuid;
pub mod irq;
pub mod memory;
