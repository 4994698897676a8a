//! The control queue and what it controls.

use super::super::filter::Mac;
use super::*;
use crate::net::Offloads;
use crate::net::{NetReceiver, NetSender};
use crate::virtio::{Ram, status};
use std::io;
use std::sync::Mutex;

const OWN: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

impl Rig {
    /// Runs one command; its acknowledgement.
    async fn command(&mut self, class: u8, command: u8, data: &[u8]) -> u8 {
        let queue = self.port.queues.len() - 1;
        let at = self.port.machine.alloc(4096 + data.len() as u64);
        self.port.write(at, &[class, command]);
        self.port.write(at + 2048, data);
        self.port.write(at + 16, &[0xee]);
        let mut buffers = vec![Buffer::readable(at, 2), Buffer::writable(at + 16, 1)];
        if !data.is_empty() {
            buffers.insert(1, Buffer::readable(at + 2048, data.len() as u32));
        }
        self.port.queues[queue].add(&buffers);
        self.port.queues[queue].kick();
        self.port.queues[queue].wait_used(1).await;
        self.port.read(at + 16, 1)[0]
    }
}

fn to(mac: Mac) -> Vec<u8> {
    let mut frame = frame(60, 0);
    frame[..6].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame
}

#[test]
fn filters_are_set_and_forgotten_with_a_reset() {
    on_reactors(2, |reactors| async move {
        let (mut left, mut right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        right.start(USUAL);
        right.post(16, 1536);
        let other = [2, 0, 0, 0, 0, 1];
        let group = [1, 0, 0x5e, 0, 0, 9];
        assert_eq!(right.command(0, 0, &[0]).await, 0, "promiscuous mode off");
        left.send(&to(other)).await;
        left.send(&to(OWN)).await;
        assert_eq!(right.receive().await.1, to(OWN));
        let mut tables = vec![1, 0, 0, 0];
        tables.extend(other);
        tables.extend([1, 0, 0, 0]);
        tables.extend(group);
        assert_eq!(right.command(1, 0, &tables).await, 0, "tables");
        left.send(&to([2, 0, 0, 0, 0, 2])).await;
        left.send(&to(other)).await;
        left.send(&to(group)).await;
        assert_eq!(right.receive().await.1, to(other));
        assert_eq!(right.receive().await.1, to(group));
        let new = [2, 0, 0, 0, 0, 7];
        assert_eq!(right.command(1, 1, &new).await, 0, "a new address");
        assert_eq!(right.port.driver.device_config::<6>(0), new);
        left.send(&to(OWN)).await;
        left.send(&to(new)).await;
        assert_eq!(right.receive().await.1, to(new));
        right.port.driver.reset().await;
        assert_eq!(right.port.driver.device_config::<6>(0), OWN);
        right.start(USUAL);
        right.post(4, 1536);
        left.send(&to(OWN)).await;
        assert_eq!(right.receive().await.1, to(OWN), "promiscuous again");
        left.close().await;
        right.close().await;
    });
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    on_reactors(1, |reactors| async move {
        let (mut left, right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        let refused: [(u8, u8, &[u8]); 14] = [
            (0, 0, &[]),
            (0, 0, &[1, 1]),
            (0, 6, &[1]),
            (1, 0, &[1, 0, 0, 0]),
            (1, 0, &[0, 0, 0, 0]),
            (1, 0, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
            (1, 1, &[1, 2, 3]),
            (1, 2, &[]),
            (2, 0, &4096u16.to_le_bytes()),
            (2, 7, &[0, 0]),
            (3, 0, &[]),
            // Neither queue pairs nor offloads were negotiated.
            (4, 0, &[1, 0]),
            (5, 0, &[0; 8]),
            (9, 9, &[9]),
        ];
        for (class, command, data) in refused {
            assert_eq!(left.command(class, command, data).await, 1, "{class} {command} {data:?}");
        }
        assert_eq!(left.command(2, 0, &4095u16.to_le_bytes()).await, 0);
        assert_eq!(left.command(1, 0, &[0; 8]).await, 0);
        assert_eq!(left.port.driver.status() & status::NEEDS_RESET, 0);
        // No room for an answer: that cannot be answered.
        let at = left.port.machine.alloc(16);
        left.port.queues[CTRL].add(&[Buffer::readable(at, 2)]);
        left.port.queues[CTRL].kick();
        until(|| left.port.driver.status() & status::NEEDS_RESET != 0).await;
        left.close().await;
        right.close().await;
    });
}

#[test]
fn an_announcement_is_asked_for_and_acknowledged() {
    on_reactors(1, |reactors| async move {
        let (mut left, right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        left.net.announce();
        assert_eq!(left.port.driver.config_vector().wait().await, 1);
        assert_eq!(left.port.driver.device_config::<2>(6), [3, 0]);
        assert_eq!(left.command(3, 0, &[]).await, 0);
        assert_eq!(left.port.driver.device_config::<2>(6), [1, 0]);
        left.close().await;
        right.close().await;
    });
}

/// A back end with several queues that only writes down what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl NetBackend for Notes {
    fn virtio_header(&self) -> bool {
        true
    }
    fn pairs(&self) -> u16 {
        4
    }
    fn receiver(&self, _: u16, _: &Arc<Ram>, _: usize) -> io::Result<Box<dyn NetReceiver>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sender(&self, _: u16, _: &Arc<Ram>, _: usize, _: usize) -> io::Result<Box<dyn NetSender>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn set_offloads(&self, offloads: Offloads) {
        let Offloads { checksum, tso4, tso6, ecn, ufo } = offloads;
        let text = format!("offloads {checksum} {tso4} {tso6} {ecn} {ufo}");
        self.0.lock().unwrap().push(text);
    }
    fn set_active_pairs(&self, pairs: u16) {
        self.0.lock().unwrap().push(format!("pairs {pairs}"));
    }
    fn info(&self) -> String {
        String::new()
    }
    fn close(&self) {}
}

#[test]
fn queue_pairs_and_offloads_reach_the_back_end() {
    on_reactors(1, |reactors| async move {
        let notes = Arc::new(Notes::default());
        let netdev = Netdev::new("n0", "tap", Arc::clone(&notes) as _);
        let mut rig = Rig::new(&reactors, Some(netdev), &NetOptions::default());
        let all = config::GUEST_OFFLOADS | config::CTRL_GUEST_OFFLOADS;
        assert!(rig.port.driver.offered() & all == all);
        assert_eq!(rig.port.driver.device_config::<2>(8), [4, 0], "max_virtqueue_pairs");
        // Only the control queue is brought up: number 8 with MQ.
        assert!(rig.port.driver.negotiate(USUAL | all));
        rig.port.driver.use_vectors(9);
        rig.port.queues = vec![rig.port.driver.set_up_queue(8, 64, true)];
        rig.port.driver.driver_ok();
        for (pairs, ack) in [(4u16, 0), (0, 1), (5, 1), (2, 0)] {
            assert_eq!(rig.command(4, 0, &pairs.to_le_bytes()).await, ack, "{pairs} pairs");
        }
        assert_eq!(notes.take(), ["pairs 4", "pairs 2"]);
        let wanted = config::GUEST_CSUM | config::GUEST_TSO6;
        assert_eq!(rig.command(5, 0, &wanted.to_le_bytes()).await, 0);
        assert_eq!(rig.command(5, 0, &(1u64 << 40).to_le_bytes()).await, 1, "not negotiated");
        assert_eq!(notes.take(), ["offloads true false true false false"]);
        rig.port.driver.reset().await;
        assert_eq!(notes.take(), ["pairs 1", "offloads false false false false false"]);
        // Without MQ the control queue is number 2.
        assert!(rig.port.driver.negotiate(USUAL & !config::MQ));
        rig.port.driver.use_vectors(9);
        rig.port.queues = vec![rig.port.driver.set_up_queue(2, 64, true)];
        rig.port.driver.driver_ok();
        assert_eq!(rig.command(0, 0, &[1]).await, 0);
        rig.close().await;
    });
}
