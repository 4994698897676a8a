//! The network device (Virtual I/O Device 1.2, section 5.1).

use crate::machine::{Machine, PATIENCE};
use crate::queue::Queue;
use crate::rehome;
use crate::virtio::{Device, VERSION_1};
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

/// Bytes of the header before each frame.
const HEADER: usize = 12;
const MAC: u64 = 1 << 5;
const STATUS: u64 = 1 << 16;
/// Where the registers of slots are: what ejects them.
const EJECT: u16 = 0xae08;

/// The far end of a datagram back end.
struct Wire {
    near: PathBuf,
    far: PathBuf,
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
}

impl Wire {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (near, far) = (dir.path().join("near"), dir.path().join("far"));
        let socket = UnixDatagram::bind(&far).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { near, far, socket, _dir: dir }
    }

    fn option(&self) -> String {
        let (near, far) = (self.near.display(), self.far.display());
        format!("dgram,id=n0,local.type=unix,local.path={near},remote.type=unix,remote.path={far}")
    }

    fn json(&self) -> Value {
        json!({
            "type": "dgram",
            "id": "n0",
            "local": {"type": "unix", "path": self.near},
            "remote": {"type": "unix", "path": self.far},
        })
    }

    fn send(&self, frame: &[u8]) {
        self.socket.send_to(frame, &self.near).unwrap();
    }

    fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 65_536];
        let n = self.socket.recv(&mut bytes).unwrap();
        bytes.truncate(n);
        bytes
    }
}

/// A network device with its queues live.
struct Net {
    device: Device,
    receive: Queue,
    transmit: Queue,
}

impl Net {
    fn start(m: &mut Machine, slot: u8) -> Self {
        let device = Device::new(m, slot);
        assert!(device.negotiate(m, VERSION_1 | MAC | STATUS));
        let (receive, transmit) = (device.queue(m, 0, false), device.queue(m, 1, false));
        device.driver_ok(m);
        Self { device, receive, transmit }
    }

    fn post(&mut self, m: &mut Machine, len: u32) -> u64 {
        let at = m.alloc(len.into());
        let head = self.receive.chain(m, &[(at, len, true)]);
        self.receive.offer(m, head);
        self.receive.ring(m);
        at
    }

    fn send(&mut self, m: &mut Machine, frame: &[u8]) {
        let at = m.alloc((HEADER + frame.len()) as u64);
        m.write(at + HEADER as u64, frame);
        let head = self.transmit.chain(m, &[(at, (HEADER + frame.len()) as u32, false)]);
        self.transmit.offer(m, head);
        self.transmit.ring(m);
        self.transmit.take(m);
    }

    /// The next frame that has come to `at`.
    fn received(&mut self, m: &mut Machine, at: u64) -> Vec<u8> {
        let (_, len) = self.receive.take(m);
        m.read(at, len as usize).split_off(HEADER)
    }

    fn link_is_up(&self, m: &mut Machine) -> bool {
        m.readw(self.device.config + 6) & 1 != 0
    }
}

/// A machine with an adapter in slot 4.
fn adapter(more: &str) -> (Machine, Net, Wire) {
    let wire = Wire::new();
    let device = format!("virtio-net-pci,netdev=n0,id=net0,addr=04.0{more}");
    // The device may name a back end that comes later.
    let mut m = Machine::start(&["-device", &device, "-netdev", &wire.option()]);
    let net = Net::start(&mut m, 4);
    (m, net, wire)
}

#[test]
fn frames_go_both_ways_as_they_are() {
    let (mut m, mut net, wire) = adapter(",mac=52:54:00:00:00:07");
    assert_eq!(m.read(net.device.config, 6), [0x52, 0x54, 0, 0, 0, 7]);
    for len in [60, 1514, 14] {
        let frame: Vec<u8> = (0..len).map(|n| n as u8).collect();
        net.send(&mut m, &frame);
        assert_eq!(wire.receive(), frame);
        let at = net.post(&mut m, 2048);
        wire.send(&frame);
        assert_eq!(net.received(&mut m, at), frame);
    }
}

#[test]
fn a_5_byte_ethernet_frame_is_delivered_unpadded() {
    let (mut m, mut net, wire) = adapter("");
    let at = net.post(&mut m, 2048);
    wire.send(b"short");
    assert_eq!(net.received(&mut m, at), b"short");
}

