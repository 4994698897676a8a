//! Multishot operations and provided buffer rings.

mod common;

use common::{eventfd, pair, poll_once, with};
use reactor::net::{Listener, Stream};
use reactor::{BufRing, Fd, OpGroup, hop, io, yield_now};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

fn name(test: &str) -> String {
    format!("reactor-multishot-{test}-{}", std::process::id())
}

#[test]
fn incoming_connections_all_arrive() {
    with(|reactors| async move {
        let name = name("all");
        let listener = Listener::bind_abstract(name.as_bytes()).unwrap();
        let clients = reactors.core(0).spawn("clients", async move {
            let mut streams = Vec::new();
            for n in 0..200u8 {
                let stream = Stream::connect_abstract(name.as_bytes()).await.unwrap();
                stream.send_all(vec![n]).await.0.unwrap();
                streams.push(stream);
            }
            streams
        });
        let mut incoming = listener.incoming();
        let mut seen = [false; 200];
        for _ in 0..200 {
            let stream = incoming.next().await.unwrap();
            let (n, bytes) = stream.recv(vec![0; 1]).await;
            assert_eq!(n.unwrap(), 1);
            seen[usize::from(bytes[0])] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
        clients.await.unwrap();
    });
}

#[test]
fn dropped_incoming_closes_what_nobody_took() {
    with(|_| async {
        let name = name("dropped");
        let listener = Listener::bind_abstract(name.as_bytes()).unwrap();
        let mut incoming = listener.incoming();
        let mut first = Box::pin(incoming.next());
        assert!(poll_once(&mut first).await.is_pending());
        drop(first);
        let client = Stream::connect_abstract(name.as_bytes()).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
        }
        drop(incoming);
        drop(listener);
        // The other end is closed.
        let (n, _) = client.recv(vec![0; 1]).await;
        assert_eq!(n.unwrap_or(0), 0);
    });
}

#[test]
fn poll_reports_each_edge() {
    with(|_| async {
        let bell = eventfd();
        let mut poll = io::poll_multishot(&bell, libc::POLLIN as u32);
        for _ in 0..5 {
            let mut next = Box::pin(poll.next());
            assert!(poll_once(&mut next).await.is_pending());
            io::write_all(&bell, 1u64.to_ne_bytes().to_vec()).await.0.unwrap();
            assert_eq!(next.await.unwrap() & libc::POLLIN as u32, libc::POLLIN as u32);
        }
        // Several edges that nobody took are one.
        for _ in 0..3 {
            io::write_all(&bell, 1u64.to_ne_bytes().to_vec()).await.0.unwrap();
        }
        poll.next().await.unwrap();
        assert!(poll_once(&mut Box::pin(poll.next())).await.is_pending());
    });
}

#[test]
fn received_data_comes_in_buffers_of_the_ring() {
    with(|reactors| async move {
        let (mut end, start) = UnixStream::pair().unwrap();
        let stream = Stream::from_fd(start.into());
        let buffers = BufRing::new(4, 64).unwrap();
        assert_eq!(buffers.available(), 4);
        let mut data = stream.incoming(&buffers);
        for n in 0..100u8 {
            end.write_all(&[n; 10]).unwrap();
            let buffer = data.next().await.unwrap().unwrap();
            assert_eq!(&buffer[..], [n; 10]);
            if n % 3 == 0 {
                // Dropped elsewhere, it finds its way home.
                reactors.core(0).spawn("drops", async move { drop(buffer) }).await.unwrap();
            }
        }
        drop(end);
        assert!(data.next().await.unwrap().is_none());
        while buffers.available() < 4 {
            yield_now().await;
        }
    });
}

