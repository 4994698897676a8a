//! Reset, the cable, and back ends that go away.

use super::*;
use crate::net::Nic;
use crate::virtio::status;

#[test]
fn what_is_offered_depends_on_the_back_end_and_the_options() {
    on_reactors(1, |reactors| async move {
        let offered = |options: NetOptions| {
            let (a, _) = sockets(SockType::Stream);
            let net = VirtioNet::new("net0", Some(netdev(a)), &options).unwrap();
            crate::virtio::VirtioDevice::features(&*net)
        };
        let all = offered(NetOptions::default());
        assert_eq!(all, USUAL & !config::MQ, "no offloads over a socket, and one queue pair");
        let without = NetOptions { features: !config::CTRL_VQ, ..NetOptions::default() };
        assert_eq!(
            offered(without),
            features::COMMON | config::MAC | config::MRG_RXBUF | config::STATUS
        );
        let mtu = NetOptions { mtu: Some(9000), ..NetOptions::default() };
        let (a, _) = sockets(SockType::Stream);
        let rig = Rig::new(&reactors, Some(netdev(a)), &mtu);
        assert_ne!(rig.port.driver.offered() & config::MTU, 0);
        assert_eq!(
            rig.port.driver.device_config::<12>(0),
            [0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 1, 0, 0x28, 0x23]
        );
        assert_eq!(rig.port.driver.device_config::<4>(12), [0; 4]);
        rig.close().await;
    });
}

