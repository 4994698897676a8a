//! `virtserialport` and `virtconsole`: the ports of a virtio console.

use super::DeviceType;
use crate::chardev::{FrontEnd, FrontEndKind};
use crate::error::CommandError;
use crate::qdev::property::{Kind, Property};
use crate::qdev::serial_bus::SERIAL;
use crate::qdev::setup::{PortSink, Setup};
use crate::qdev::{BoxFuture, Realized};
use crate::virtio::console::{PortError, PortOptions, PortPipe, VirtioConsole, connect};
use reactor::{Context, JoinHandle};
use serde_json::Value;
use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// `nr`: the lowest free one.
const ANY: u64 = u32::MAX as u64;

const PROPERTIES: &[Property] = &[
    Property::uint("nr", Kind::U32, ANY),
    Property::new("name", Kind::Str),
    Property::new("chardev", Kind::Chardev).help("ID of a chardev to use as a backend"),
];

pub(super) const VIRTSERIALPORT: DeviceType = DeviceType {
    name: "virtserialport",
    alias: None,
    parent: "virtio-serial-port",
    category: "Input",
    bus: SERIAL,
    description: None,
    properties: &[PROPERTIES],
    realize: |setup| Box::pin(std::future::ready(realize(&setup, false))) as BoxFuture<'_, _>,
};

pub(super) const VIRTCONSOLE: DeviceType = DeviceType {
    name: "virtconsole",
    parent: "virtserialport",
    realize: |setup| Box::pin(std::future::ready(realize(&setup, true))) as BoxFuture<'_, _>,
    ..VIRTSERIALPORT
};

fn realize(setup: &Setup<'_>, console: bool) -> Result<Arc<dyn Realized>, CommandError> {
    setup.step("chardev")?;
    let frontend = frontend(setup)?;
    let number = u32::try_from(setup.properties.uint("nr")).unwrap_or(u32::MAX);
    let named = !setup.path.starts_with("/machine/peripheral-anon/");
    Ok(Arc::new(SerialPort {
        console,
        wanted: Some(number).filter(|number| u64::from(*number) != ANY),
        name: setup.properties.text("name").filter(|name| !name.is_empty()).map(str::to_owned),
        // Only ports that have a name are told of.
        id: (named && !console).then(|| setup.name.to_owned()),
        told: Arc::clone(&setup.resources.port_opened),
        home: setup.resources.chardevs.home().clone(),
        number: AtomicU32::new(u32::MAX),
        frontend: Mutex::new(frontend.map(Arc::new)),
        task: Mutex::default(),
    }))
}

fn frontend(setup: &Setup<'_>) -> Result<Option<FrontEnd>, CommandError> {
    let Some(id) = setup.properties.text("chardev").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let (chardevs, owner) = (&setup.resources.chardevs, setup.type_name);
    if !chardevs.contains(id) {
        let text = format!("Property '{owner}.chardev' can't find value '{id}'");
        return Err(CommandError::generic(text));
    }
    chardevs.attach(id, FrontEndKind::Device).map(Some).map_err(|error| {
        CommandError::generic(format!(
            "Property '{owner}.chardev' can't take value '{id}': {error}"
        ))
    })
}

/// A realized port.
pub(crate) struct SerialPort {
    console: bool,
    wanted: Option<u32>,
    name: Option<String>,
    id: Option<String>,
    told: PortSink,
    home: Context,
    /// All ones: it is not plugged.
    number: AtomicU32,
    frontend: Mutex<Option<Arc<FrontEnd>>>,
    /// Carries the bytes.
    task: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SerialPort {
    /// Plugs it into `device`; returns its number.
    pub(crate) fn plug(&self, device: &Arc<VirtioConsole>) -> Result<u32, PortError> {
        let pipe = PortPipe::new();
        let frontend = lock(&self.frontend).clone();
        let (told, id) = (Arc::clone(&self.told), self.id.clone());
        // Weak: queues may hold on to a port that is gone for a while.
        let shown = frontend.as_ref().map(Arc::downgrade);
        let console = self.console;
        let number = device.plug(PortOptions {
            number: self.wanted,
            name: self.name.clone(),
            console,
            pipe: Arc::clone(&pipe),
            opened: Arc::new(move |open| {
                let shown = shown.as_ref().filter(|_| !console);
                if let Some(frontend) = shown.and_then(Weak::upgrade) {
                    frontend.set_open(open);
                }
                if let Some(id) = &id {
                    told(id, open);
                }
            }),
        })?;
        self.number.store(number, Ordering::Release);
        if let Some(frontend) = frontend {
            frontend.set_open(console);
            let carried = connect(Arc::clone(device), number, pipe, frontend, console);
            *lock(&self.task) = Some(self.home.spawn("virtio serial port", carried));
        }
        Ok(number)
    }

    /// Lets go of the character device.
    async fn end(&self) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            task.cancel();
            let _cancelled = task.await;
        }
        lock(&self.frontend).take();
    }
}

impl Realized for SerialPort {
    fn property(&self, name: &str) -> Option<Value> {
        let number = self.number.load(Ordering::Acquire);
        (name == "nr" && number != u32::MAX).then(|| number.into())
    }

    fn quiesced(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }

    fn unrealize(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
