//! KVM, guest memory, address spaces, vCPU threads and boot loaders. No device is named here:
//! devices are behind [`bus::BusDevice`] and see the machine through [`irq::Platform`].
pub mod address_space;
pub mod boot;
pub mod bus;
pub mod cpuid;
mod emulate;
pub mod irq;
pub mod kvm;
pub mod memory;
mod sys;
#[cfg(test)]
mod testing;
pub mod vcpus;
