//! The control queues (section 5.3.6.2): which ports there are, and who has them open.

use super::VirtioConsole;
use crate::signal::Watch;
use crate::virtio::chain::OneChain;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::ChainFault;
use crate::virtio::serve::{QueueWork, Ring};
use std::sync::Arc;
use std::task::Context;

/// Bytes of a message without its text.
const LEN: usize = 8;

/// What a message is about (section 5.3.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    DeviceReady = 0,
    PortAdd = 1,
    PortRemove = 2,
    PortReady = 3,
    ConsolePort = 4,
    PortOpen = 6,
    PortName = 7,
}

/// A message: `struct virtio_console_control`, and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    port: u32,
    event: u16,
    value: u16,
    text: Vec<u8>,
}

impl Message {
    pub(super) fn new(port: u32, event: Event, value: u16) -> Self {
        Self { port, event: event as u16, value, text: Vec::new() }
    }

    /// The name of a port, with the NUL that drivers look for.
    pub(super) fn name(port: u32, name: &str) -> Self {
        let text = name.bytes().chain([0]).collect();
        Self { text, ..Self::new(port, Event::PortName, 1) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.port.to_le_bytes().to_vec();
        bytes.extend(self.event.to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        bytes.extend(&self.text);
        bytes
    }
}

/// Brings messages to the driver.
pub(super) struct ToGuest {
    device: Arc<VirtioConsole>,
    chain: OneChain,
    changed: Watch,
}

impl ToGuest {
    pub(super) fn new(device: Arc<VirtioConsole>, setup: &QueueSetup) -> Self {
        let changed = Watch::new(&device.messages_changed);
        Self { device, chain: OneChain::new(setup), changed }
    }
}

impl QueueWork for ToGuest {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        if !self.device.has_message() {
            return Ok(false);
        }
        let Some(found) = self.chain.take(ring)? else { return Ok(false) };
        let mut list = self.chain.list();
        list.advance(found.readable);
        let bytes = self.device.take_message().map(|message| message.bytes()).unwrap_or_default();
        let n = list.copy_from(&bytes);
        ring.metrics.request(true);
        ring.queue.push_used(found.head, n as u32)?;
        Ok(true)
    }

    fn poll_finished(&mut self, _: &mut Ring, cx: &mut Context<'_>) {
        self.changed.look(cx);
    }
}

/// Takes messages of the driver.
pub(super) struct FromGuest {
    device: Arc<VirtioConsole>,
    chain: OneChain,
}

impl FromGuest {
    pub(super) fn new(device: Arc<VirtioConsole>, setup: &QueueSetup) -> Self {
        Self { device, chain: OneChain::new(setup) }
    }
}

impl QueueWork for FromGuest {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(found) = self.chain.take(ring)? else { return Ok(false) };
        let mut list = self.chain.list();
        list.truncate(found.readable);
        let mut bytes = [0; LEN];
        let whole = list.copy_to(&mut bytes) == LEN;
        if whole {
            // The same 8 bytes as one number.
            let word = u64::from_le_bytes(bytes);
            self.device.driver_says(word as u32, (word >> 32) as u16, (word >> 48) as u16);
        }
        ring.metrics.request(whole);
        ring.queue.push_used(found.head, 0)?;
        Ok(true)
    }
}
