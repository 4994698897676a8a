//! A guest for tests: a machine without a processor, and a virtio driver that goes through PCI
//! configuration space, BARs, doorbells and interrupts as a real one does.

mod driver;
mod hold;
mod hostile;
mod platform;
mod port;
mod queue;

pub(crate) use driver::Driver;
pub(crate) use hold::{Held, hold_disk};
pub(crate) use hostile::{GuardedRam, address, descriptor};
pub(crate) use platform::{EventPlatform, EventVector};
pub(crate) use port::{Port, until};
pub(crate) use queue::{Buffer, DriverQueue, INDIRECT, NEXT, RawDescriptor, Used, WRITE};

use super::Ram;
use crate::pci::{Ecam, Function, PciRoot, PciRootConfig, PciWindows};
use reactor::{Config, Reactors};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vcpu::address_space::AddressSpace;
use vcpu::bus::{BusDevice, Space};
use vm_memory::GuestAddress;

/// Longer than any test takes.
const HANGS: Duration = Duration::from_secs(60);
const RAM_BYTES: usize = 64 << 20;
/// Below it tests place what they like; above, the bump allocator does.
const ALLOCATOR_START: u64 = 32 << 20;

/// Runs `test` in `main`, with `cores` core contexts (two to a CPU where there are few).
pub(crate) fn on_reactors<F, Fut>(cores: usize, test: F)
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let allowed = reactor::allowed_cpus().expect("the kernel tells the CPUs allowed");
    let mut config =
        Config::with_cores((0..cores).map(|core| allowed[core % allowed.len()]).collect());
    config.hooks = vec![rcu::turn_hook()];
    reactor::run(config, |reactors| async move {
        reactor::timeout(HANGS, test(reactors)).await.expect("the test hangs");
    })
    .expect("the reactors start");
}

/// Runs `test` on a core context, where futures need not be `Send`.
pub(crate) fn on_core<F, Fut>(test: F)
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    on_reactors(1, |reactors| async move {
        let core = reactors.core(0).clone();
        core.spawn_local_with("test", move || test(reactors)).await.expect("the test passes");
    });
}

/// A machine without a processor: the test does the accesses.
pub(crate) struct TestMachine {
    pub(crate) ram: Arc<Ram>,
    pub(crate) mmio: Arc<AddressSpace>,
    pub(crate) platform: Arc<EventPlatform>,
    pub(crate) root: Arc<PciRoot>,
    ecam: Arc<Ecam>,
    next_free: AtomicU64,
}

impl TestMachine {
    /// 64 MiB of RAM at 0; BARs go from 0xe0000000 up.
    pub(crate) fn new() -> Arc<Self> {
        let ram = Ram::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).unwrap();
        Self::with_ram(Arc::new(ram), EventPlatform::new(true))
    }

    pub(crate) fn with_ram(ram: Arc<Ram>, platform: Arc<EventPlatform>) -> Arc<Self> {
        let pio = AddressSpace::new(Space::Pio);
        let mmio = AddressSpace::new(Space::Mmio);
        let windows = PciWindows {
            io: 0xc000..0x1_0000,
            memory32: 0xe000_0000..0xfec0_0000,
            memory64: 0x10_0000_0000..0x20_0000_0000,
        };
        let config = PciRootConfig { pio, mmio: Arc::clone(&mmio), windows };
        let root = Arc::new(PciRoot::new(&*platform, config));
        let ecam = root.ecam();
        let next_free = AtomicU64::new(ALLOCATOR_START);
        Arc::new(Self { ram, mmio, platform, root, ecam, next_free })
    }

    pub(crate) fn plug(&self, function: &Arc<Function>) -> u8 {
        self.root.plug(None, function).unwrap().device()
    }

    /// Room in RAM, aligned to a page.
    pub(crate) fn alloc(&self, bytes: u64) -> u64 {
        self.next_free.fetch_add(bytes.next_multiple_of(4096), Ordering::Relaxed)
    }

    pub(crate) fn config_read<const N: usize>(&self, slot: u8, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.ecam.read(u64::from(slot) << 15 | u64::from(offset), &mut data);
        data
    }

    pub(crate) fn config_write(&self, slot: u8, offset: u16, data: &[u8]) {
        self.ecam.write(u64::from(slot) << 15 | u64::from(offset), data);
    }

    pub(crate) fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.mmio.read(address, &mut data);
        data
    }

    /// A guest's store: a doorbell's event where the platform knows one, else the device's.
    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if !self.platform.ring(address) {
            self.mmio.write(address, data);
        }
    }
}
