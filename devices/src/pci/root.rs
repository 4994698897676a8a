//! The PCI root: which function sits where, and the ways a guest reaches their registers.

use super::config::{HEADER_MULTIFUNCTION, HEADER_TYPE, Identity};
use super::decode::PciWindows;
use super::device::PciDevice;
use super::function::{Attachment, Function, FunctionSpec};
use super::intx::{IntxRouter, root_bus_gsi};
use super::ports::{ConfigPorts, Ecam};
use rcu::RcuCell;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Function 0 of the device does not say that there are more.
    #[error(
        "PCI: slot {} not available for {id}, the device there has one function; \
         set multifunction=on for function 0", .at.words()
    )]
    SingleFunction {
        /// Where.
        at: Slot,
        /// Who wants it.
        id: String,
    },
}

/// A place on the root bus.
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

type Table = Vec<(Slot, Arc<Function>)>;

/// What configuration accesses need: the table of functions, read under RCU, and the address latch
/// of configuration mechanism #1.
pub(super) struct Topology {
    // Sorted by slot.
    functions: RcuCell<Table>,
    // Writers of the table take turns.
    writer: Mutex<()>,
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

    // A reference, not a guard, leaves here: a write may take the accelerator's locks, and a
    // section should not span that.
    fn lookup(&self, bus: u8, devfn: u8) -> Option<Arc<Function>> {
        let wanted = (bus == 0).then(|| Slot::from_devfn(devfn))?;
        let guard = rcu::read();
        let table = self.functions.read(&guard);
        let index = table.binary_search_by_key(&wanted, |(slot, _)| *slot).ok()?;
        table.get(index).map(|(_, function)| Arc::clone(function))
    }

    fn snapshot(&self) -> Table {
        self.functions.read(&rcu::read()).clone()
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

/// The PCI root with its one bus, host bridge 8086:1237 at 00:00.0 included.
///
/// Configuration accesses come through [`PciRoot::config_ports`] and [`PciRoot::ecam`] from any
/// thread; finding a function takes no lock. Plugging and unplugging is `main`'s.
pub struct PciRoot {
    topology: Arc<Topology>,
    config: PciRootConfig,
    windows: Arc<PciWindows>,
    router: IntxRouter,
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
        let root = Self {
            topology: Arc::new(Topology {
                functions: RcuCell::new(Vec::new()),
                writer: Mutex::default(),
                address: AtomicU32::new(0),
            }),
            windows: Arc::new(config.windows.clone()),
            config,
            router: IntxRouter::new(platform),
        };
        root.insert(Slot::from_devfn(0), &bridge, Vec::new());
        root
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
        let _turn = self.writer();
        let table = self.topology.snapshot();
        let id = function.id();
        let slot = match slot {
            Some(slot) => slot,
            None => free_slot(&table).ok_or_else(|| PlugError::Full(id.to_owned()))?,
        };
        if let Some((_, other)) = table.iter().find(|(taken, _)| *taken == slot) {
            let (id, by) = (id.to_owned(), other.id().to_owned());
            return Err(PlugError::InUse { at: slot, id, by });
        }
        if !may_share(&table, slot, function) {
            return Err(PlugError::SingleFunction { at: slot, id: id.to_owned() });
        }
        self.insert(slot, function, table);
        Ok(slot)
    }

    /// Takes the function at `slot` away: nothing of it decodes when this returns. The host bridge
    /// stays.
    pub fn unplug(&self, slot: Slot) -> Option<Arc<Function>> {
        let _turn = self.writer();
        let mut table = self.topology.snapshot();
        let index = table.iter().position(|(taken, _)| *taken == slot && slot.device != 0)?;
        let (_, function) = table.remove(index);
        self.topology.functions.publish(table);
        function.detach();
        Some(function)
    }

    /// Every function by slot, for queries.
    pub fn functions(&self) -> Vec<(Slot, Arc<Function>)> {
        self.topology.snapshot()
    }

    /// The function at `slot`.
    pub fn function(&self, slot: Slot) -> Option<Arc<Function>> {
        self.topology.lookup(0, slot.devfn())
    }

    /// Waits until every function has finished what accesses so far have begun. Any context.
    pub async fn settled(&self) {
        for (_, function) in self.topology.snapshot() {
            std::future::poll_fn(|cx| function.device().poll_settled(cx)).await;
        }
    }

    /// The whole bus to power-on state. Runs in `main` while no vCPU does.
    pub fn reset(&self) {
        self.topology.set_address(0);
        for (_, function) in self.topology.snapshot() {
            function.reset();
        }
    }

    fn insert(&self, slot: Slot, function: &Arc<Function>, mut table: Table) {
        // One function a pin: all of a device's functions use INTA of their own slot.
        function.attach(Attachment {
            pio: Arc::downgrade(&self.config.pio),
            mmio: Arc::downgrade(&self.config.mmio),
            windows: Arc::clone(&self.windows),
            line: self.router.line(slot.device, 0),
            gsi: root_bus_gsi(slot.device, 0) as u8,
        });
        let index = table.partition_point(|(taken, _)| *taken < slot);
        table.insert(index, (slot, Arc::clone(function)));
        self.topology.functions.publish(table);
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.topology.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn free_slot(table: &Table) -> Option<Slot> {
    let taken = |device| table.iter().any(|(slot, _)| slot.device == device);
    let device = (1..DEVICES_PER_BUS).find(|device| !taken(*device))?;
    Some(Slot { device, function: 0 })
}

// Software looks for functions 1 to 7 only where function 0 has the multi-function bit.
fn may_share(table: &Table, slot: Slot, function: &Function) -> bool {
    let multi = |f: &Function| f.config().u8(HEADER_TYPE) & HEADER_MULTIFUNCTION != 0;
    let mut neighbours = table.iter().filter(|(other, _)| other.device == slot.device);
    match neighbours.clone().find(|(other, _)| other.function == 0) {
        Some((_, zero)) => multi(zero),
        None if slot.function == 0 => neighbours.next().is_none() || multi(function),
        None => true,
    }
}
