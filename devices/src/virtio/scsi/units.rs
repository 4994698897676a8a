//! The disks that one request queue has opened: a data handle for each unit in use.

use super::order::Order;
use crate::block::DiskQueue;
use crate::scsi::{Address, Bus, Found, Member};
use crate::virtio::Ram;
use std::io;
use std::sync::Arc;

/// A unit that commands have come for.
pub(super) struct OpenUnit {
    pub(super) member: Arc<Member>,
    /// Of the medium that `disk` belongs to.
    version: u64,
    /// `None`: no medium.
    pub(super) disk: Option<Box<dyn DiskQueue>>,
    /// Takes no command any more; goes when what is in flight has ended.
    retired: bool,
    /// Orders that wait for that.
    orders: Vec<Arc<Order>>,
}

impl OpenUnit {
    pub(super) fn in_flight(&self) -> usize {
        self.disk.as_ref().map_or(0, |disk| disk.in_flight())
    }

    fn is_stale(&self) -> bool {
        self.member.removed() || self.version != self.member.unit.medium_version()
    }

    fn retire(&mut self) {
        if !self.retired {
            self.retired = true;
            if let Some(disk) = &mut self.disk {
                disk.abort();
            }
        }
    }
}

/// Why there is no unit.
pub(super) enum Missing {
    /// The target has others.
    Unit,
    /// There is no such target.
    Target,
    /// It cannot be opened.
    Broken(io::Error),
}

/// See the module.
pub(super) struct Units {
    ram: Arc<Ram>,
    slots: usize,
    segments: usize,
    open: Vec<Option<OpenUnit>>,
    /// Where the last command went: the next one goes there too, as a rule.
    last: usize,
}

impl Units {
    pub(super) fn new(ram: Arc<Ram>, slots: usize, segments: usize) -> Self {
        Self { ram, slots, segments, open: Vec::new(), last: 0 }
    }

    /// The place of the unit at `address`, opened if need be. A unit in use costs no look-up on
    /// the bus.
    pub(super) fn at(&mut self, bus: &Bus, address: Address) -> Result<usize, Missing> {
        if self.is_usable(self.last, address) {
            return Ok(self.last);
        }
        self.last = match (0..self.open.len()).find(|place| self.is_usable(*place, address)) {
            Some(place) => place,
            None => self.open(bus, address)?,
        };
        Ok(self.last)
    }

    fn is_usable(&self, place: usize, address: Address) -> bool {
        self.get(place)
            .is_some_and(|unit| unit.member.address == address && !unit.retired && !unit.is_stale())
    }

    fn open(&mut self, bus: &Bus, address: Address) -> Result<usize, Missing> {
        self.retire_stale();
        let member = match bus.find(address) {
            Found::Unit(member) if !member.removed() => member,
            Found::Unit(_) | Found::Target => return Err(Missing::Unit),
            Found::Nothing => return Err(Missing::Target),
        };
        // The version first: a medium that changes in between makes this one stale.
        let version = member.unit.medium_version();
        let disk = match member.unit.medium() {
            Some(disk) => {
                let queue = disk.queue(&self.ram, self.slots, self.segments);
                Some(queue.map_err(Missing::Broken)?)
            }
            None => None,
        };
        let unit = OpenUnit { member, version, disk, retired: false, orders: Vec::new() };
        let place = self.open.iter().position(Option::is_none).unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[place] = Some(unit);
        Ok(place)
    }

    pub(super) fn places(&self) -> usize {
        self.open.len()
    }

    pub(super) fn get(&self, place: usize) -> Option<&OpenUnit> {
        self.open.get(place).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut OpenUnit> {
        self.open.get_mut(place).and_then(Option::as_mut)
    }

    /// Ends what is in flight on the units of `order`, which waits for the end; new commands open
    /// them again.
    pub(super) fn retire_for(&mut self, order: &Arc<Order>) {
        let open = self.open.iter_mut().flatten();
        for unit in open.filter(|unit| order.scope.has_unit(unit.member.address)) {
            unit.retire();
            unit.orders.push(Arc::clone(order));
        }
    }

    /// Retires units that were removed or have another medium.
    pub(super) fn retire_stale(&mut self) {
        self.open.iter_mut().flatten().filter(|unit| unit.is_stale()).for_each(OpenUnit::retire);
    }

    /// Lets go of what is retired and idle.
    pub(super) fn sweep(&mut self) {
        for place in &mut self.open {
            if place.as_ref().is_some_and(|unit| unit.retired && unit.in_flight() == 0) {
                *place = None;
            }
        }
    }

    /// Ends everything.
    pub(super) fn retire_all(&mut self) {
        self.open.iter_mut().flatten().for_each(OpenUnit::retire);
    }
}
