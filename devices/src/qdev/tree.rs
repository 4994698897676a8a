//! The tree: adding, removing, finding, resetting.

use super::bus::{Bus, SlotHear, Unplug, Visit};
use super::device::{Device, DeviceState};
use super::pci_bus::is_port;
use super::request::DeviceRequest;
use super::setup::{Resources, Setup, Steps};
use super::types::{DeviceType, Types};
use crate::error::CommandError;
use crate::pci::SlotAnswer;
use reactor::Context;
use reactor::sync::{Notify, oneshot};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Where devices with an id are in the object tree.
const PERIPHERAL: &str = "/machine/peripheral";
/// Where those without are.
const PERIPHERAL_ANON: &str = "/machine/peripheral-anon";

/// Hears of what becomes of devices. Called in `main`.
pub trait TreeEvents: Send + Sync {
    /// A device is gone: its id, address and back ends are free.
    fn deleted(&self, id: Option<&str>, path: &str);

    /// The guest has refused to let go of a device.
    fn unplug_refused(&self, id: Option<&str>, path: &str);
}

/// What a tree is made of.
pub struct TreeConfig {
    /// The context that owns the tree.
    pub main: Context,
    /// What devices are made from.
    pub resources: Resources,
    /// The bus that all others hang from.
    pub root: Arc<Bus>,
    /// The types of devices there are.
    pub types: Types,
    /// Hears of what becomes of devices.
    pub events: Arc<dyn TreeEvents>,
}

/// The devices of a machine. Clones are handles of the same tree.
#[derive(Clone)]
pub struct DeviceTree(Arc<Inner>);

/// A handle of a tree that does not keep it.
#[derive(Clone)]
pub struct WeakTree(Weak<Inner>);

impl WeakTree {
    /// The tree, while it exists.
    pub fn upgrade(&self) -> Option<DeviceTree> {
        self.0.upgrade().map(DeviceTree)
    }
}

struct Inner {
    config: TreeConfig,
    /// Ids in use, from the begin of an addition to the end of a removal.
    ids: Mutex<BTreeSet<String>>,
    /// Devices without an id that were ever begun.
    anonymous: AtomicUsize,
    /// Removals that are under way.
    removals: AtomicUsize,
    /// One of them has ended.
    removed: Notify,
    steps: Steps,
}

