//! The PCI root: which function sits where, and the ways a guest reaches their registers.

use super::config::Identity;
use super::decode::PciWindows;
use super::device::PciDevice;
use super::function::{Function, FunctionSpec};
use super::intx::IntxRouter;
use super::ports::{ConfigPorts, Ecam};
use super::segment::{PciSegment, Wiring};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vcpu::address_space::AddressSpace;
use vcpu::irq::Platform;

/// Devices on a bus.
pub const DEVICES_PER_BUS: u8 = 32;
/// Functions of a device.
pub const FUNCTIONS_PER_DEVICE: u8 = 8;

/// Why a function could not be plugged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// The device or function number does not exist.
    #[error(
        "PCI: there is no slot {device:#x} function {function:#x}; give slot 0 to 0x1f, function 0 to 7"
    )]
    NoSuchSlot {
        /// Device number asked for.
        device: u8,
        /// Function number asked for.
        function: u8,
    },
    /// Another function is there.
    #[error("PCI: slot {} not available for {id}, in use by {by}", .at.words())]
    InUse {
        /// Where.
        at: Slot,
        /// Who wants it.
        id: String,
        /// Who has it.
        by: String,
    },
    /// No slot is left.
    #[error("PCI: no slot/function available for {0}, all in use or reserved")]
    Full(String),
    /// Function 0 of the device does not say that there are more: `multifunction=on` would.
    #[error(
        "PCI: single function device can't be populated in function {:x}.{:x}",
        .at.device, .at.function
    )]
    SingleFunction {
        /// Where.
        at: Slot,
    },
    /// The new function 0 does not say that there are more, and there are.
    #[error(
        "PCI: {0:x}.0 indicates single function, but {0:x}.{1:x} is already populated.",
        .other.device, .other.function
    )]
    IndicatesSingle {
        /// Another function of the device.
        other: Slot,
    },
    /// A port's link has one device.
    #[error(
        "PCI: slot {device} is not valid for {id}, parent device only allows plugging into slot 0."
    )]
    OneDevice {
        /// Device number asked for.
        device: u8,
        /// Who wants it.
        id: String,
    },
}

/// A place on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    device: u8,
    function: u8,
}

impl Slot {
    /// Function `function` (0 to 7) of device `device` (0 to 31).
    pub fn new(device: u8, function: u8) -> Result<Self, PlugError> {
        if device >= DEVICES_PER_BUS || function >= FUNCTIONS_PER_DEVICE {
            return Err(PlugError::NoSuchSlot { device, function });
        }
        Ok(Self { device, function })
    }

    /// The slot with device and function number `devfn` (bits 7 to 3 and 2 to 0).
    pub fn from_devfn(devfn: u8) -> Self {
        Self { device: devfn >> 3, function: devfn & 7 }
    }

    /// Device number.
    pub fn device(self) -> u8 {
        self.device
    }

    /// Function number.
    pub fn function(self) -> u8 {
        self.function
    }

    /// Device and function number as one.
    pub fn devfn(self) -> u8 {
        self.device << 3 | self.function
    }

    fn words(self) -> String {
        format!("{} function {}", self.device, self.function)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00:{:02x}.{}", self.device, self.function)
    }
}

/// What configuration accesses need: the root bus, and the address latch of configuration mechanism #1.
pub(super) struct Topology {
    root: Arc<PciSegment>,
    address: AtomicU32,
}

