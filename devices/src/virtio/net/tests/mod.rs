//! The network device through its BAR, on real reactors, sockets and tap interfaces.

mod control;
mod life;
mod packets;
mod random;
mod tap;

use super::{NetOptions, VirtioNet, config};
use crate::net::{HEADER, NetBackend, Netdev, on_socket};
use crate::virtio::features;
use crate::virtio::testing::{Buffer, Port, TestMachine, on_reactors, until};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use reactor::{Fd, Reactors};
use std::sync::Arc;

/// All that a driver of the time accepts.
const USUAL: u64 = features::COMMON
    | config::MRG_RXBUF
    | config::STATUS
    | config::CTRL_VQ
    | config::CTRL_RX
    | config::CTRL_RX_EXTRA
    | config::CTRL_VLAN
    | config::CTRL_MAC_ADDR
    | config::GUEST_ANNOUNCE
    | config::MAC
    | config::MQ;

const RX: usize = 0;
const TX: usize = 1;
const CTRL: usize = 2;

/// Two connected sockets.
fn sockets(kind: SockType) -> (Fd, Fd) {
    let (a, b) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (Fd::from(a), Fd::from(b))
}

fn netdev(fd: Fd) -> Arc<Netdev> {
    Netdev::new("n0", "socket", on_socket(fd).unwrap())
}

/// Bytes as a frame has them: any, but not the same.
fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8 ^ seed).collect()
}

/// A network device in a machine, and its driver.
struct Rig {
    net: Arc<VirtioNet>,
    port: Port,
    /// Where received chains are, by head: address and length.
    posted: Vec<(u64, u32)>,
}

impl Rig {
    fn new(reactors: &Reactors, netdev: Option<Arc<Netdev>>, options: &NetOptions) -> Self {
        Self::in_machine(&TestMachine::new(), reactors, netdev, options)
    }

    fn in_machine(
        machine: &Arc<TestMachine>,
        reactors: &Reactors,
        netdev: Option<Arc<Netdev>>,
        options: &NetOptions,
    ) -> Self {
        let net = VirtioNet::new("net0", netdev, options).unwrap();
        let port = Port::new(machine, reactors, Arc::clone(&net) as _);
        Self { net, port, posted: Vec::new() }
    }

    fn start(&mut self, features: u64) {
        self.port.start(features, 3, 64);
        self.posted = vec![(0, 0); 64];
    }

    /// Offers `count` chains of one buffer of `len` bytes.
    fn post(&mut self, count: usize, len: u32) {
        for _ in 0..count {
            let address = self.port.machine.alloc(len.into());
            let head = self.port.queues[RX].add(&[Buffer::writable(address, len)]);
            self.posted[usize::from(head)] = (address, len);
        }
        self.port.queues[RX].kick();
    }

    /// Sends a frame; returns when its chain is back.
    async fn send(&mut self, frame: &[u8]) {
        self.send_with(&[0; HEADER], frame).await;
    }

    async fn send_with(&mut self, header: &[u8], frame: &[u8]) {
        let address = self.port.machine.alloc((header.len() + frame.len()) as u64 + 4096);
        self.port.write(address, header);
        self.port.write(address + 2048, frame);
        self.port.queues[TX].add(&[
            Buffer::readable(address, header.len() as u32),
            Buffer::readable(address + 2048, frame.len() as u32),
        ]);
        self.port.queues[TX].kick();
        let used = self.port.queues[TX].wait_used(1).await;
        assert_eq!(used[0].len, 0, "nothing is written");
    }

    /// The next packet: its header and its frame.
    async fn receive(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut packet = Vec::new();
        let mut left = 1;
        while left > 0 {
            if packet.is_empty() {
                until_used(&mut self.port).await;
            }
            let used = self.port.queues[RX].pop_used().expect("all chains of a packet at once");
            let (address, len) = self.posted[usize::from(used.head)];
            assert!(used.len <= len);
            packet.extend(self.port.read(address, used.len as usize));
            if left == 1 && packet.len() == used.len as usize {
                left = usize::from(u16::from_le_bytes([packet[10], packet[11]]));
            }
            left -= 1;
        }
        let frame = packet.split_off(HEADER);
        (packet, frame)
    }

    /// Whether nothing has been received.
    fn nothing_received(&self) -> bool {
        !self.port.queues[RX].any_used()
    }

    async fn close(self) {
        self.port.virtio.shutdown().await;
        if let Some(netdev) = &self.net.netdev {
            netdev.backend().close();
        }
    }
}

/// Waits for an interrupt of the receive queue, if nothing is used yet.
async fn until_used(port: &mut Port) {
    let vector = port.queues[RX].vector.clone().unwrap();
    while !port.queues[RX].any_used() {
        port.queues[RX].want_interrupt_after(1);
        if port.queues[RX].any_used() {
            return;
        }
        vector.wait().await;
    }
}

/// Two devices that are connected with one another.
fn pair(reactors: &Reactors, kind: SockType) -> (Rig, Rig) {
    let (a, b) = sockets(kind);
    let options = NetOptions::default();
    let left = Rig::new(reactors, Some(netdev(a)), &options);
    let right = Rig::new(reactors, Some(netdev(b)), &options);
    (left, right)
}