/// With every buffer in somebody's hands the data stays in the socket.
#[test]
fn empty_buffer_ring_makes_the_stream_wait() {
    with(|_| async {
        let (mut end, start) = UnixStream::pair().unwrap();
        let stream = Stream::from_fd(start.into());
        let buffers = BufRing::new(2, 8).unwrap();
        let mut data = stream.incoming(&buffers);
        end.write_all(&[7; 32]).unwrap();
        let first = data.next().await.unwrap().unwrap();
        let second = data.next().await.unwrap().unwrap();
        let mut third = Box::pin(data.next());
        for _ in 0..10 {
            assert!(poll_once(&mut third).await.is_pending());
            yield_now().await;
        }
        drop(first);
        let third = third.await.unwrap().unwrap();
        assert_eq!(&third[..], [7; 8]);
        drop(second);
        assert_eq!(&data.next().await.unwrap().unwrap()[..], [7; 8]);
    });
}

#[test]
fn dropped_stream_returns_its_buffers() {
    with(|reactors| async move {
        let buffers = BufRing::new(8, 16).unwrap();
        for round in 0..50 {
            let (mut end, start) = UnixStream::pair().unwrap();
            let stream = Stream::from_fd(start.into());
            let mut data = stream.incoming(&buffers);
            assert!(poll_once(&mut Box::pin(data.next())).await.is_pending());
            yield_now().await;
            end.write_all(&[1; 40]).unwrap();
            if round % 2 == 0 {
                yield_now().await;
            }
            if round % 3 == 0 {
                // Dropped away from its ring.
                hop(reactors.core(round)).await;
                drop(data);
                hop(reactors.main()).await;
            }
        }
        while buffers.available() < 8 {
            yield_now().await;
        }
    });
}

#[test]
fn read_multishot_reads_eventfds_and_refuses_files() {
    with(|_| async {
        let bell = eventfd();
        let buffers = BufRing::new(4, 8).unwrap();
        let mut counts = io::read_multishot(&bell, &buffers);
        for n in 1..20u64 {
            io::write_all(&bell, n.to_ne_bytes().to_vec()).await.0.unwrap();
            let count = counts.next().await.unwrap().unwrap();
            assert_eq!(&count[..], n.to_ne_bytes());
        }
        let file: Fd = tempfile::tempfile().unwrap().into();
        assert!(io::read_multishot(&file, &buffers).next().await.is_err());
    });
}

#[test]
fn buffer_ring_of_another_context_is_refused() {
    with(|reactors| async move {
        let buffers = BufRing::new(1, 8).unwrap();
        let (_end, start) = pair();
        hop(reactors.core(0)).await;
        let error = io::recv_multishot(&start, &buffers).next().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        // Dropped here, unregistered at home.
        drop(buffers);
        for (count, size) in [(0, 1), (1, 0), (40_000, 1)] {
            assert!(BufRing::new(count, size).is_err(), "{count} x {size}");
        }
    });
}

#[test]
fn watched_eventfd_costs_one_submission() {
    with(|reactors| async move {
        let (doorbell, heard) = (eventfd(), eventfd());
        let (ring, answer) = (doorbell.clone(), heard.clone());
        let core = reactors.core(0).clone();
        let device = core.clone().spawn_local_with("device", move || async move {
            let group = OpGroup::new(4, Rc::new(heard.clone()));
            group.watch_eventfd(&doorbell, 9);
            drop(doorbell);
            yield_now().await;
            let before = core.counters().sqes;
            for _ in 0..20 {
                let done = group.next().await;
                assert_eq!((done.token, done.result & i32::from(libc::POLLIN)), (9, 1));
                OpGroup::signal_eventfd(std::os::fd::AsRawFd::as_raw_fd(&heard));
            }
            yield_now().await;
            assert_eq!(group.in_flight(), 1);
            core.counters().sqes - before
        });
        for _ in 0..20 {
            io::write_all(&ring, 1u64.to_ne_bytes().to_vec()).await.0.unwrap();
            io::read_eventfd(&answer).await.unwrap();
        }
        let submissions = device.await.unwrap();
        // The answers, and a wake-up of main for each at most.
        assert!(submissions <= 40, "{submissions}");
    });
}
