//! The console device (section 5.3): ports that carry bytes.
//!
//! - `connect`: a port and its character device
//! - `control`: the queues that tell which ports there are and who has them open
//! - `data`: the two queues of a port
//! - `pipe`: the bytes between a port and what is behind it on the host

mod connect;
mod control;
mod data;
mod pipe;
#[cfg(test)]
mod tests;

pub use connect::connect;
pub use pipe::PortPipe;

use super::device::{QueueSetup, VirtioDevice, copy_config};
use super::features;
use super::metrics::{QueueCounters, QueueMetrics};
use super::serve::{idle, serve};
use crate::signal::Signal;
use control::{Event, Message};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const DEVICE_TYPE: u16 = virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE as u16;
/// Simple communication controller, other: what guests know such a device by.
const CLASS_COMMUNICATION: u32 = 0x07_80_00;
const DATA_QUEUE_SIZE: u16 = 128;
const CONTROL_QUEUE_SIZE: u16 = 32;
/// Messages that wait for the driver at most: more than all ports have to say at their start.
const MESSAGES_MAX: usize = 512;
/// The most that `max_ports=` may be.
pub const PORTS_MAX: u32 = 31;

// Feature bits (section 5.3.3).
const MULTIPORT: u64 = 1 << 1;
const EMERG_WRITE: u64 = 1 << 2;
/// Offset of the emergency write field in the configuration space.
const EMERGENCY: u64 = 8;

/// Told when a program of the guest opens or closes a port. Any thread, returns at once.
pub type OpenSink = Arc<dyn Fn(bool) + Send + Sync>;

/// A port that can be plugged.
pub struct PortOptions {
    /// `nr=`: its number; the lowest free one where there is none.
    pub number: Option<u32>,
    /// `name=`: what programs of the guest find it by.
    pub name: Option<String>,
    /// It is a console.
    pub console: bool,
    /// The host's side.
    pub pipe: Arc<PortPipe>,
    /// Told when the guest opens or closes it.
    pub opened: OpenSink,
}

/// Why a port cannot be plugged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The number is taken.
    #[error("virtio-serial-bus: A port already exists at id {0}")]
    Taken(u32),
    /// Another port has the name.
    #[error("virtio-serial-bus: A port already exists by name {0}")]
    NameTaken(String),
    /// The number is not below the device's, or no number below it is free.
    #[error("virtio-serial-bus: Out-of-range port id specified, max. allowed: {0}")]
    OutOfRange(u32),
    /// Number 0 is a console's.
    #[error(
        "Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility."
    )]
    Reserved,
}

/// A port.
struct Port {
    number: u32,
    name: Option<String>,
    console: bool,
    pipe: Arc<PortPipe>,
    opened: OpenSink,
}

impl Port {
    fn set_guest_open(&self, open: bool) {
        if self.pipe.set_guest_open(open) {
            (self.opened)(open);
        }
    }
}

/// What the driver is told and has told.
#[derive(Default)]
struct Talk {
    /// The driver wants to hear of ports.
    ready: bool,
    messages: VecDeque<Message>,
}

