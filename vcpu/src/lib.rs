//! Guests on KVM: memory, address spaces, interrupts, vCPU threads and boot loaders.
//!
//! | what | where | called from |
//! |---|---|---|
//! | guest RAM and the machine map | [`memory`] | any thread |
//! | which device answers an access: [`address_space::AddressSpace`] | [`address_space`] | readers: vCPU threads, lock-free; writers: any thread |
//! | what devices implement: [`bus::BusDevice`] | [`bus`] | vCPU threads; must not block |
//! | what devices use: [`irq::Platform`], free of KVM | [`irq`] | any thread, off the data path |
//! | `/dev/kvm` and a machine on it: [`kvm::Kvm`], [`kvm::Vm`] | [`kvm`] | any thread |
//! | `-cpu` and the processors' arrangement | [`cpuid`] | any thread |
//! | kernels, initrds and their boot protocols: [`boot::Boot`] | [`boot`] | threads that may block |
//! | linear addresses, for debuggers: [`linear::Linear`] | [`linear`] | any thread |
//! | vCPU threads and their handle: [`vcpus::Vcpus`] | [`vcpus`] | any thread; replies are futures |
//! | machines whose processor is a test program: [`qtest::Qtest`] | [`qtest`] | any thread |
//! | finishing instructions that KVM refuses | `emulate` | vCPU threads |
//!
//! A machine is made in that order: [`kvm::Kvm::open`], [`memory::build`], [`kvm::Vm::new`],
//! address spaces and devices, [`boot::Boot::open`] and [`boot::Boot::load`],
//! [`vcpus::Vcpus::new`] and then [`vcpus::Vcpus::resume`]. No device is named in this crate, and
//! no device need know KVM.

pub mod address_space;
pub mod boot;
pub mod bus;
pub mod cpuid;
mod emulate;
pub mod irq;
pub mod kvm;
pub mod linear;
pub mod memory;
pub mod qtest;
mod sys;
#[cfg(test)]
mod testing;
pub mod vcpus;
