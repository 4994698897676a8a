//! One bus: which function sits where on it, and what functions are connected to.

use super::bridge::PciBridge;
use super::config::{HEADER_MULTIFUNCTION, HEADER_TYPE};
use super::decode::PciWindows;
use super::function::{Attachment, Function};
use super::intx::{IntxRouter, root_bus_gsi};
use super::root::{DEVICES_PER_BUS, PlugError, Slot};
use rcu::RcuCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use vcpu::address_space::AddressSpace;

type Table = Vec<(Slot, Arc<Function>)>;

/// What the functions of a bus are connected to.
pub(super) enum Wiring {
    /// The root bus: the machine's spaces and interrupt lines.
    Root {
        // Weak: the spaces hold the configuration ports, which hold the functions.
        pio: Weak<AddressSpace>,
        mmio: Weak<AddressSpace>,
        windows: Arc<PciWindows>,
        router: IntxRouter,
    },
    /// Below a bridge, which is not plugged in, or has this itself.
    Below(Weak<PciBridge>, Option<Attachment>),
}

impl Wiring {
    fn attachment(&self, slot: Slot) -> Option<Attachment> {
        match self {
            Self::Root { pio, mmio, windows, router } => Some(Attachment {
                pio: Weak::clone(pio),
                mmio: Weak::clone(mmio),
                windows: Arc::clone(windows),
                // One function a pin: all of a device's functions use INTA of their own slot.
                line: router.line(slot.device(), 0),
                gsi: root_bus_gsi(slot.device(), 0) as u8,
                bridge: None,
            }),
            // INTA of device 0 comes out as INTA of the bridge (PCI-to-PCI Bridge 1.2, section 9.1).
            Self::Below(bridge, own) => {
                own.clone().map(|own| Attachment { bridge: Some(Weak::clone(bridge)), ..own })
            }
        }
    }
}

/// A bus. Finding a function takes no lock and works on any thread; plugging is `main`'s.
pub struct PciSegment {
    // Sorted by slot.
    functions: RcuCell<Table>,
    // Also makes writers of the table take turns.
    wiring: Mutex<Wiring>,
    /// The first device number that is given to a function that asks for none.
    first: u8,
    /// The last device number there is.
    last: u8,
}

impl PciSegment {
    /// The root bus. Device 0 is the host bridge.
    pub(super) fn root(wiring: Wiring) -> Arc<Self> {
        let (first, last) = (1, DEVICES_PER_BUS - 1);
        Arc::new(Self { functions: RcuCell::new(Vec::new()), wiring: wiring.into(), first, last })
    }

    /// The link below a port: one device (PCI Express Base 3.0, section 7.3.1).
    pub(super) fn link(bridge: &Weak<PciBridge>) -> Arc<Self> {
        let wiring = Mutex::new(Wiring::Below(Weak::clone(bridge), None));
        Arc::new(Self { functions: RcuCell::new(Vec::new()), wiring, first: 0, last: 0 })
    }

    /// Plugs `function` in at `slot`, or at the first function 0 that is free. From now on
    /// its BARs decode as the guest asks.
    pub fn plug(&self, slot: Option<Slot>, function: &Arc<Function>) -> Result<Slot, PlugError> {
        let wiring = self.lock();
        let mut table = self.functions();
        let id = function.id();
        let slot = match slot {
            Some(slot) => slot,
            None => self.free_slot(&table).ok_or_else(|| PlugError::Full(id.to_owned()))?,
        };
        if slot.device() > self.last {
            return Err(PlugError::OneDevice { device: slot.device(), id: id.to_owned() });
        }
        if let Some((_, other)) = table.iter().find(|(taken, _)| *taken == slot) {
            let (id, by) = (id.to_owned(), other.id().to_owned());
            return Err(PlugError::InUse { at: slot, id, by });
        }
        may_share(&table, slot, function)?;
        if let Some(attachment) = wiring.attachment(slot) {
            function.attach(attachment);
        }
        let index = table.partition_point(|(taken, _)| *taken < slot);
        table.insert(index, (slot, Arc::clone(function)));
        self.functions.publish(table);
        Ok(slot)
    }

