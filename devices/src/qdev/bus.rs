//! Buses: who is on them, for readers without a lock; and what a kind of bus does on plugging.

use super::device::Device;
use crate::error::CommandError;
use crate::pci::SlotAnswer;
use rcu::{Guard, RcuList};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How an unplug request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unplug {
    /// The guest has been asked; the bus's hardware says when it has let go.
    Asked,
    /// The device may go at once.
    Now,
}

/// Hears what the guest does with the card in the slot of a bus that is a link. Any thread; does not wait.
pub type SlotHear = Box<dyn Fn(SlotAnswer) + Send + Sync>;

/// What distinguishes one kind of bus from another. All calls come from `main`.
pub trait BusKind: Send + Sync {
    /// Whether devices may come and go while the machine runs.
    fn hotpluggable(&self) -> bool {
        true
    }

    /// Whether no device could be added.
    fn is_full(&self, _bus: &Bus) -> bool {
        false
    }

    /// Gives the realized `device` its address and connects it: the guest may find it from now on.
    fn plug(&self, bus: &Bus, device: &Device) -> Result<u32, CommandError>;

    /// Tells the guest of a device that came while the machine runs.
    fn announce(&self, _device: &Device) {}

    /// Asks the guest to let go of `device`, where it has a say.
    fn request_unplug(&self, device: &Device) -> Result<Unplug, CommandError>;

    /// Hands over what hears of the card in the slot, where the bus's own hardware knows. Once, when the device
    /// that makes the bus is there.
    fn connect(&self, _hear: SlotHear) {}

    /// Disconnects a plugged device: the guest cannot reach it when this returns.
    fn unplug(&self, device: &Device);
}

/// What a walk does next.
pub type Visit = ControlFlow<()>;

/// A bus.
pub struct Bus {
    name: String,
    type_name: &'static str,
    path: String,
    children: RcuList<Arc<Device>>,
    kind: Box<dyn BusKind>,
    closed: AtomicBool,
}

impl Bus {
    /// An empty bus. `name` is what `bus=` calls it, `type_name` what types of devices for it call its
    /// kind, `path` its place in the object tree.
    pub fn new(
        name: impl Into<String>,
        type_name: &'static str,
        path: impl Into<String>,
        kind: Box<dyn BusKind>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            type_name,
            path: path.into(),
            children: RcuList::new(),
            kind,
            closed: AtomicBool::new(false),
        })
    }

    /// What `bus=` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of bus, as [`DeviceType::bus`](super::DeviceType::bus) names it.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Its place in the object tree.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What its kind does.
    pub fn kind(&self) -> &dyn BusKind {
        &*self.kind
    }

    /// Its children in the order of their coming. Any thread; never blocks.
    pub fn children<'g>(&self, guard: &'g Guard) -> rcu::Iter<'g, Arc<Device>> {
        self.children.iter(guard)
    }

    /// How many children it has at this moment.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Walks the tree below: `before` is called for a device ahead of the devices on its buses,
    /// `after` behind them. Either ends the walk with `Break`. Any thread; never blocks.
    pub fn walk(
        &self,
        guard: &Guard,
        before: &mut dyn FnMut(&Arc<Device>) -> Visit,
        after: &mut dyn FnMut(&Arc<Device>) -> Visit,
    ) -> Visit {
        for device in self.children(guard) {
            before(device)?;
            for bus in device.buses() {
                bus.walk(guard, before, after)?;
            }
            after(device)?;
        }
        Visit::Continue(())
    }

    /// The first device, in walking order, for which `wanted` holds. Any thread; never blocks.
    pub fn find(&self, mut wanted: impl FnMut(&Device) -> bool) -> Option<Arc<Device>> {
        let mut found = None;
        let guard = rcu::read();
        let _visit = self.walk(
            &guard,
            &mut |device| {
                if !wanted(device) {
                    return Visit::Continue(());
                }
                found = Some(Arc::clone(device));
                Visit::Break(())
            },
            &mut |_| Visit::Continue(()),
        );
        found
    }

    /// The device with this id, anywhere below. Any thread; never blocks.
    pub fn find_by_id(&self, id: &str) -> Option<Arc<Device>> {
        self.find(|device| device.id() == Some(id))
    }

    /// Whether devices may still be added: the device that made the bus is there.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Adds a child for readers to find. In `main`.
    pub(super) fn link(&self, device: &Arc<Device>) {
        self.children.write().push_back(Arc::clone(device));
    }

    /// Takes a child out at once, and hands it to `then` after the grace period. In `main`.
    pub(super) fn unlink(&self, device: &Device, then: impl FnOnce(Arc<Device>) + Send + 'static) {
        let mut writer = self.children.write();
        if let Some(mut cursor) = writer.find(|child| std::ptr::eq(Arc::as_ptr(child), device)) {
            cursor.remove_then(then);
        }
    }
}
