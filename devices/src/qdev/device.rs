//! A device: an instance of a type.

use super::bus::Bus;
use super::setup::Resources;
use super::types::DeviceType;
use super::value::Properties;
use super::{BoxFuture, value};
use crate::error::CommandError;
use crate::pci::Function;
use serde_json::Value;
use std::any::Any;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long an unplug request stands before it may be repeated: a guest that was not ready when it came
/// may never have seen it.
const REQUEST_STANDS: Duration = Duration::from_secs(5);
/// No address on the bus.
const NO_ADDRESS: u32 = u32::MAX;

/// What is behind a realized device. Made by its type's [`Realize`](super::Realize).
pub trait Realized: Send + Sync {
    /// The PCI function to plug in, for devices of a PCI bus.
    fn function(&self) -> Option<&Arc<Function>> {
        None
    }

    /// The buses that it makes.
    fn buses(&self) -> &[Arc<Bus>] {
        &[]
    }

    /// The value of a property, where it differs from the one that was set: what an automatic choice came
    /// to. Any thread.
    fn property(&self, _name: &str) -> Option<Value> {
        None
    }

    /// A property is about to change, which happens unless this fails. In `main`.
    fn set_property(&self, _name: &str, _value: &value::PropValue) -> Result<(), CommandError> {
        Ok(())
    }

    /// Moves its queues to the contexts that `properties` name, while its driver goes on. In `main`.
    fn move_queues<'a>(
        &'a self,
        _resources: &'a Resources,
        _properties: &'a Properties,
    ) -> BoxFuture<'a, Result<(), CommandError>> {
        Box::pin(std::future::ready(Err(CommandError::generic("The device has no queues"))))
    }

    /// Back to power-on state, where the bus does not do that. In `main` while no vCPU runs.
    fn reset(&self) {}

    /// Resolves when a reset of the device is complete: it touches no guest memory.
    fn quiesced(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Ends all requests: nothing is in flight afterwards, and what the device claimed it keeps. In `main`
    /// while no vCPU runs.
    fn stop(&self) -> BoxFuture<'_, ()> {
        self.quiesced()
    }

    /// Ends the device for good, with what was made for it; nothing is in flight afterwards. In `main`,
    /// once, when the guest cannot reach it any more. A device whose addition fails is only stopped and
    /// dropped, which gives its claims back.
    fn unrealize(&self) -> BoxFuture<'_, ()>;

    /// For those that know more: a bus about its children, a test about its device.
    fn as_any(&self) -> &dyn Any;
}

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Being realized, or rolled back.
    Made,
    /// On its bus.
    Realized,
    /// Off its bus: it is gone when the grace period is over and its requests have ended.
    Removing,
}

/// A device. Shared by its bus, by readers and by commands; all of it may be read on any thread.
pub struct Device {
    ty: &'static DeviceType,
    id: Option<String>,
    path: String,
    hotplugged: bool,
    properties: Mutex<Properties>,
    bus: Weak<Bus>,
    address: AtomicU32,
    state: AtomicU8,
    /// When its guest was last asked to let go of it.
    unplug_asked: Mutex<Option<Instant>>,
    body: OnceLock<Arc<dyn Realized>>,
}

