//! The balloon through its BAR.

use super::*;
use crate::clock::HostClock;
use crate::virtio::testing::{
    Buffer, EventPlatform, GuardedRam, Port, TestMachine, address, descriptor, on_reactors, until,
};
use crate::virtio::{features, status};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reactor::Reactors;

const RAM: u64 = 64 << 20;
const OPTIONS: BalloonOptions =
    BalloonOptions { ram_size: RAM, deflate_on_oom: true, free_page_reporting: true };

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;
const REPORTING: usize = 3;

fn port(reactors: &Reactors, machine: &Arc<TestMachine>) -> (Arc<VirtioBalloon>, Port) {
    let balloon =
        Arc::new(VirtioBalloon::new(OPTIONS, Arc::new(|_| ()), Arc::new(HostClock::new())));
    let port = Port::new(machine, reactors, Arc::clone(&balloon) as _);
    (balloon, port)
}

/// Offers a buffer of page numbers and waits until it is back.
async fn pages(port: &mut Port, queue: usize, numbers: &[u32]) {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let at = port.machine.alloc(bytes.len() as u64 + 1);
    port.write(at, &bytes);
    port.queues[queue].add(&[Buffer::readable(at, bytes.len() as u32)]);
    port.queues[queue].kick();
    port.queues[queue].wait_used(1).await;
}

#[test]
fn a_target_is_asked_for_and_what_was_given_is_told() {
    on_reactors(1, |reactors| async move {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let changed: BalloonSink = Arc::new(move |bytes| sink.lock().unwrap().push(bytes));
        let balloon = Arc::new(VirtioBalloon::new(OPTIONS, changed, Arc::new(HostClock::new())));
        let mut port = Port::new(&TestMachine::new(), &reactors, Arc::clone(&balloon) as _);
        port.start(u64::MAX, 4, 16);
        balloon.set_target(RAM - 10 * PAGE - 1);
        assert_eq!(port.driver.config_vector().wait().await, 1);
        assert_eq!(port.driver.device_config::<4>(0), 10u32.to_le_bytes());
        assert_eq!(balloon.actual(), RAM);
        port.driver.device_config_write(config::ACTUAL, &7u32.to_le_bytes());
        port.driver.device_config_write(config::ACTUAL, &7u32.to_le_bytes());
        port.driver.device_config_write(config::ACTUAL, &[1, 2]);
        assert_eq!(port.driver.device_config::<4>(4), 7u32.to_le_bytes());
        assert_eq!(balloon.actual(), RAM - 7 * PAGE);
        assert_eq!(*told.lock().unwrap(), [RAM - 7 * PAGE], "once");
        // More than there is: the balloon shall be empty.
        balloon.set_target(u64::MAX);
        assert_eq!(port.driver.device_config::<4>(0), [0; 4]);
        port.driver.device_config_write(config::ACTUAL, &u32::MAX.to_le_bytes());
        assert_eq!(balloon.actual(), 0, "a driver may say what it likes");
        port.virtio.shutdown().await;
    });
}

#[test]
fn given_pages_are_freed_and_pages_taken_back_are_usable() {
    on_reactors(1, |reactors| async move {
        let machine = TestMachine::new();
        let (balloon, mut port) = port(&reactors, &machine);
        port.start(u64::MAX, 4, 16);
        let first = 0x100;
        port.write(first * PAGE, &vec![0xff; 32 * PAGE as usize]);
        // Upwards, downwards, single ones, twice, and what is no RAM.
        let numbers = [0x100, 0x101, 0x102, 0x10a, 0x109, 0x108, 0x104, 0x104, 0xffff_ffff, 0x4000];
        pages(&mut port, INFLATE, &numbers).await;
        for page in 0..32 {
            let freed = [0, 1, 2, 4, 8, 9, 10].contains(&page);
            let expected = if freed { 0 } else { 0xff };
            let bytes = port.read((first + page) * PAGE, PAGE as usize);
            assert!(bytes.iter().all(|byte| *byte == expected), "page {page}");
        }
        assert_eq!(balloon.freed(), 8 * PAGE);
        pages(&mut port, DEFLATE, &numbers).await;
        port.write(first * PAGE, b"again");
        assert_eq!(port.read(first * PAGE, 5), b"again");
        assert_eq!(balloon.freed(), 8 * PAGE);
        port.virtio.shutdown().await;
    });
}

#[test]
fn reported_pages_are_freed_unless_their_contents_matter() {
    on_reactors(1, |reactors| async move {
        let machine = TestMachine::new();
        let (balloon, mut port) = port(&reactors, &machine);
        // Without statistics the reporting queue comes one earlier.
        for (wanted, queue) in [(u64::MAX, REPORTING), (!config::STATS_VQ, REPORTING - 1)] {
            for poison in [0u32, 0xaaaa_aaaa] {
                port.start(wanted, 4, 16);
                port.driver.device_config_write(config::POISON, &poison.to_le_bytes());
                let at = machine.alloc(16 * PAGE);
                port.write(at, &vec![0xff; 16 * PAGE as usize]);
                let before = balloon.freed();
                port.queues[queue].add(&[
                    Buffer::writable(at, 4 * PAGE as u32),
                    Buffer::writable(at + 8 * PAGE, 2 * PAGE as u32),
                ]);
                port.queues[queue].kick();
                port.queues[queue].wait_used(1).await;
                let freed = if poison == 0 { 6 * PAGE } else { 0 };
                assert_eq!(balloon.freed() - before, freed);
                let zero = port.read(at, 1) == [0];
                assert_eq!(zero, poison == 0);
                assert_eq!(port.read(at + 4 * PAGE, 1), [0xff]);
                port.driver.reset().await;
                assert_eq!(port.driver.device_config::<4>(config::POISON), [0; 4]);
            }
        }
        port.virtio.shutdown().await;
    });
}