    /// Takes the function at `slot` away: nothing of it decodes when this returns.
    pub fn unplug(&self, slot: Slot) -> Option<Arc<Function>> {
        let _turn = self.lock();
        let mut table = self.functions();
        let index = table.iter().position(|(taken, _)| *taken == slot)?;
        let (_, function) = table.remove(index);
        self.functions.publish(table);
        function.detach();
        Some(function)
    }

    /// Every function by slot.
    pub fn functions(&self) -> Vec<(Slot, Arc<Function>)> {
        self.functions.read(&rcu::read()).clone()
    }

    /// Whether no device could be added.
    pub fn is_full(&self) -> bool {
        self.free_slot(&self.functions()).is_none()
    }

    // A reference, not a guard, leaves here: a write may take the accelerator's locks, and a
    // section should not span that.
    pub(super) fn lookup(&self, devfn: u8) -> Option<Arc<Function>> {
        let guard = rcu::read();
        let table = self.functions.read(&guard);
        let wanted = Slot::from_devfn(devfn);
        let index = table.binary_search_by_key(&wanted, |(slot, _)| *slot).ok()?;
        table.get(index).map(|(_, function)| Arc::clone(function))
    }

    /// The segment below a bridge on this one to which configuration accesses to `bus` go.
    pub(super) fn below(&self, bus: u8) -> Option<Arc<Self>> {
        let guard = rcu::read();
        let bridges = self.functions.read(&guard).iter();
        let mut bridges = bridges.filter_map(|(_, function)| function.bridge());
        let bridge = bridges.find(|bridge| bridge.secondary() == bus)?;
        Some(Arc::clone(bridge.segment()))
    }

    /// The bridge above has been connected, or (`None`) taken off; those below follow.
    pub(super) fn rewire(&self, own: Option<Attachment>) {
        let mut wiring = self.lock();
        if let Wiring::Below(_, above) = &mut *wiring {
            *above = own;
        }
        for (slot, function) in self.functions() {
            match wiring.attachment(slot) {
                Some(attachment) => function.attach(attachment),
                None => function.detach(),
            }
        }
    }

    /// The bridge above forwards something else now.
    pub(super) fn redecode(&self) {
        for (_, function) in self.functions() {
            function.redecode();
        }
    }

    /// All functions to power-on state, those below bridges first. In `main` while no vCPU runs.
    pub(super) fn reset(&self) {
        for (_, function) in self.functions() {
            if let Some(bridge) = function.bridge() {
                bridge.segment().reset();
            }
            function.reset();
        }
    }

    fn free_slot(&self, table: &Table) -> Option<Slot> {
        // Other functions of the device may be there, as they come ahead of function 0.
        let mut zeros = (self.first..=self.last).map(|device| Slot::from_devfn(device << 3));
        zeros.find(|zero| table.iter().all(|(slot, _)| slot != zero))
    }

    fn lock(&self) -> MutexGuard<'_, Wiring> {
        self.wiring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Software looks for functions 1 to 7 only where function 0 has the multi-function bit.
fn may_share(table: &Table, slot: Slot, function: &Function) -> Result<(), PlugError> {
    let multi = |f: &Function| f.config().u8(HEADER_TYPE) & HEADER_MULTIFUNCTION != 0;
    // Sorted: function 0 comes first, where it is there.
    let neighbour = table.iter().find(|(other, _)| other.device() == slot.device());
    match neighbour {
        Some((other, zero)) if other.function() == 0 && !multi(zero) => {
            Err(PlugError::SingleFunction { at: slot })
        }
        Some((other, _)) if slot.function() == 0 && !multi(function) => {
            Err(PlugError::IndicatesSingle { other: *other })
        }
        _ => Ok(()),
    }
}
