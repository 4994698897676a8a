//! The entropy device through its BAR.

use super::*;
use crate::clock::HostClock;
use crate::virtio::status;
use crate::virtio::testing::{
    Buffer, EventPlatform, GuardedRam, Port, RawDescriptor, TestMachine, descriptor, on_reactors,
    until,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reactor::Reactors;
use std::collections::BTreeSet;

struct Rig {
    port: Port,
    rng: Arc<VirtioRng>,
}

impl Rig {
    fn new(
        machine: &Arc<TestMachine>,
        reactors: &Reactors,
        entropy: Entropy,
        limit: Option<RateLimit>,
    ) -> Self {
        let rng =
            Arc::new(VirtioRng::new(Arc::new(entropy), limit, Arc::new(HostClock::new())).unwrap());
        let port = Port::new(machine, reactors, Arc::clone(&rng) as _);
        Self { port, rng }
    }

    fn start(&mut self) {
        self.port.start(features::COMMON, 1, 8);
    }

    fn offer(&mut self, len: u32) -> u64 {
        let at = self.port.machine.alloc(len.into());
        self.port.queues[0].add(&[Buffer::writable(at, len)]);
        self.port.queues[0].kick();
        at
    }

    async fn read(&mut self, len: u32) -> Vec<u8> {
        let at = self.offer(len);
        let used = self.port.queues[0].wait_used(1).await;
        self.port.read(at, used[0].len as usize)
    }
}

#[test]
fn every_buffer_is_filled_with_other_bytes() {
    on_reactors(1, |reactors| async move {
        let entropy = Entropy::system().await.unwrap();
        let mut rig = Rig::new(&TestMachine::new(), &reactors, entropy, None);
        rig.start();
        let mut seen = BTreeSet::new();
        for len in [16, 64, 4096, 65536] {
            for _ in 0..4 {
                let bytes = rig.read(len).await;
                assert_eq!(bytes.len(), len as usize);
                assert!(seen.insert(bytes[..16].to_vec()), "repeated");
                let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
                let bits = len * 8;
                assert!((bits / 4..bits * 3 / 4).contains(&ones), "{ones} of {bits}");
            }
        }
        // More than a buffer gets at a time.
        assert_eq!(rig.read(1 << 20).await.len(), 64 << 10);
        assert_eq!(rig.rng.metrics().requests, 17);
        rig.port.virtio.shutdown().await;
    });
}

#[test]
fn bytes_come_from_the_file_in_order() {
    on_reactors(1, |reactors| async move {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let entropy = Entropy::open(&path).await.unwrap();
        let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut rig = Rig::new(&TestMachine::new(), &reactors, entropy, None);
        rig.start();
        // Nothing is there yet: two buffers wait.
        let at = [rig.offer(4), rig.offer(4)];
        for _ in 0..10 {
            reactor::yield_now().await;
        }
        assert_eq!(rig.port.queues[0].used_idx(), 0);
        std::io::Write::write_all(&mut pipe, b"abcdefgh").unwrap();
        assert_eq!(rig.port.queues[0].wait_used(2).await.len(), 2);
        assert_eq!(
            (rig.port.read(at[0], 4), rig.port.read(at[1], 4)),
            (b"abcd".to_vec(), b"efgh".to_vec())
        );
        // A reset lets go of a buffer that waits.
        let at = rig.offer(4);
        rig.port.driver.reset().await;
        std::io::Write::write_all(&mut pipe, b"ijkl").unwrap();
        rig.start();
        assert_eq!(rig.port.read(at, 4), [0; 4]);
        assert_eq!(rig.read(8).await, b"ijkl", "what there is, and not all that there is room for");
        // The end of the file is the end of the device, until somebody looks after it.
        drop(pipe);
        rig.offer(4);
        until(|| rig.port.driver.status() & status::NEEDS_RESET != 0).await;
        rig.port.virtio.shutdown().await;
    });
}

#[test]
fn no_period_gives_more_than_its_bytes() {
    on_reactors(1, |reactors| async move {
        let limit = RateLimit { bytes: 100, period: Duration::from_millis(50) };
        let entropy = Entropy::system().await.unwrap();
        let mut rig = Rig::new(&TestMachine::new(), &reactors, entropy, Some(limit));
        rig.start();
        let begin = std::time::Instant::now();
        let mut bytes = 0;
        while bytes < 450 {
            bytes += rig.read(64).await.len();
        }
        // Five periods have begun, the first one at once.
        assert!(begin.elapsed() >= limit.period * 4, "{:?}", begin.elapsed());
        rig.port.virtio.shutdown().await;
        let entropy = Arc::new(Entropy::system().await.unwrap());
        for (bytes, period) in [(0, Duration::from_secs(1)), (1, Duration::ZERO)] {
            let limit = Some(RateLimit { bytes, period });
            let clock = Arc::new(HostClock::new());
            assert_eq!(VirtioRng::new(Arc::clone(&entropy), limit, clock).err(), Some(RateError));
        }
    });
}

#[test]
fn random_chains_do_no_harm() {
    on_reactors(1, |reactors| async move {
        let memory = GuardedRam::new();
        let mut runner = TestRunner::default();
        let (mut sound, mut broken) = (0, 0);
        for round in 0..300 {
            let machine =
                TestMachine::with_ram(Arc::clone(&memory.ram), EventPlatform::new(round % 2 == 0));
            let area = machine.alloc(64 * 1024);
            let table = prop::collection::vec(descriptor(area), 8);
            let table: Vec<RawDescriptor> = table.new_tree(&mut runner).unwrap().current();
            let entropy = Entropy::system().await.unwrap();
            let mut rig = Rig::new(&machine, &reactors, entropy, None);
            rig.start();
            for (n, descriptor) in table.iter().enumerate() {
                rig.port.queues[0].write_descriptor(n as u16, *descriptor);
            }
            rig.port.queues[0].offer(0);
            rig.port.queues[0].ring();
            until(|| {
                rig.rng.metrics().requests > 0
                    || rig.port.driver.status() & status::NEEDS_RESET != 0
            })
            .await;
            sound += rig.rng.metrics().requests;
            broken += u64::from(rig.port.driver.status() & status::NEEDS_RESET != 0);
            rig.port.driver.reset().await;
            assert!(memory.untouched(), "{table:#x?}");
            rig.start();
            assert_eq!(rig.read(32).await.len(), 32);
            rig.port.virtio.shutdown().await;
        }
        assert!(sound > 10 && broken > 10, "{sound} {broken}");
        drop(memory.ram);
    });
}