#[test]
fn statistics_are_asked_for_at_the_interval() {
    on_reactors(1, |reactors| async move {
        let machine = TestMachine::new();
        let (balloon, mut port) = port(&reactors, &machine);
        port.start(u64::MAX, 4, 16);
        assert_eq!(balloon.stats(), BalloonStats::default());
        let at = machine.alloc(4096);
        let tell = |port: &mut Port, free: u64| {
            let mut bytes = Vec::new();
            for (tag, value) in [(4u16, free), (5, RAM), (99, 1)] {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(value.to_le_bytes());
            }
            bytes.push(7);
            port.write(at, &bytes);
            port.queues[STATS].add(&[Buffer::readable(at, bytes.len() as u32)]);
            port.queues[STATS].kick();
        };
        tell(&mut port, 1000);
        until(|| balloon.stats().last_update != 0).await;
        let value = |name| balloon.stats().iter().find(|(n, _)| *n == name).map(|(_, value)| value);
        assert_eq!(value("stat-free-memory"), Some(1000));
        assert_eq!(value("stat-total-memory"), Some(RAM));
        assert_eq!(value("stat-swap-in"), Some(u64::MAX), "not told");
        assert!(port.queues[STATS].pop_used().is_none(), "the buffer stays");
        balloon.set_stats_interval(Duration::from_secs(1));
        let used = port.queues[STATS].wait_used(1).await;
        assert_eq!(used.len(), 1, "new ones are wanted");
        tell(&mut port, 2000);
        until(|| balloon.metrics()[STATS].requests == 2).await;
        assert_eq!(value("stat-free-memory"), Some(2000));
        // One that is waited for is no obstacle to a reset.
        port.driver.reset().await;
        port.virtio.shutdown().await;
    });
}

#[test]
fn random_descriptor_tables_do_no_harm() {
    on_reactors(1, |reactors| async move {
        let memory = GuardedRam::new();
        let mut runner = TestRunner::default();
        let (mut answered, mut broken) = (0, 0);
        for round in 0..200 {
            let queue = round % 4;
            let machine = TestMachine::with_ram(Arc::clone(&memory.ram), EventPlatform::new(true));
            let area = machine.alloc(64 * 1024);
            let place = prop_oneof![8 => Just(area), 1 => address(area)];
            let case = (prop::collection::vec((descriptor(area), place), 8), any::<bool>());
            let (table, sound) = case.new_tree(&mut runner).unwrap().current();
            let (balloon, mut port) = port(&reactors, &machine);
            port.start(features::COMMON | config::STATS_VQ | config::REPORTING, 4, 8);
            // Page numbers that lead anywhere, those of the hole included.
            let numbers: Vec<u8> =
                (0..1024u32).flat_map(|n| (n * 37 % 700).to_le_bytes()).collect();
            port.write(area, &numbers);
            for (n, (descriptor, place)) in table.iter().enumerate() {
                let mut descriptor = *descriptor;
                if sound {
                    descriptor.address = *place;
                    descriptor.len = descriptor.len.clamp(1, 4096);
                    descriptor.flags = if queue == REPORTING { 2 } else { 0 };
                }
                port.queues[queue].write_descriptor(n as u16, descriptor);
                port.queues[queue].offer(n as u16);
            }
            port.queues[queue].ring();
            let met = || {
                balloon.metrics()[queue].requests == 8
                    || port.driver.status() & status::NEEDS_RESET != 0
            };
            let ended = reactor::timeout(Duration::from_secs(10), until(met)).await;
            assert!(ended.is_ok(), "queue {queue} hangs on {table:#?}");
            answered += balloon.metrics()[queue].requests;
            broken += u64::from(port.driver.status() & status::NEEDS_RESET != 0);
            port.driver.reset().await;
            assert!(memory.untouched(), "{table:#?}");
            port.virtio.shutdown().await;
        }
        assert!(answered > 200 && broken > 20, "{answered} {broken}");
    });
}

#[test]
fn a_machine_has_one_balloon_at_a_time() {
    let slot = BalloonSlot::new(RAM, Arc::new(|_| ()), Arc::new(HostClock::new()));
    assert!(slot.get().is_none());
    let first = slot.make(false, false).unwrap();
    assert!(slot.make(false, false).is_none());
    assert_eq!(slot.get().map(|balloon| balloon.actual()), Some(RAM));
    drop(first);
    assert!(slot.make(true, true).is_some());
}