impl Device {
    pub(super) fn new(
        ty: &'static DeviceType,
        (id, path): (Option<String>, String),
        bus: &Arc<Bus>,
        properties: Properties,
        hotplugged: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            ty,
            id,
            path,
            hotplugged,
            properties: Mutex::new(properties),
            bus: Arc::downgrade(bus),
            address: AtomicU32::new(NO_ADDRESS),
            state: AtomicU8::new(DeviceState::Made as u8),
            unplug_asked: Mutex::default(),
            body: OnceLock::new(),
        })
    }

    /// Its type.
    pub fn ty(&self) -> &'static DeviceType {
        self.ty
    }

    /// The id that it was given.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its place in the object tree.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What messages call it: the id, or the path of one without.
    pub fn name(&self) -> &str {
        self.id().unwrap_or(&self.path)
    }

    /// Whether it came after the machine was made.
    pub fn hotplugged(&self) -> bool {
        self.hotplugged
    }

    /// The bus it is on, while that exists.
    pub fn bus(&self) -> Option<Arc<Bus>> {
        self.bus.upgrade()
    }

    /// Its number on the bus: slot and function on PCI.
    pub fn address(&self) -> Option<u32> {
        Some(self.address.load(Ordering::Acquire)).filter(|address| *address != NO_ADDRESS)
    }

    pub(super) fn set_address(&self, address: Option<u32>) {
        self.address.store(address.unwrap_or(NO_ADDRESS), Ordering::Release);
    }

    /// Where it is in its life.
    pub fn state(&self) -> DeviceState {
        match self.state.load(Ordering::Acquire) {
            0 => DeviceState::Made,
            1 => DeviceState::Realized,
            _ => DeviceState::Removing,
        }
    }

    pub(super) fn set_state(&self, state: DeviceState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// What is behind it, once it is realized.
    pub fn body(&self) -> Option<&Arc<dyn Realized>> {
        self.body.get()
    }

    pub(super) fn set_body(&self, body: Arc<dyn Realized>) {
        let _first = self.body.set(body);
    }

    /// The buses that it makes.
    pub fn buses(&self) -> &[Arc<Bus>] {
        self.body.get().map_or(&[], |body| body.buses())
    }

    /// A copy of its properties as they were set.
    pub fn properties(&self) -> Properties {
        lock(&self.properties).clone()
    }

    /// The value of a property as it has come out.
    pub fn property(&self, name: &str) -> Option<Value> {
        let declared = lock(&self.properties).get(name).map(value::PropValue::to_json)?;
        Some(self.body().and_then(|body| body.property(name)).unwrap_or(declared))
    }

    /// Sets a property that may change while the device lives.
    pub fn set_property(
        &self,
        name: &str,
        value: &Value,
        syntax: value::Syntax,
    ) -> Result<(), CommandError> {
        let mut properties = lock(&self.properties);
        let property = properties.declared().find(|property| property.name == name);
        let property = property.ok_or_else(|| value::no_property(self.ty.name, name))?;
        if property.read_only {
            return Err(value::not_writable(self.ty.name, name));
        }
        if !property.live {
            let whom = match self.id() {
                Some(id) => format!("device '{id}' (type '{}')", self.ty.name),
                None => format!("anonymous device (type '{}')", self.ty.name),
            };
            let text = format!("Attempt to set property '{name}' on {whom} after it was realized");
            return Err(CommandError::generic(text));
        }
        let mut changed = properties.clone();
        changed.set(name, value, syntax)?;
        if let (Some(body), Some(value)) = (self.body(), changed.get(name)) {
            body.set_property(name, value)?;
        }
        *properties = changed;
        Ok(())
    }

    /// Moves its queues to other contexts while its driver goes on: to those of `iothread`, or of
    /// `mapping`, or to all cores where both are `None`. In `main`.
    pub async fn set_iothread(
        &self,
        resources: &Resources,
        iothread: Option<&str>,
        mapping: Option<&Value>,
    ) -> Result<(), CommandError> {
        let body = self.body().filter(|_| self.state() == DeviceState::Realized).cloned();
        let body = body.ok_or_else(|| CommandError::device_not_found(self.name()))?;
        let mut properties = self.properties();
        for (name, value) in
            [("iothread", iothread.map(Value::from)), ("iothread-vq-mapping", mapping.cloned())]
        {
            match value {
                Some(value) => properties.set(name, &value, value::Syntax::Json)?,
                None => properties.unset(name),
            }
        }
        body.move_queues(resources, &properties).await?;
        let mut current = lock(&self.properties);
        for name in ["iothread", "iothread-vq-mapping"] {
            current.take_over(name, &properties);
        }
        Ok(())
    }

    /// Whether its guest has been asked to let go of it.
    pub fn unplug_pending(&self) -> bool {
        lock(&self.unplug_asked).is_some()
    }

    /// Whether it has been asked only now, so that asking again is a mistake.
    pub(super) fn unplug_is_fresh(&self) -> bool {
        lock(&self.unplug_asked).is_some_and(|asked| asked.elapsed() < REQUEST_STANDS)
    }

    pub(super) fn set_unplug_asked(&self, asked: bool) {
        *lock(&self.unplug_asked) = asked.then(Instant::now);
    }

    /// Lets a test do without waiting.
    #[cfg(test)]
    pub(super) fn age_unplug_request(&self) {
        *lock(&self.unplug_asked) = Instant::now().checked_sub(REQUEST_STANDS);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
