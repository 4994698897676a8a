//! A network device that comes and goes, with the other end of its wire in the test.

use super::hotplug::unplug;
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use testkit::LinuxGuest;

/// The device's address, as Linux and as frames have it.
const MAC: &str = "52:54:00:12:34:01";
const MAC_BYTES: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 1];
const ARP: [u8; 2] = [8, 6];

/// The wire.
pub struct Wire {
    near: PathBuf,
    far: PathBuf,
    socket: UnixDatagram,
}

impl Wire {
    /// A wire whose ends are in `directory`; it is a back end while a device has it.
    pub fn new(directory: &Path) -> Self {
        let (near, far) = (directory.join("near"), directory.join("far"));
        let socket = UnixDatagram::bind(&far).unwrap();
        socket.set_read_timeout(Some(LinuxGuest::PATIENCE)).unwrap();
        Self { near, far, socket }
    }

    fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 2048];
        let n = self.socket.recv(&mut frame).unwrap();
        frame.truncate(n);
        frame
    }
}

/// A device comes at `place`, sends and receives, and goes.
pub fn cycle(guest: &mut LinuxGuest, wire: &Wire, place: &Value) {
    let end = |path: &Path| json!({"type": "unix", "path": path});
    let back_end =
        json!({"type": "dgram", "id": "n0", "local": end(&wire.near), "remote": end(&wire.far)});
    guest.qmp().execute_with("netdev_add", back_end);
    let mut device = place.clone();
    device["driver"] = "virtio-net-pci".into();
    device["netdev"] = "n0".into();
    device["id"] = "n".into();
    device["mac"] = MAC.into();
    guest.qmp().execute_with("device_add", device);
    guest.run("while [ ! -e /sys/class/net/eth0 ]; do sleep 0.1; done");
    assert_eq!(guest.run("cat /sys/class/net/eth0/address"), format!("{MAC}\n"));
    guest.run("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up");

    // Nobody answers, but who is asked for shows in the question.
    guest.start_line("ping -c 1 -W 1 10.0.0.2 >/dev/null || true");
    let frame = wire.receive();
    assert_eq!((&frame[6..12], &frame[12..14]), (&MAC_BYTES[..], &ARP[..]), "{frame:x?}");
    assert_eq!(frame[38..42], [10, 0, 0, 2], "{frame:x?}");
    assert_eq!(guest.finish_line().0, 0);
    let frame = [&MAC_BYTES[..], &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 50]].concat();
    wire.socket.send_to(&frame, &wire.near).unwrap();
    guest.run("while grep -qx 0 /sys/class/net/eth0/statistics/rx_packets; do sleep 0.1; done");

    unplug(guest, "n");
    guest.run("while [ -e /sys/class/net/eth0 ]; do sleep 0.1; done");
    guest.qmp().execute_with("netdev_del", json!({"id": "n0"}));
    // Questions that were asked again.
    wire.socket.set_nonblocking(true).unwrap();
    while wire.socket.recv(&mut [0; 2048]).is_ok() {}
    wire.socket.set_nonblocking(false).unwrap();
}