/// A virtio console device.
pub struct VirtioConsole {
    ports: Mutex<Box<[Option<Arc<Port>>]>>,
    ports_changed: Arc<Signal>,
    talk: Mutex<Talk>,
    messages_changed: Arc<Signal>,
    queue_sizes: Box<[u16]>,
    metrics: Box<[Arc<QueueMetrics>]>,
    emergency_write: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VirtioConsole {
    /// A device with room for `max_ports` ports, 1 to 31; what lies outside is moved to the border.
    pub fn new(max_ports: u32) -> Self {
        let ports = max_ports.clamp(1, PORTS_MAX) as usize;
        let mut queue_sizes = vec![DATA_QUEUE_SIZE; 2 * (ports + 1)];
        queue_sizes[2..4].fill(CONTROL_QUEUE_SIZE);
        Self {
            ports: Mutex::new((0..ports).map(|_| None).collect()),
            ports_changed: Arc::default(),
            talk: Mutex::default(),
            messages_changed: Arc::default(),
            metrics: queue_sizes.iter().map(|_| Arc::default()).collect(),
            queue_sizes: queue_sizes.into(),
            emergency_write: true,
        }
    }

    /// Whether the driver may print a byte without a queue, which it may unless told otherwise here.
    #[must_use]
    pub fn with_emergency_write(self, emergency_write: bool) -> Self {
        Self { emergency_write, ..self }
    }

    /// How many queues it has.
    pub fn queues(&self) -> u16 {
        self.queue_sizes.len() as u16
    }

    /// Plugs a port; returns its number. Any thread.
    pub fn plug(&self, options: PortOptions) -> Result<u32, PortError> {
        let PortOptions { number, name, console, pipe, opened } = options;
        let number = {
            let mut ports = lock(&self.ports);
            if let Some(name) = &name
                && ports.iter().flatten().any(|port| port.name.as_ref() == Some(name))
            {
                return Err(PortError::NameTaken(name.clone()));
            }
            let count = ports.len() as u32;
            let number = match number {
                Some(number) if number >= count => return Err(PortError::OutOfRange(count - 1)),
                Some(0) if !console => return Err(PortError::Reserved),
                Some(number) => number,
                None => {
                    let first = usize::from(!console);
                    let free = ports.iter().skip(first).position(Option::is_none);
                    free.ok_or(PortError::OutOfRange(count - 1))? as u32 + first as u32
                }
            };
            let place = &mut ports[number as usize];
            if place.is_some() {
                return Err(PortError::Taken(number));
            }
            *place = Some(Arc::new(Port { number, name, console, pipe, opened }));
            number
        };
        self.ports_changed.changed();
        self.tell(Message::new(number, Event::PortAdd, 1));
        Ok(number)
    }

    /// Removes a port. Any thread.
    pub fn unplug(&self, number: u32) {
        let port = lock(&self.ports).get_mut(number as usize).and_then(Option::take);
        if let Some(port) = port {
            self.ports_changed.changed();
            port.set_guest_open(false);
            self.tell(Message::new(number, Event::PortRemove, 1));
        }
    }

    /// Something is behind port `number` on the host, or nothing any more. Any thread.
    pub fn set_host_open(&self, number: u32, open: bool) {
        if let Some(port) = self.port(number as usize) {
            self.set_open_behind(&port, open);
        }
    }

    /// The same, as long as `pipe` is behind the port.
    fn set_pipe_open(&self, number: u32, pipe: &Arc<PortPipe>, open: bool) {
        let port = self.port(number as usize).filter(|port| Arc::ptr_eq(&port.pipe, pipe));
        if let Some(port) = port {
            self.set_open_behind(&port, open);
        }
    }

    fn set_open_behind(&self, port: &Port, open: bool) {
        if port.pipe.set_host_open(open) {
            self.tell(Message::new(port.number, Event::PortOpen, open.into()));
        }
    }

    /// The counters of each queue. Any thread.
    pub fn metrics(&self) -> Vec<QueueCounters> {
        self.metrics.iter().map(|queue| queue.snapshot()).collect()
    }

    fn port(&self, number: usize) -> Option<Arc<Port>> {
        lock(&self.ports).get(number).cloned().flatten()
    }

    /// Tells the driver, if it wants to hear it.
    fn tell(&self, message: Message) {
        {
            let mut talk = lock(&self.talk);
            // A driver that reads none of so many will not miss this one.
            if !talk.ready || talk.messages.len() >= MESSAGES_MAX {
                return;
            }
            talk.messages.push_back(message);
        }
        self.messages_changed.changed();
    }

    fn has_message(&self) -> bool {
        !lock(&self.talk).messages.is_empty()
    }

    fn take_message(&self) -> Option<Message> {
        lock(&self.talk).messages.pop_front()
    }

    /// The driver says something about port `number`.
    fn driver_says(&self, number: u32, event: u16, value: u16) {
        if event == Event::DeviceReady as u16 {
            return self.driver_ready(value != 0);
        }
        let Some(port) = self.port(number as usize) else { return };
        if event == Event::PortReady as u16 {
            if value != 0 {
                self.port_ready(&port);
            }
        } else if event == Event::PortOpen as u16 {
            port.set_guest_open(value != 0);
        }
    }

    fn driver_ready(&self, ready: bool) {
        lock(&self.talk).ready = ready;
        let numbers: Vec<u32> =
            lock(&self.ports).iter().flatten().map(|port| port.number).collect();
        for number in numbers {
            self.tell(Message::new(number, Event::PortAdd, 1));
        }
    }

    /// The driver has made the port: it learns what the port is.
    fn port_ready(&self, port: &Port) {
        if port.console {
            self.tell(Message::new(port.number, Event::ConsolePort, 1));
        }
        if let Some(name) = &port.name {
            self.tell(Message::name(port.number, name));
        }
        if port.pipe.host_open() {
            self.tell(Message::new(port.number, Event::PortOpen, 1));
        }
    }

    async fn serve_queue(self: Arc<Self>, setup: QueueSetup) {
        let metrics = Arc::clone(&self.metrics[usize::from(setup.index)]);
        let multiport = setup.features & MULTIPORT != 0;
        // Section 5.3.2: port 0, the control queues, the other ports.
        let number = match setup.index {
            0 | 1 => 0,
            2 if multiport => {
                return serve(Ok(control::ToGuest::new(self, &setup)), setup, metrics).await;
            }
            3 if multiport => {
                return serve(Ok(control::FromGuest::new(self, &setup)), setup, metrics).await;
            }
            index if multiport => usize::from(index / 2) - 1,
            _ => return idle(setup, metrics).await,
        };
        if setup.index.is_multiple_of(2) {
            let work = data::ToGuest::new(self, number, &setup, !multiport);
            serve(Ok(work), setup, metrics).await;
        } else {
            serve(Ok(data::FromGuest::new(self, number, &setup)), setup, metrics).await;
        }
    }
}

impl VirtioDevice for VirtioConsole {
    fn device_type(&self) -> u16 {
        DEVICE_TYPE
    }

    fn pci_class(&self) -> u32 {
        CLASS_COMMUNICATION
    }

    fn features(&self) -> u64 {
        features::COMMON | MULTIPORT | if self.emergency_write { EMERG_WRITE } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let mut image = [0; 12];
        // Columns and rows are not told: SIZE is not offered.
        image[4..8].copy_from_slice(&(lock(&self.ports).len() as u32).to_le_bytes());
        copy_config(&image, offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8], _: u64) {
        // Section 5.3.6.1: before any queue, the first byte goes to the console.
        if offset == EMERGENCY
            && self.emergency_write
            && let [byte, ..] = data
            && let Some(port) = self.port(0).filter(|port| port.console && port.pipe.host_open())
        {
            port.pipe.add_output(&[*byte]);
        }
    }

    fn serve(self: Arc<Self>, setup: QueueSetup) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.serve_queue(setup))
    }

    fn reset(&self) {
        *lock(&self.talk) = Talk::default();
        let ports: Vec<_> = lock(&self.ports).iter().flatten().cloned().collect();
        for port in ports {
            port.set_guest_open(false);
            port.pipe.keep_half_sent(0);
        }
    }
}