impl DeviceTree {
    /// A tree with an empty root bus.
    pub fn new(config: TreeConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            ids: Mutex::default(),
            anonymous: AtomicUsize::new(0),
            removals: AtomicUsize::new(0),
            removed: Notify::new(),
            steps: Steps::default(),
        }))
    }

    /// A handle that does not keep the tree.
    pub fn downgrade(&self) -> WeakTree {
        WeakTree(Arc::downgrade(&self.0))
    }

    /// The types of devices there are.
    pub fn types(&self) -> &Types {
        &self.0.config.types
    }

    /// The bus that all others hang from.
    pub fn root(&self) -> &Arc<Bus> {
        &self.0.config.root
    }

    /// What devices are made from.
    pub fn resources(&self) -> &Resources {
        &self.0.config.resources
    }

    /// Adds a device. `hotplug`: the machine has been made, and the guest is told. In `main`.
    ///
    /// When it fails, nothing of the attempt is left by the time the error arrives: the callbacks that give
    /// the last of it back have run. Where removals were under way, they have ended, and the attempt was
    /// repeated: an id, a slot or a drive that was about to be free is no reason to fail.
    pub async fn add(
        &self,
        request: &DeviceRequest,
        hotplug: bool,
    ) -> Result<Arc<Device>, CommandError> {
        let first = self.try_add(request, hotplug).await;
        let result = match first {
            Err(_) if self.0.removals.load(Ordering::Acquire) > 0 => {
                self.settled().await;
                self.try_add(request, hotplug).await
            }
            first => first,
        };
        match &result {
            Ok(_) => rcu::throttle_call_rcu_co().await,
            Err(_) => rcu::drain_call_rcu_co().await,
        }
        result
    }

    async fn try_add(
        &self,
        request: &DeviceRequest,
        hotplug: bool,
    ) -> Result<Arc<Device>, CommandError> {
        let inner = &self.0;
        let driver = request.name("driver");
        let driver =
            driver.ok_or_else(|| CommandError::generic("Parameter 'driver' is missing"))?;
        let ty = inner.config.types.device(driver)?;
        let bus = inner.bus_for(ty, request.name("bus"), hotplug)?;
        let (id, reserved) = inner.reserve(request.name("id"))?;
        let mut properties = ty.defaults();
        properties.apply(&request.properties(), request.syntax)?;
        let path = inner.new_path(id.as_deref());
        let device = Device::new(ty, (id, path), &bus, properties.clone(), hotplug);
        let setup = Setup {
            resources: &inner.config.resources,
            properties: &properties,
            type_name: ty.name,
            name: device.id().unwrap_or(ty.name),
            path: device.path(),
            hotplugged: hotplug,
            steps: &inner.steps,
        };
        inner.steps.next("realize")?;
        let body = (ty.realize)(setup).await?;
        device.set_body(Arc::clone(&body));
        for bus in device.buses() {
            bus.kind().connect(self.answers_from(bus));
        }
        if let Err(error) = inner.attach(&device, &bus) {
            // The guest may have found the device in between. What it has claimed goes back with it.
            body.stop().await;
            return Err(error);
        }
        reserved.keep();
        Ok(device)
    }

    /// Starts the removal of the device with this id or at this path. In `main`.
    pub fn request_unplug(&self, name: &str) -> Result<(), CommandError> {
        let device = self.find_named(name)?;
        if device.unplug_is_fresh() {
            let text = format!("Device {name} is already in the process of unplug");
            return Err(CommandError::generic(text));
        }
        let bus = device.bus().ok_or_else(|| CommandError::device_not_found(name))?;
        if !bus.kind().hotpluggable() {
            let text = format!("Bus '{}' does not support hotplugging", bus.name());
            return Err(CommandError::generic(text));
        }
        match bus.kind().request_unplug(&device)? {
            Unplug::Asked => device.set_unplug_asked(true),
            Unplug::Now => drop(self.remove(&device)),
        }
        Ok(())
    }

    /// The guest has let go of the device, or nobody asks it: takes the device off its bus at once. Resolves
    /// when it is gone; it goes on if the future is dropped. In `main`.
    pub fn remove(&self, device: &Arc<Device>) -> oneshot::Receiver<()> {
        let (done, gone) = oneshot::channel();
        if device.state() != DeviceState::Realized {
            return gone;
        }
        device.set_state(DeviceState::Removing);
        let Some(bus) = device.bus() else { return gone };
        self.0.removals.fetch_add(1, Ordering::AcqRel);
        bus.kind().unplug(device);
        let mut below = Vec::new();
        for bus in device.buses() {
            bus.close();
            let guard = rcu::read();
            let children: Vec<_> = bus.children(&guard).cloned().collect();
            drop(guard);
            below.extend(children.iter().map(|child| self.remove(child)));
        }
        let (passed, grace) = oneshot::channel();
        bus.unlink(device, |device| {
            let _nobody_waits = passed.send(device);
        });
        let tree = self.clone();
        let device = Arc::clone(device);
        let task = self.0.config.main.spawn("unplug", async move {
            // The bus's own share, which readers may have held until now.
            drop(grace.await);
            for child in below {
                let _gone = child.await;
            }
            if let Some(body) = device.body() {
                body.unrealize().await;
            }
            tree.0.finish(device);
            let _nobody_waits = done.send(());
        });
        task.detach();
        gone
    }

    /// The guest has ejected these slots of the root bus, a bit each: every function there goes. In `main`.
    pub fn ejected(&self, slots: u32) {
        self.ejected_from(self.root(), slots);
    }

    fn ejected_from(&self, bus: &Bus, slots: u32) {
        let in_slot = |device: &Device| {
            let slot = device.address().map_or(u32::MAX, |devfn| devfn >> 3);
            slots.checked_shr(slot).is_some_and(|bits| bits & 1 != 0) && !is_port(device)
        };
        let guard = rcu::read();
        let gone: Vec<_> = bus.children(&guard).filter(|device| in_slot(device)).cloned().collect();
        drop(guard);
        for device in gone {
            drop(self.remove(&device));
        }
    }

    /// What hears of the card on `bus`, which is a link.
    fn answers_from(&self, bus: &Arc<Bus>) -> SlotHear {
        // Weak: the bus has this.
        let (tree, bus) = (self.downgrade(), Arc::downgrade(bus));
        let main = self.0.config.main.clone();
        Box::new(move |answer| {
            let (tree, bus) = (tree.clone(), bus.clone());
            main.schedule_named_bh("pci slot", move || {
                let (Some(tree), Some(bus)) = (tree.upgrade(), bus.upgrade()) else { return };
                match answer {
                    SlotAnswer::Released => tree.ejected_from(&bus, 1),
                    SlotAnswer::Kept => tree.kept_on(&bus),
                }
            });
        })
    }

    /// The guest goes on with the card on `bus`, though some of its devices were to go.
    fn kept_on(&self, bus: &Bus) {
        let guard = rcu::read();
        let kept: Vec<_> = bus.children(&guard).cloned().collect();
        drop(guard);
        for device in kept {
            self.unplug_refused(&device);
        }
    }

    /// The guest has refused to let go of `device`: the request is over. In `main`.
    pub fn unplug_refused(&self, device: &Device) {
        if device.unplug_pending() {
            device.set_unplug_asked(false);
            self.0.config.events.unplug_refused(device.id(), device.path());
        }
    }

    /// Resolves when no removal is under way. In `main`.
    pub async fn settled(&self) {
        loop {
            let ended = self.0.removed.notified();
            if self.0.removals.load(Ordering::Acquire) == 0 {
                break;
            }
            ended.await;
        }
        rcu::drain_call_rcu_co().await;
    }

    /// Removes every device whose removal is pending: a reset answers for the guest. In `main` while no
    /// vCPU runs.
    pub fn complete_unplugs(&self) {
        for device in self.devices().iter().filter(|device| device.unplug_pending()) {
            drop(self.remove(device));
        }
    }

    /// Back to power-on state, children ahead of the device whose bus they are on. In `main` while no
    /// vCPU runs.
    pub fn reset(&self) {
        for device in self.devices() {
            if let Some(body) = device.body() {
                body.reset();
            }
        }
    }

    /// Resolves when no device's reset is under way: guest memory is left alone. In `main`.
    pub async fn quiesced(&self) {
        for device in self.devices() {
            if let Some(body) = device.body() {
                body.quiesced().await;
            }
        }
    }

    /// Ends all requests of all devices, which stay where they are: the machine ends. In `main` while no
    /// vCPU runs.
    pub async fn stop(&self) {
        for device in self.devices() {
            if let Some(body) = device.body() {
                body.stop().await;
            }
        }
    }

    /// All devices, those on a device's buses ahead of the device itself. Any thread.
    pub fn devices(&self) -> Vec<Arc<Device>> {
        let mut devices = Vec::new();
        let guard = rcu::read();
        let _all = self.root().walk(&guard, &mut |_| Visit::Continue(()), &mut |device| {
            devices.push(Arc::clone(device));
            Visit::Continue(())
        });
        devices
    }

    /// The device with this id, or at this path of the object tree. Any thread.
    pub fn find(&self, name: &str) -> Option<Arc<Device>> {
        if name.starts_with('/') {
            self.root().find(|device| device.path() == name)
        } else {
            self.root().find_by_id(name)
        }
    }

    fn find_named(&self, name: &str) -> Result<Arc<Device>, CommandError> {
        let found = self.find(name);
        found.ok_or_else(|| match name {
            "/" | "/machine" | "/objects" | PERIPHERAL | PERIPHERAL_ANON => {
                CommandError::generic(format!("{name} is not a device"))
            }
            _ => CommandError::device_not_found(name),
        })
    }

    #[cfg(test)]
    pub(super) fn steps(&self) -> &Steps {
        &self.0.steps
    }
}

