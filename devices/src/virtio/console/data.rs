//! The two queues of a port.

use super::{Port, VirtioConsole};
use crate::signal::Watch;
use crate::virtio::chain::OneChain;
use crate::virtio::device::QueueSetup;
use crate::virtio::queue::ChainFault;
use crate::virtio::serve::{QueueWork, Ring};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes that are copied in one go.
const PART: usize = 4096;

/// The port of a queue, which may come and go.
struct Place {
    device: Arc<VirtioConsole>,
    number: usize,
    ports_changed: Watch,
    /// The port, and the view of what happens to it.
    port: Option<(Arc<Port>, Watch)>,
}

impl Place {
    fn new(device: Arc<VirtioConsole>, number: usize) -> Self {
        let ports_changed = Watch::new(&device.ports_changed);
        let mut place = Self { device, number, ports_changed, port: None };
        place.find();
        place
    }

    fn find(&mut self) {
        let port = self.device.port(self.number);
        self.port = port.map(|port| {
            let watch = Watch::new(&port.pipe.changed);
            (port, watch)
        });
    }

    /// Keeps up with changes; the task of `cx` will be woken for the next one.
    fn look(&mut self, cx: &Context<'_>) {
        if self.ports_changed.look(cx) {
            self.find();
        }
        if let Some((_, watch)) = &mut self.port {
            watch.look(cx);
        }
    }

    fn port(&self) -> Option<&Port> {
        self.port.as_ref().map(|(port, _)| &**port)
    }
}

/// Brings the guest what the host sends.
pub(super) struct ToGuest {
    place: Place,
    chain: OneChain,
    /// Without several ports nobody tells who has one open.
    always_open: bool,
}

impl ToGuest {
    pub(super) fn new(
        device: Arc<VirtioConsole>,
        number: usize,
        setup: &QueueSetup,
        always_open: bool,
    ) -> Self {
        Self { place: Place::new(device, number), chain: OneChain::new(setup), always_open }
    }
}

impl QueueWork for ToGuest {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        let Some(port) = self.place.port() else { return Ok(false) };
        let open = self.always_open || port.pipe.guest_open();
        if !open || !port.pipe.has_input() {
            return Ok(false);
        }
        let Some(found) = self.chain.take(ring)? else { return Ok(false) };
        let mut list = self.chain.list();
        list.advance(found.readable);
        let (mut done, mut part) = (0, [0; PART]);
        while done < list.bytes() {
            let room = (list.bytes() - done).min(PART as u64) as usize;
            let n = port.pipe.take_input(&mut part[..room]);
            list.write_at(done, &part[..n]);
            done += n as u64;
            if n < room {
                break;
            }
        }
        ring.metrics.request(true);
        ring.metrics.read(done);
        ring.queue.push_used(found.head, done as u32)?;
        Ok(true)
    }

    fn poll_finished(&mut self, _: &mut Ring, cx: &mut Context<'_>) {
        self.place.look(cx);
    }
}

/// Brings the host what the guest sends; waits while the host takes nothing.
pub(super) struct FromGuest {
    place: Place,
    chain: OneChain,
    /// The chain being taken.
    head: Option<u16>,
    /// Bytes of it that the host has.
    sent: u64,
}

impl FromGuest {
    pub(super) fn new(device: Arc<VirtioConsole>, number: usize, setup: &QueueSetup) -> Self {
        Self { place: Place::new(device, number), chain: OneChain::new(setup), head: None, sent: 0 }
    }

    /// Takes as much of the chain as there is room for, and gives it back when it is empty.
    fn advance(&mut self, ring: &mut Ring) -> Result<(), ChainFault> {
        let Some(head) = self.head else { return Ok(()) };
        let mut list = self.chain.list();
        // With nobody there to listen it is thrown away.
        if let Some(port) = self.place.port().filter(|port| port.pipe.host_open()) {
            let mut part = [0; PART];
            while list.bytes() > 0 {
                let room = port.pipe.output_room().min(PART);
                if room == 0 {
                    return Ok(());
                }
                let n = list.copy_to(&mut part[..room]);
                port.pipe.add_output(&part[..n]);
                list.advance(n as u64);
                self.sent += n as u64;
                ring.metrics.written(n as u64);
            }
        }
        self.head = None;
        ring.metrics.request(true);
        ring.queue.push_used(head, 0)
    }
}

impl QueueWork for FromGuest {
    fn take_one(&mut self, ring: &mut Ring) -> Result<bool, ChainFault> {
        if self.head.is_some() {
            return Ok(false);
        }
        let Some(found) = self.chain.take(ring)? else { return Ok(false) };
        let port = self.place.port();
        self.sent = port.map_or(0, |port| port.pipe.take_half_sent());
        let mut list = self.chain.list();
        list.truncate(found.readable);
        list.advance(self.sent.min(found.readable));
        self.head = Some(found.head);
        self.advance(ring)?;
        Ok(true)
    }

    fn poll_finished(&mut self, ring: &mut Ring, cx: &mut Context<'_>) {
        self.place.look(cx);
        if let Err(fault) = self.advance(ring) {
            ring.fail(&fault);
        }
    }

    fn poll_paused(&mut self, ring: &mut Ring, _: &mut Context<'_>) -> Poll<()> {
        // The host may take its time: the rest is taken on the other context.
        if self.head.take().is_some() {
            ring.queue.unpop();
            if let Some(port) = self.place.port() {
                port.pipe.keep_half_sent(self.sent);
            }
        }
        Poll::Ready(())
    }
}