impl Topology {
    /// A guest's configuration read; all ones where no function is.
    pub(super) fn read(&self, bus: u8, devfn: u8, offset: u16, data: &mut [u8]) {
        match self.lookup(bus, devfn) {
            Some(function) => function.config_read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A guest's configuration write; lost where no function is.
    pub(super) fn write(&self, bus: u8, devfn: u8, offset: u16, data: &[u8]) {
        if let Some(function) = self.lookup(bus, devfn) {
            function.config_write(offset, data);
        }
    }

    /// The latched CONFIG_ADDRESS.
    pub(super) fn address(&self) -> u32 {
        self.address.load(Ordering::Acquire)
    }

    /// Latches CONFIG_ADDRESS.
    pub(super) fn set_address(&self, address: u32) {
        self.address.store(address, Ordering::Release);
    }

    fn lookup(&self, bus: u8, devfn: u8) -> Option<Arc<Function>> {
        if bus == 0 {
            return self.root.lookup(devfn);
        }
        self.root.below(bus)?.lookup(devfn)
    }
}

/// What a root is made of.
pub struct PciRootConfig {
    /// Port space, which I/O BARs are mapped into.
    pub pio: Arc<AddressSpace>,
    /// Memory space, which memory BARs are mapped into.
    pub mmio: Arc<AddressSpace>,
    /// Where BARs may decode.
    pub windows: PciWindows,
}

/// The PCI root with its bus, host bridge 8086:1237 at 00:00.0 included, and what is below bridges.
///
/// Configuration accesses come through [`PciRoot::config_ports`] and [`PciRoot::ecam`] from any
/// thread; finding a function takes no lock. Plugging and unplugging is `main`'s.
pub struct PciRoot {
    topology: Arc<Topology>,
}

struct HostBridge;

impl PciDevice for HostBridge {}

impl PciRoot {
    /// A root with nothing but the host bridge. Its interrupts go to inputs 16 to 23 of `platform`.
    pub fn new(platform: &dyn Platform, config: PciRootConfig) -> Self {
        let identity = Identity {
            vendor: 0x8086,
            device: 0x1237,
            revision: 2,
            class: 0x06_00_00,
            subsystem_vendor: 0,
            subsystem: 0,
        };
        let bridge =
            Function::new("host-bridge", FunctionSpec::new(identity), Arc::new(HostBridge));
        let root = PciSegment::root(Wiring::Root {
            pio: Arc::downgrade(&config.pio),
            mmio: Arc::downgrade(&config.mmio),
            windows: Arc::new(config.windows),
            router: IntxRouter::new(platform),
        });
        // The bus is empty: there is nothing that it could collide with.
        let _first = root.plug(Some(Slot::from_devfn(0)), &bridge);
        Self { topology: Arc::new(Topology { root, address: AtomicU32::new(0) }) }
    }

    /// The root bus.
    pub fn segment(&self) -> &Arc<PciSegment> {
        &self.topology.root
    }

    /// Ports 0xcf8 to 0xcff: configuration mechanism #1, with the reset control register at 0xcf9
    /// that calls `reset`.
    pub fn config_ports(&self, reset: Arc<dyn Fn() + Send + Sync>) -> Arc<ConfigPorts> {
        Arc::new(ConfigPorts::new(Arc::clone(&self.topology), reset))
    }

    /// The enhanced configuration access mechanism: 256 MiB of memory.
    pub fn ecam(&self) -> Arc<Ecam> {
        Arc::new(Ecam::new(Arc::clone(&self.topology)))
    }

    /// Plugs `function` in at `slot`, or at function 0 of the first free device. From now on
    /// its BARs decode as the guest asks.
    pub fn plug(&self, slot: Option<Slot>, function: &Arc<Function>) -> Result<Slot, PlugError> {
        self.segment().plug(slot, function)
    }

    /// Takes the function at `slot` away: nothing of it decodes when this returns. The host bridge
    /// stays.
    pub fn unplug(&self, slot: Slot) -> Option<Arc<Function>> {
        (slot.device != 0).then(|| self.segment().unplug(slot)).flatten()
    }

    /// Every function on the root bus by slot, for queries.
    pub fn functions(&self) -> Vec<(Slot, Arc<Function>)> {
        self.segment().functions()
    }

    /// The slots of the root bus that have bridges, a bit each.
    pub fn bridges(&self) -> u32 {
        let bridges =
            self.functions().into_iter().filter(|(_, function)| function.bridge().is_some());
        bridges.fold(0, |slots, (slot, _)| slots | 1 << (slot.devfn() >> 3))
    }

    /// The function at `slot` of the root bus.
    pub fn function(&self, slot: Slot) -> Option<Arc<Function>> {
        self.topology.lookup(0, slot.devfn())
    }

    /// Waits until every function has finished what accesses so far have begun. Any context.
    pub async fn settled(&self) {
        for (_, function) in self.functions() {
            let below = function.bridge().map(|bridge| bridge.segment().functions());
            for (_, function) in below.into_iter().flatten() {
                std::future::poll_fn(|cx| function.device().poll_settled(cx)).await;
            }
            std::future::poll_fn(|cx| function.device().poll_settled(cx)).await;
        }
    }

    /// All buses to power-on state. Runs in `main` while no vCPU does.
    pub fn reset(&self) {
        self.topology.set_address(0);
        self.segment().reset();
    }
}
