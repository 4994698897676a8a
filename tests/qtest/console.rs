//! The console device and its ports (Virtual I/O Device 1.2, section 5.3).

use crate::machine::{Machine, PATIENCE};
use crate::queue::Queue;
use crate::virtio::{Device, VERSION_1};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

const MULTIPORT: u64 = 1 << 1;
// Messages on the control queues.
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_REMOVE: u16 = 2;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// A console device whose driver hears and says things.
struct Console {
    device: Device,
    hears: Queue,
    says: Queue,
}

impl Console {
    fn start(m: &mut Machine) -> Self {
        let device = Device::new(m, 4);
        assert!(device.negotiate(m, VERSION_1 | MULTIPORT));
        let (hears, says) = (device.queue(m, 2, false), device.queue(m, 3, false));
        Self { device, hears, says }
    }

    /// Ends the negotiation: queues that are used must be there.
    fn ready(&mut self, m: &mut Machine) {
        self.device.driver_ok(m);
        self.say(m, u32::MAX, DEVICE_READY, 1);
    }

    fn say(&mut self, m: &mut Machine, port: u32, event: u16, value: u16) {
        let at = m.alloc(8);
        m.writel(at, port);
        m.writew(at + 4, event);
        m.writew(at + 6, value);
        let head = self.says.chain(m, &[(at, 8, false)]);
        self.says.offer(m, head);
        self.says.ring(m);
        self.says.take(m);
    }

    /// The next message that does not tell of the host's side: that may come at any time.
    fn hear_other(&mut self, m: &mut Machine) -> (u32, u16, u16, Vec<u8>) {
        loop {
            let message = self.hear(m);
            if message.1 != PORT_OPEN {
                return message;
            }
        }
    }

    /// Waits until the host's side of port `number` is open or not.
    fn hear_open(&mut self, m: &mut Machine, number: u32, open: u16) {
        loop {
            let (port, event, value, _) = self.hear(m);
            assert_eq!((port, event), (number, PORT_OPEN));
            if value == open {
                return;
            }
        }
    }

    /// The next message: port, event, value, text.
    fn hear(&mut self, m: &mut Machine) -> (u32, u16, u16, Vec<u8>) {
        let at = m.alloc(64);
        let head = self.hears.chain(m, &[(at, 64, true)]);
        self.hears.offer(m, head);
        self.hears.ring(m);
        let (_, len) = self.hears.take(m);
        let text = m.read(at, len as usize).split_off(8);
        (m.readl(at), m.readw(at + 4), m.readw(at + 6), text)
    }
}

fn send(m: &mut Machine, queue: &mut Queue, bytes: &[u8]) {
    let at = m.alloc(bytes.len() as u64);
    m.write(at, bytes);
    let head = queue.chain(m, &[(at, bytes.len() as u32, false)]);
    queue.offer(m, head);
    queue.ring(m);
    queue.take(m);
}

fn receive(m: &mut Machine, queue: &mut Queue, len: u32) -> Vec<u8> {
    let at = m.alloc(len.into());
    let head = queue.chain(m, &[(at, len, true)]);
    queue.offer(m, head);
    queue.ring(m);
    let (_, len) = queue.take(m);
    m.read(at, len as usize)
}

/// A machine whose character device `c0` is connected to the stream.
fn with_chardev(more: &[&str]) -> (Machine, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("port");
    let listener = UnixListener::bind(&path).unwrap();
    let chardev = format!("socket,id=c0,path={}", path.display());
    let mut args = vec!["-chardev", &chardev, "-device", "virtio-serial-pci,id=s,addr=04.0"];
    args.extend(more);
    let m = Machine::start(&args);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (m, stream)
}