#[test]
fn set_link_shows_in_the_configuration_and_stops_traffic() {
    let (mut m, mut net, wire) = adapter("");
    let mut qmp = m.qmp();
    assert!(net.link_is_up(&mut m));
    qmp.execute_with("set_link", json!({"name": "net0", "up": false}));
    assert!(!net.link_is_up(&mut m));
    net.send(&mut m, b"lost: the cable is pulled");
    qmp.execute_with("set_link", json!({"name": "n0", "up": true}));
    assert!(net.link_is_up(&mut m));
    net.send(&mut m, b"plugged again");
    assert_eq!(wire.receive(), b"plugged again");
}

#[test]
fn an_adapter_is_plugged_and_unplugged_and_its_back_end_stays() {
    let wire = Wire::new();
    let mut m = Machine::start(&[]);
    let mut qmp = m.qmp();
    qmp.execute_with("netdev_add", wire.json());
    for round in 0..3u8 {
        let device = json!({"driver": "virtio-net-pci", "id": "net0", "netdev": "n0", "addr": "5"});
        qmp.execute_with("device_add", device);
        let mut net = Net::start(&mut m, 5);
        net.send(&mut m, &[round; 64]);
        assert_eq!(wire.receive(), [round; 64]);
        qmp.execute_with("device_del", json!({"id": "net0"}));
        m.outl(EJECT, 1 << 5);
        let deleted = qmp.wait_event("DEVICE_DELETED");
        assert_eq!(deleted["data"]["device"], "net0");
    }
    qmp.execute_with("netdev_del", json!({"id": "n0"}));
    assert!(!wire.near.exists(), "the socket is gone with the back end");
}

#[test]
fn a_back_end_that_is_removed_takes_the_link_with_it() {
    let (mut m, mut net, wire) = adapter("");
    let mut qmp = m.qmp();
    qmp.execute_with("netdev_del", json!({"id": "n0"}));
    assert!(!net.link_is_up(&mut m));
    net.send(&mut m, b"to nobody");
    // The id is free for another, which the device does not use.
    qmp.execute_with("netdev_add", wire.json());
    let again = json!({"driver": "virtio-net-pci", "id": "net1", "netdev": "n0", "addr": "5"});
    qmp.execute_with("device_add", again);
    let mut second = Net::start(&mut m, 5);
    second.send(&mut m, b"from the second");
    assert_eq!(wire.receive(), b"from the second");
}

#[test]
fn a_socket_that_was_inherited_is_a_back_end() {
    use std::os::fd::AsRawFd;
    let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
    // SAFETY: fcntl(2) with F_SETFD takes no pointer; the descriptor is open.
    assert_eq!(unsafe { libc::fcntl(near.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let netdev = format!("socket,id=n0,fd={}", near.as_raw_fd());
    let device = "virtio-net-pci,netdev=n0,id=net0,addr=04.0";
    let mut m = Machine::start(&["-device", device, "-netdev", &netdev]);
    drop(near);
    let mut net = Net::start(&mut m, 4);
    let at = net.post(&mut m, 2048);
    far.send(&[0x11; 60]).unwrap();
    assert_eq!(net.received(&mut m, at), [0x11; 60]);
    net.send(&mut m, &[0x22; 60]);
    let mut bytes = [0; 100];
    assert_eq!(far.recv(&mut bytes).unwrap(), 60);
    assert_eq!(bytes[..60], [0x22; 60]);
}

#[test]
fn an_adapter_that_moves_loses_no_packet_that_waits() {
    let (mut m, mut net, wire) = adapter("");
    let mut qmp = m.qmp();
    for id in ["io0", "io1"] {
        qmp.execute_with("object-add", json!({"qom-type": "iothread", "id": id}));
    }
    for n in 0..10u8 {
        let at = net.post(&mut m, 256);
        // The buffer is with the back end when the adapter moves.
        m.step(1);
        rehome::to(&mut qmp, "net0", usize::from(n % 2));
        let frame = [&[0xff; 6][..], &[n; 58]].concat();
        wire.send(&frame);
        assert_eq!(net.received(&mut m, at), frame);
        net.send(&mut m, &frame);
        assert_eq!(wire.receive(), frame);
    }
}