impl Inner {
    /// The bus that a device of type `ty` goes on.
    fn bus_for(
        &self,
        ty: &DeviceType,
        name: Option<&str>,
        hotplug: bool,
    ) -> Result<Arc<Bus>, CommandError> {
        let bus = match name {
            Some(name) => self.bus_named(ty, name)?,
            None => self.free_bus(ty)?,
        };
        if hotplug && !bus.kind().hotpluggable() {
            let text = format!("Bus '{}' does not support hotplugging", bus.name());
            return Err(CommandError::generic(text));
        }
        Ok(bus)
    }

    fn bus_named(&self, ty: &DeviceType, name: &str) -> Result<Arc<Bus>, CommandError> {
        let bus = self.buses().into_iter().find(|bus| bus.name() == name);
        let bus = bus.ok_or_else(|| CommandError::generic(format!("Bus '{name}' not found")))?;
        let generic = |text: String| Err(CommandError::generic(text));
        if !takes(&bus, ty) {
            return generic(format!("Device '{}' can't go on {} bus", ty.name, bus.type_name()));
        }
        if bus.kind().is_full(&bus) {
            return generic(format!("Bus '{name}' is full"));
        }
        Ok(bus)
    }

    fn free_bus(&self, ty: &DeviceType) -> Result<Arc<Bus>, CommandError> {
        let of_kind = |bus: &Arc<Bus>| takes(bus, ty);
        let (buses, name) = (self.buses(), ty.name);
        let mut candidates = buses.into_iter().filter(of_kind).peekable();
        if candidates.peek().is_none() {
            let text = format!("No '{}' bus found for device '{name}'", ty.bus);
            return Err(CommandError::generic(text));
        }
        let free = candidates.find(|bus| bus.is_open() && !bus.kind().is_full(bus));
        // A full one says what it lacks when the device is plugged in.
        free.or_else(|| Some(Arc::clone(&self.config.root)).filter(of_kind)).ok_or_else(|| {
            CommandError::generic(format!("No '{}' bus found for device '{name}'", ty.bus))
        })
    }