#[test]
fn a_named_port_carries_bytes_once_the_guest_opens_it() {
    let (mut m, mut stream) =
        with_chardev(&["-device", "virtserialport,chardev=c0,name=org.example,id=p1"]);
    let mut qmp = m.qmp();
    let mut console = Console::start(&mut m);
    // Port 1: the third pair.
    let (mut from_host, mut to_host) =
        (console.device.queue(&mut m, 4, false), console.device.queue(&mut m, 5, false));
    console.ready(&mut m);
    assert_eq!(console.hear_other(&mut m), (1, PORT_ADD, 1, vec![]));
    console.say(&mut m, 1, PORT_READY, 1);
    assert_eq!(console.hear_other(&mut m), (1, PORT_NAME, 1, b"org.example\0".to_vec()));
    console.hear_open(&mut m, 1, 1);
    stream.write_all(b"to the guest").unwrap();
    console.say(&mut m, 1, PORT_OPEN, 1);
    let event = qmp.wait_event("VSERPORT_CHANGE");
    assert_eq!(event["data"], json!({"id": "p1", "open": true}));
    let infos = qmp.execute("query-chardev");
    let info = infos.as_array().unwrap().iter().find(|info| info["label"] == "c0").unwrap();
    assert_eq!(info["frontend-open"], true);
    assert_eq!(receive(&mut m, &mut from_host, 64), b"to the guest");
    send(&mut m, &mut to_host, b"to the host");
    let mut bytes = [0; 11];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to the host");
    // The end of the connection is told.
    drop(stream);
    console.hear_open(&mut m, 1, 0);
}

#[test]
fn a_port_is_plugged_and_unplugged_while_the_driver_listens() {
    let (mut m, mut stream) = with_chardev(&[]);
    let mut qmp = m.qmp();
    let mut console = Console::start(&mut m);
    let mut to_host = console.device.queue(&mut m, 1, false);
    console.ready(&mut m);
    for round in 0..3u8 {
        let port = json!({"driver": "virtconsole", "chardev": "c0", "id": "p0"});
        qmp.execute_with("device_add", port);
        assert_eq!(console.hear_other(&mut m), (0, PORT_ADD, 1, vec![]));
        console.say(&mut m, 0, PORT_READY, 1);
        assert_eq!(console.hear_other(&mut m), (0, CONSOLE_PORT, 1, vec![]));
        if round == 0 {
            send(&mut m, &mut to_host, b"hello");
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
        }
        qmp.execute_with("device_del", json!({"id": "p0"}));
        assert_eq!(qmp.wait_event("DEVICE_DELETED")["data"]["device"], "p0");
        assert_eq!(console.hear_other(&mut m), (0, PORT_REMOVE, 1, vec![]));
    }
    qmp.execute_with("chardev-remove", json!({"id": "c0"}));
}

#[test]
fn a_console_that_moves_repeats_and_drops_nothing() {
    // More than the port and the socket hold: the host does not read yet.
    const LEN: usize = 8 << 20;
    let console = "virtconsole,chardev=c0,id=p0";
    let (mut m, mut stream) = with_chardev(&["-device", console]);
    let mut qmp = m.qmp();
    for id in ["io0", "io1"] {
        qmp.execute_with("object-add", json!({"qom-type": "iothread", "id": id}));
    }
    let device = Device::new(&mut m, 4);
    assert!(device.negotiate(&mut m, VERSION_1));
    let mut to_host = device.queue(&mut m, 1, false);
    device.driver_ok(&mut m);
    let pattern: Vec<u8> = (0..LEN / 4).flat_map(|n| (n as u32).to_le_bytes()).collect();
    let at = m.alloc(LEN as u64);
    for (n, part) in pattern.chunks(1 << 20).enumerate() {
        m.write(at + (n << 20) as u64, part);
    }
    let head = to_host.chain(&mut m, &[(at, LEN as u32, false)]);
    to_host.offer(&mut m, head);
    to_host.ring(&mut m);
    m.step(1);
    let mut read = vec![0; LEN];
    for (n, part) in read.chunks_mut(LEN / 8).enumerate() {
        crate::rehome::to(&mut qmp, "s", n % 2);
        stream.read_exact(part).unwrap();
    }
    assert!(read == pattern);
    to_host.take(&mut m);
}