#[test]
fn impossible_options_are_refused() {
    for (options, text) in [
        (NetOptions { mtu: Some(67), ..NetOptions::default() }, "host_mtu=67"),
        (NetOptions { rx_queue_size: 128, ..NetOptions::default() }, "rx_queue_size (= 128)"),
        (NetOptions { tx_queue_size: 300, ..NetOptions::default() }, "tx_queue_size (= 300)"),
        (NetOptions { mac: [1, 2, 3, 4, 5, 6], ..NetOptions::default() }, "01:02:03:04:05:06"),
    ] {
        let error = VirtioNet::new("net0", None, &options).err().unwrap().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn one_back_end_serves_one_device() {
    on_reactors(1, |_| async move {
        let (a, _b) = sockets(SockType::Stream);
        let netdev = netdev(a);
        let options = NetOptions::default();
        let first = VirtioNet::new("net0", Some(Arc::clone(&netdev)), &options).unwrap();
        let error = VirtioNet::new("net1", Some(Arc::clone(&netdev)), &options).err().unwrap();
        assert!(error.to_string().contains("'n0' is in use"), "{error}");
        let netdevs = crate::net::Netdevs::default();
        assert_eq!(netdevs.free_mac(), [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        netdevs.add_nic(Arc::downgrade(&first) as _);
        assert_eq!(netdevs.free_mac(), [0x52, 0x54, 0, 0x12, 0x34, 0x57]);
        netdevs.set_link("net0", false).unwrap();
        assert!(!first.link_up());
        first.detach();
        VirtioNet::new("net1", Some(netdev), &options).unwrap();
    });
}

#[test]
fn a_pulled_cable_is_told_and_carries_nothing() {
    on_reactors(2, |reactors| async move {
        let (mut left, mut right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        right.start(USUAL);
        right.post(8, 1536);
        left.net.set_link(false);
        assert_eq!(left.port.driver.config_vector().wait().await, 1);
        assert_eq!(left.port.driver.device_config::<2>(6), [0, 0]);
        left.net.set_link(false);
        assert!(!left.port.driver.config_vector().raised(), "that is no news");
        left.send(&frame(60, 1)).await;
        left.net.set_link(true);
        assert_eq!(left.port.driver.config_vector().wait().await, 1);
        assert_eq!(left.port.driver.device_config::<2>(6), [1, 0]);
        left.send(&frame(60, 2)).await;
        assert_eq!(right.receive().await.1, frame(60, 2));
        right.net.set_link(false);
        left.send(&frame(60, 3)).await;
        until(|| right.net.metrics()[RX].batches > 0).await;
        right.send(&frame(60, 4)).await;
        assert!(right.nothing_received());
        left.close().await;
        right.close().await;
    });
}

#[test]
fn a_reset_at_any_time_loses_no_place_in_the_stream() {
    on_reactors(2, |reactors| async move {
        let (mut left, mut right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        for round in 0..30u8 {
            right.start(USUAL);
            right.post(32, 2048);
            let burst = 1 + usize::from(round) % 20;
            for n in 0..burst {
                left.send(&frame(1400 - n, n as u8)).await;
            }
            for _ in 0..round {
                reactor::yield_now().await;
            }
            right.port.driver.reset().await;
        }
        // Frames may be lost, but never halved: the next ones come out whole.
        right.start(USUAL);
        right.post(48, 2048);
        left.send(&frame(777, 0x55)).await;
        loop {
            let received = right.receive().await.1;
            if received.len() == 777 {
                assert!(received == frame(777, 0x55));
                break;
            }
            let n = 1400 - received.len();
            assert!(received == frame(1400 - n, n as u8));
            right.post(1, 2048);
        }
        left.close().await;
        right.close().await;
    });
}

#[test]
fn a_sender_is_reset_while_nobody_reads() {
    on_reactors(2, |reactors| async move {
        for kind in [SockType::Stream, SockType::Datagram] {
            let (mut left, mut right) = pair(&reactors, kind);
            left.start(USUAL);
            let from = left.port.machine.alloc(65_536);
            // More than the socket and the device hold.
            for _ in 0..32 {
                left.port.queues[TX]
                    .add(&[Buffer::readable(from, HEADER as u32), Buffer::readable(from, 60_000)]);
            }
            left.port.queues[TX].kick();
            until(|| left.net.metrics()[TX].batches > 0).await;
            left.port.driver.reset().await;
            left.start(USUAL);
            right.start(USUAL);
            right.post(60, 4096);
            let last = frame(999, 3);
            left.port.write(from + 8192, &last);
            left.port.queues[TX]
                .add(&[Buffer::readable(from, HEADER as u32), Buffer::readable(from + 8192, 999)]);
            left.port.queues[TX].kick();
            loop {
                let (header, received) = right.receive().await;
                if received.len() == 999 {
                    assert!(received == last);
                    break;
                }
                assert_eq!(received.len(), 60_000, "whole frames only");
                right.post(usize::from(header[10]), 4096);
            }
            left.close().await;
            right.close().await;
        }
    });
}

#[test]
fn a_back_end_that_goes_away_leaves_a_device_without_link() {
    for kind in [SockType::Stream, SockType::Datagram] {
        on_reactors(2, move |reactors| async move {
            let (a, b) = sockets(kind);
            let netdev = netdev(a);
            let mut rig = Rig::new(&reactors, Some(Arc::clone(&netdev)), &NetOptions::default());
            rig.start(USUAL);
            rig.post(4, 1536);
            rig.send(&frame(60, 0)).await;
            netdev.backend().close();
            rig.net.backend_gone();
            assert_eq!(rig.port.driver.config_vector().wait().await, 1);
            assert_eq!(rig.port.driver.device_config::<2>(6), [0, 0]);
            rig.send(&frame(60, 1)).await;
            // The socket is closed although the device lives on: its peer sees the end.
            if kind == SockType::Stream {
                let (first, _) = reactor::io::recv(&b, vec![0; 64]).await;
                assert_eq!(first.unwrap(), 64);
                let (end, _) = reactor::io::recv(&b, vec![0; 64]).await;
                assert_eq!(end.unwrap(), 0);
            }
            assert_eq!(rig.port.driver.status() & status::NEEDS_RESET, 0);
            rig.port.driver.reset().await;
            rig.close().await;
        });
    }
}

#[test]
fn a_stream_that_announces_nonsense_is_given_up() {
    on_reactors(1, |reactors| async move {
        let (a, b) = sockets(SockType::Stream);
        let mut rig = Rig::new(&reactors, Some(netdev(a)), &NetOptions::default());
        rig.start(USUAL);
        rig.post(4, 1536);
        let (sent, _) = reactor::io::send_all(&b, vec![0xff; 64]).await;
        sent.unwrap();
        let (end, _) = reactor::io::recv(&b, vec![0; 64]).await;
        assert!(end.map_or(true, |n| n == 0), "the connection is closed");
        assert!(rig.nothing_received());
        assert_eq!(rig.port.driver.status() & status::NEEDS_RESET, 0);
        rig.send(&frame(60, 0)).await;
        rig.close().await;
    });
}