    /// The root bus and those of devices, in walking order.
    fn buses(&self) -> Vec<Arc<Bus>> {
        let mut buses = vec![Arc::clone(&self.config.root)];
        let guard = rcu::read();
        let _all = self.config.root.walk(
            &guard,
            &mut |device| {
                buses.extend(device.buses().iter().cloned());
                Visit::Continue(())
            },
            &mut |_| Visit::Continue(()),
        );
        buses
    }

    /// Takes the id for a device that is about to be made.
    fn reserve(&self, id: Option<&str>) -> Result<(Option<String>, Reserved<'_>), CommandError> {
        self.steps.next("id")?;
        let Some(id) = id else { return Ok((None, Reserved { inner: self, id: None })) };
        if !self.ids().insert(id.to_owned()) {
            return Err(CommandError::generic(format!("Duplicate device ID '{id}'")));
        }
        let reserved = Reserved { inner: self, id: Some(id.to_owned()) };
        Ok((Some(id.to_owned()), reserved))
    }

    fn new_path(&self, id: Option<&str>) -> String {
        if let Some(id) = id {
            return format!("{PERIPHERAL}/{id}");
        }
        let number = self.anonymous.fetch_add(1, Ordering::Relaxed);
        format!("{PERIPHERAL_ANON}/device[{number}]")
    }

    /// Puts a realized device on its bus; undone where a step fails.
    fn attach(&self, device: &Arc<Device>, bus: &Arc<Bus>) -> Result<(), CommandError> {
        self.steps.next("plug")?;
        // The device that made the bus may have gone meanwhile.
        if !bus.is_open() {
            return Err(CommandError::generic(format!("Bus '{}' not found", bus.name())));
        }
        let address = bus.kind().plug(bus, device)?;
        device.set_address(Some(address));
        if let Err(error) = self.steps.next("link") {
            bus.kind().unplug(device);
            return Err(error);
        }
        bus.link(device);
        device.set_state(DeviceState::Realized);
        if let Err(error) = self.steps.next("announce") {
            device.set_state(DeviceState::Removing);
            bus.kind().unplug(device);
            bus.unlink(device, drop);
            return Err(error);
        }
        if device.hotplugged() {
            bus.kind().announce(device);
        }
        Ok(())
    }

    /// The last step of a removal.
    fn finish(&self, device: Arc<Device>) {
        if let Some(id) = device.id() {
            self.ids().remove(id);
        }
        self.removals.fetch_sub(1, Ordering::AcqRel);
        self.config.events.deleted(device.id(), device.path());
        drop(device);
        self.removed.notify_all();
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether devices of type `ty` go on buses of the kind of `bus`.
fn takes(bus: &Bus, ty: &DeviceType) -> bool {
    // The link of PCI Express is a PCI bus to software.
    bus.type_name() == ty.bus || (bus.type_name() == "PCIE" && ty.bus == "PCI")
}

/// An id that goes back when the addition fails.
struct Reserved<'t> {
    inner: &'t Inner,
    id: Option<String>,
}

impl Reserved<'_> {
    fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.inner.ids().remove(id);
        }
    }
}
