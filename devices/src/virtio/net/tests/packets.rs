//! Frames from one device to another.

use super::*;

#[test]
fn frames_of_all_sizes_arrive_as_they_were_sent() {
    for kind in [SockType::Stream, SockType::Datagram] {
        on_reactors(2, move |reactors| async move {
            let (mut left, mut right) = pair(&reactors, kind);
            left.start(USUAL);
            right.start(USUAL);
            right.post(48, 1536);
            // Five bytes stay five: nothing is padded.
            for (n, len) in [5, 14, 60, 1514, 9000, 65_549].into_iter().enumerate() {
                let sent = frame(len, n as u8);
                left.send(&sent).await;
                let (header, received) = right.receive().await;
                assert!(received == sent, "{len} bytes over {kind:?}");
                assert_eq!(header[..10], [0; 10]);
                let buffers = (len + HEADER).div_ceil(1536) as u16;
                assert_eq!(header[10..], buffers.to_le_bytes());
                right.post(usize::from(buffers), 1536);
            }
            let counters = left.net.metrics();
            assert_eq!((counters[TX].requests, counters[TX].failed), (6, 0));
            assert_eq!(right.net.metrics()[RX].bytes_read, 5 + 14 + 60 + 1514 + 9000 + 65_549);
            left.close().await;
            right.close().await;
        });
    }
}

#[test]
fn many_frames_keep_their_order_in_both_directions() {
    for kind in [SockType::Stream, SockType::Datagram] {
        on_reactors(2, move |reactors| async move {
            let (mut left, mut right) = pair(&reactors, kind);
            left.start(USUAL);
            right.start(USUAL);
            left.post(32, 2048);
            right.post(32, 2048);
            for n in 0..200u32 {
                let ping = frame(64 + (n as usize * 37) % 1400, n as u8);
                left.send(&ping).await;
                assert!(right.receive().await.1 == ping, "ping {n}");
                let pong = frame(64 + (n as usize * 91) % 1400, n as u8);
                right.send(&pong).await;
                assert!(left.receive().await.1 == pong, "pong {n}");
                left.post(1, 2048);
                right.post(1, 2048);
            }
            left.close().await;
            right.close().await;
        });
    }
}

#[test]
fn without_merging_a_packet_takes_one_chain_or_is_lost() {
    on_reactors(1, |reactors| async move {
        let (mut left, mut right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        right.start(USUAL & !config::MRG_RXBUF);
        right.post(4, 1536);
        left.send(&frame(2000, 1)).await;
        left.send(&frame(1500, 2)).await;
        let (header, received) = right.receive().await;
        assert!(received == frame(1500, 2));
        assert_eq!(header[10..], [1, 0]);
        assert_eq!(right.net.metrics()[RX].requests, 1);
        left.close().await;
        right.close().await;
    });
}

#[test]
fn buffers_that_come_late_are_used_for_what_waits() {
    on_reactors(2, |reactors| async move {
        let (mut left, mut right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        right.start(USUAL);
        for n in 0..8 {
            left.send(&frame(1000, n)).await;
        }
        assert!(right.nothing_received());
        for n in 0..8 {
            right.post(1, 1536);
            assert!(right.receive().await.1 == frame(1000, n));
        }
        left.close().await;
        right.close().await;
    });
}

#[test]
fn a_chain_of_gigabytes_is_answered_and_sent_nowhere() {
    on_reactors(1, |reactors| async move {
        let (mut left, mut right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        right.start(USUAL);
        right.post(2, 1536);
        let machine = Arc::clone(&left.port.machine);
        let (data, table) = (machine.alloc(24 << 20), machine.alloc(4096));
        // 65 times the same 24 MiB.
        let buffers = vec![Buffer::readable(data, 24 << 20); 65];
        left.port.queues[TX].add_indirect(table, &buffers);
        left.port.queues[TX].kick();
        assert_eq!(left.port.queues[TX].wait_used(1).await.len(), 1);
        // And the same for the receiver.
        let writable = vec![Buffer::writable(data, 16 << 20); 65];
        left.port.queues[RX].add_indirect(machine.alloc(4096), &writable);
        left.port.queues[RX].kick();
        left.send(&frame(100, 3)).await;
        assert!(right.receive().await.1 == frame(100, 3));
        right.send(&frame(100, 4)).await;
        let used = left.port.queues[RX].wait_used(1).await;
        assert_eq!(used[0].len as usize, HEADER + 100);
        assert_eq!(left.net.metrics()[TX].failed, 1);
        left.close().await;
        right.close().await;
    });
}

#[test]
fn a_header_in_pieces_is_read_and_written() {
    on_reactors(1, |reactors| async move {
        let (mut left, mut right) = pair(&reactors, SockType::Stream);
        left.start(USUAL);
        right.start(USUAL);
        let at = right.port.machine.alloc(8192);
        let pieces = [(0, 1), (16, 9), (32, 1), (48, 1), (64, 3), (128, 2000)];
        let buffers = pieces.map(|(offset, len)| Buffer::writable(at + offset, len));
        right.port.queues[RX].add(&buffers);
        right.port.queues[RX].kick();
        let from = left.port.machine.alloc(8192);
        left.port.write(from, &[0; 12]);
        left.port.write(from + 16, &frame(50, 9));
        let buffers = [(0, 5), (5, 7), (16, 20), (36, 30)];
        left.port.queues[TX].add(&buffers.map(|(at, len)| Buffer::readable(from + at, len)));
        left.port.queues[TX].kick();
        let used = right.port.queues[RX].wait_used(1).await;
        assert_eq!(used[0].len, 62);
        let mut packet = Vec::new();
        for (offset, len) in pieces {
            packet.extend(right.port.read(at + offset, len as usize));
        }
        assert_eq!(packet[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(packet[12..62], frame(50, 9));
        left.close().await;
        right.close().await;
    });
}

#[test]
fn a_device_without_a_back_end_takes_packets_and_brings_none() {
    on_reactors(1, |reactors| async move {
        let mut rig = Rig::new(&reactors, None, &NetOptions::default());
        rig.start(USUAL);
        rig.post(4, 1536);
        rig.send(&frame(60, 0)).await;
        rig.send(&frame(60, 1)).await;
        assert!(rig.nothing_received());
        rig.port.driver.reset().await;
        rig.close().await;
    });
}
