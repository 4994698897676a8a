//! The console device through its BAR.

use super::*;
use crate::virtio::status;
use crate::virtio::testing::{
    Buffer, EventPlatform, GuardedRam, Port as TestPort, TestMachine, address, descriptor,
    on_reactors, until,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reactor::Reactors;
use std::time::Duration;

const USUAL: u64 = features::COMMON | MULTIPORT;
/// The control queues: to the guest, from the guest.
const SAYS: usize = 2;
const HEARS: usize = 3;

/// A console device in a machine, its driver, and who was told of opened ports.
struct Rig {
    console: Arc<VirtioConsole>,
    port: TestPort,
    told: Arc<Mutex<Vec<bool>>>,
}

impl Rig {
    fn new(reactors: &Reactors) -> Self {
        Self::in_machine(&TestMachine::new(), reactors)
    }

    fn in_machine(machine: &Arc<TestMachine>, reactors: &Reactors) -> Self {
        let console = Arc::new(VirtioConsole::new(4));
        let port = TestPort::new(machine, reactors, Arc::clone(&console) as _);
        Self { console, port, told: Arc::default() }
    }

    fn options(&self, name: &str, console: bool, pipe: &Arc<PortPipe>) -> PortOptions {
        let told = Arc::clone(&self.told);
        PortOptions {
            number: None,
            name: (!name.is_empty()).then(|| name.to_owned()),
            console,
            pipe: Arc::clone(pipe),
            opened: Arc::new(move |open| told.lock().unwrap().push(open)),
        }
    }

    /// Says something to the device.
    async fn say(&mut self, port: u32, event: Event, value: u16) {
        let at = self.port.machine.alloc(64);
        let mut bytes = port.to_le_bytes().to_vec();
        bytes.extend((event as u16).to_le_bytes());
        bytes.extend(value.to_le_bytes());
        self.port.write(at, &bytes);
        self.port.queues[HEARS].add(&[Buffer::readable(at, 8)]);
        self.port.queues[HEARS].kick();
        self.port.queues[HEARS].wait_used(1).await;
    }

    /// Hears the next message: port, event, value, text.
    async fn hear(&mut self) -> (u32, u16, u16, Vec<u8>) {
        let at = self.port.machine.alloc(128);
        self.port.queues[SAYS].add(&[Buffer::writable(at, 128)]);
        self.port.queues[SAYS].kick();
        let used = self.port.queues[SAYS].wait_used(1).await;
        let bytes = self.port.read(at, used[0].len as usize);
        let number = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let event = u16::from_le_bytes(bytes[4..6].try_into().unwrap());
        let value = u16::from_le_bytes(bytes[6..8].try_into().unwrap());
        (number, event, value, bytes[8..].to_vec())
    }

    /// Writes bytes to a port's queue; returns without waiting.
    fn send(&mut self, queue: usize, bytes: &[u8]) {
        let at = self.port.machine.alloc(bytes.len() as u64);
        self.port.write(at, bytes);
        self.port.queues[queue].add(&[Buffer::readable(at, bytes.len() as u32)]);
        self.port.queues[queue].kick();
    }

    /// Reads what comes on a port's queue into a buffer of `len` bytes.
    async fn receive(&mut self, queue: usize, len: u32) -> Vec<u8> {
        let at = self.port.machine.alloc(len.into());
        self.port.queues[queue].add(&[Buffer::writable(at, len)]);
        self.port.queues[queue].kick();
        let used = self.port.queues[queue].wait_used(1).await;
        self.port.read(at, used[0].len as usize)
    }
}

#[test]
fn ports_are_told_named_and_opened() {
    on_reactors(1, |reactors| async move {
        let mut rig = Rig::new(&reactors);
        let (shell, agent) = (PortPipe::new(), PortPipe::new());
        assert_eq!(rig.console.plug(rig.options("", true, &shell)), Ok(0));
        assert_eq!(rig.console.plug(rig.options("org.example.agent", false, &agent)), Ok(1));
        rig.console.set_host_open(1, true);
        rig.port.start(USUAL, 10, 16);
        assert_eq!(rig.port.driver.device_config::<4>(4), 4u32.to_le_bytes());
        rig.say(0xffff_ffff, Event::DeviceReady, 1).await;
        assert_eq!(rig.hear().await, (0, Event::PortAdd as u16, 1, vec![]));
        assert_eq!(rig.hear().await, (1, Event::PortAdd as u16, 1, vec![]));
        rig.say(0, Event::PortReady, 1).await;
        assert_eq!(rig.hear().await, (0, Event::ConsolePort as u16, 1, vec![]));
        rig.say(1, Event::PortReady, 1).await;
        let name = b"org.example.agent\0".to_vec();
        assert_eq!(rig.hear().await, (1, Event::PortName as u16, 1, name));
        assert_eq!(rig.hear().await, (1, Event::PortOpen as u16, 1, vec![]));
        rig.say(1, Event::PortOpen, 1).await;
        rig.say(1, Event::PortOpen, 1).await;
        assert!(agent.guest_open());
        rig.say(1, Event::PortOpen, 0).await;
        rig.say(7, Event::PortOpen, 1).await;
        rig.say(1, Event::PortOpen, 1).await;
        assert_eq!(*rig.told.lock().unwrap(), [true, false, true]);
        // Plugged and unplugged while the driver is there.
        let more = PortPipe::new();
        assert_eq!(rig.console.plug(rig.options("", false, &more)), Ok(2));
        assert_eq!(rig.hear().await, (2, Event::PortAdd as u16, 1, vec![]));
        rig.console.unplug(1);
        assert_eq!(rig.hear().await, (1, Event::PortRemove as u16, 1, vec![]));
        rig.console.set_host_open(0, true);
        assert_eq!(rig.hear().await, (0, Event::PortOpen as u16, 1, vec![]));
        rig.port.driver.reset().await;
        assert_eq!(*rig.told.lock().unwrap(), [true, false, true, false]);
        rig.port.virtio.shutdown().await;
    });
}

#[test]
fn bytes_go_both_ways_and_wait_for_one_another() {
    on_reactors(2, |reactors| async move {
        let mut rig = Rig::new(&reactors);
        let pipe = PortPipe::new();
        rig.console.plug(rig.options("a", false, &pipe)).unwrap();
        rig.console.set_host_open(1, true);
        rig.port.start(USUAL, 10, 16);
        rig.say(1, Event::DeviceReady, 1).await;
        assert_eq!(pipe.write(b"early"), 5);
        rig.say(1, Event::PortOpen, 1).await;
        assert_eq!(rig.receive(4, 3).await, b"ear");
        assert_eq!(rig.receive(4, 100).await, b"ly");
        // More than the pipe holds, from both sides.
        let all: Vec<u8> = (0..300_000u32).map(|n| ((n * 31) >> 3) as u8).collect();
        rig.send(5, &all);
        let mut read = Vec::new();
        while read.len() < all.len() {
            read.extend(pipe.read().await);
        }
        assert!(read == all);
        rig.port.queues[5].wait_used(1).await;
        let (mut sent, mut received) = (0, Vec::new());
        while received.len() < all.len() {
            sent += pipe.write(&all[sent..]);
            received.extend(rig.receive(4, 5000).await);
        }
        assert!(received == all);
        // With nobody on the host's side, bytes are thrown away.
        rig.console.set_host_open(1, false);
        rig.send(5, &all);
        rig.port.queues[5].wait_used(1).await;
        // A host that takes nothing is no obstacle to a reset.
        rig.console.set_host_open(1, true);
        rig.send(5, &all);
        rig.port.driver.reset().await;
        rig.port.virtio.shutdown().await;
    });
}

#[test]
fn a_driver_that_knows_one_port_only_has_a_console() {
    on_reactors(1, |reactors| async move {
        let mut rig = Rig::new(&reactors);
        let pipe = PortPipe::new();
        rig.console.plug(rig.options("", true, &pipe)).unwrap();
        rig.console.set_host_open(0, true);
        rig.port.driver.device_config_write(EMERGENCY, &u32::from(b'!').to_le_bytes());
        assert_eq!(pipe.read().await, b"!");
        rig.port.start(features::COMMON, 2, 16);
        pipe.write(b"in");
        assert_eq!(rig.receive(0, 16).await, b"in");
        rig.send(1, b"out");
        assert_eq!(pipe.read().await, b"out");
        rig.port.virtio.shutdown().await;
    });
}

#[test]
fn port_numbers_are_given_and_kept() {
    on_reactors(1, |reactors| async move {
        let rig = Rig::new(&reactors);
        let pipe = PortPipe::new();
        let plug = |number, console| {
            rig.console.plug(PortOptions { number, ..rig.options("", console, &pipe) })
        };
        assert_eq!(plug(Some(0), false), Err(PortError::Reserved));
        assert_eq!(plug(Some(4), false), Err(PortError::OutOfRange(3)));
        assert_eq!(plug(Some(2), false), Ok(2));
        assert_eq!(plug(Some(2), true), Err(PortError::Taken(2)));
        assert_eq!(plug(None, false), Ok(1));
        assert_eq!(plug(None, true), Ok(0));
        assert_eq!(plug(None, true), Ok(3));
        assert_eq!(plug(None, false), Err(PortError::OutOfRange(3)));
        rig.console.unplug(1);
        assert_eq!(plug(None, false), Ok(1));
        rig.port.virtio.shutdown().await;
    });
}

#[test]
fn random_descriptor_tables_do_no_harm() {
    on_reactors(1, |reactors| async move {
        let memory = GuardedRam::new();
        let mut runner = TestRunner::default();
        let (mut answered, mut broken) = (0, 0);
        for round in 0..300 {
            let queue = round % 6;
            let machine = TestMachine::with_ram(Arc::clone(&memory.ram), EventPlatform::new(true));
            let area = machine.alloc(64 * 1024);
            let place = prop_oneof![20 => Just(area), 1 => address(area)];
            let case = (prop::collection::vec((descriptor(area), place), 8), any::<bool>());
            let (table, sound) = case.new_tree(&mut runner).unwrap().current();
            let mut rig = Rig::in_machine(&machine, &reactors);
            let pipe = PortPipe::new();
            rig.console.plug(rig.options("", true, &pipe)).unwrap();
            rig.console.plug(rig.options("x", false, &pipe)).unwrap();
            rig.port.start(USUAL, 10, 8);
            if queue != HEARS {
                rig.say(0, Event::DeviceReady, 1).await;
                rig.say(0, Event::PortOpen, 1).await;
                rig.say(1, Event::PortOpen, 1).await;
            }
            pipe.write(&vec![7; 60_000]);
            let to_guest = queue % 2 == 0;
            let before = rig.console.metrics()[queue].requests;
            for (n, (descriptor, place)) in table.iter().enumerate() {
                let mut descriptor = *descriptor;
                if sound {
                    descriptor.address = *place;
                    descriptor.len = descriptor.len.clamp(1, 4096);
                    descriptor.flags = if to_guest { 2 } else { 0 };
                }
                rig.port.queues[queue].write_descriptor(n as u16, descriptor);
                rig.port.queues[queue].offer(n as u16);
            }
            rig.port.queues[queue].ring();
            // The driver is told of two ports, and of each that gets ready.
            let wanted = if queue == SAYS { 2 } else { 8 };
            let met = || {
                rig.console.metrics()[queue].requests - before >= wanted
                    || rig.port.driver.status() & status::NEEDS_RESET != 0
                    || (to_guest && !pipe.has_input())
            };
            let ended = reactor::timeout(Duration::from_secs(10), until(met)).await;
            assert!(ended.is_ok(), "queue {queue} hangs on {table:#?}");
            answered += rig.console.metrics()[queue].requests - before;
            broken += u64::from(rig.port.driver.status() & status::NEEDS_RESET != 0);
            rig.port.driver.reset().await;
            assert!(memory.untouched(), "{table:#?}");
            rig.port.virtio.shutdown().await;
        }
        assert!(answered > 300 && broken > 20, "{answered} {broken}");
    });
}
