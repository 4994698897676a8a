//! Nothing leaks. A process's descriptors are counted, so these tests take turns.

mod common;

use common::{pair, poll_once, with};
use reactor::net::{Listener, Stream};
use reactor::{Fd, io, yield_now};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

static ALONE: Mutex<()> = Mutex::new(());

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// An accept that is dropped after the kernel has taken a connection closes that connection.
#[test]
fn dropped_accept_leaks_no_descriptor() {
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    with(|_| async move {
        let listener = Listener::bind_unix(&path).unwrap();
        // Warm: lazily made descriptors are there now.
        yield_now().await;
        let before = open_descriptors();
        for _ in 0..100 {
            let mut accept = Box::pin(listener.accept());
            let first = std::future::poll_fn(|cx| std::task::Poll::Ready(accept.as_mut().poll(cx)));
            assert!(first.await.is_pending());
            let client = UnixStream::connect(&path).unwrap();
            drop(accept);
            drop(client);
            yield_now().await;
        }
        // Connections that the cancelled accepts did not take wait in the backlog: take them.
        while let Ok(Ok(stream)) =
            reactor::timeout(Duration::from_millis(20), listener.accept()).await
        {
            drop(stream);
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn runtime_ends_with_operations_in_flight_and_leaves_no_descriptor() {
    let _alone = ALONE.lock();
    let before = {
        with(|_| async {});
        open_descriptors()
    };
    with(|reactors| async move {
        for context in reactors.all() {
            let (end, other) = UnixStream::pair().unwrap();
            context
                .spawn("never fed", async move {
                    let _end = end;
                    let (_n, _bytes) = io::recv(&other.into(), vec![0; 16]).await;
                })
                .detach();
        }
        reactor::sleep(Duration::from_millis(5)).await;
    });
    assert_eq!(open_descriptors(), before);
}

#[test]
fn descriptors_beyond_what_was_asked_for_are_closed() {
    let _alone = ALONE.lock();
    with(|_| async {
        let (one, other) = pair();
        let file = Fd::from(tempfile::tempfile().unwrap());
        yield_now().await;
        let before = open_descriptors();
        for asked in [0, 1] {
            let fds = vec![file.clone(); 3];
            io::send_with_fds(&one, b"x".to_vec(), fds).await.0.unwrap();
            let (received, _) = io::recv_with_fds(&other, vec![0; 8], asked).await;
            let received = received.unwrap();
            assert_eq!((received.fds.len(), received.truncated), (asked, true));
        }
        let too_many = vec![file.clone(); 254];
        let (result, _) = io::send_with_fds(&one, b"x".to_vec(), too_many).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        let (result, _) = io::send_with_fds(&one, Vec::new(), vec![file.clone()]).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(open_descriptors(), before);
    });
}

/// The message came after the future was gone, or before: its descriptors are closed either way.
#[test]
fn dropped_receive_leaks_no_descriptors() {
    let _alone = ALONE.lock();
    with(|_| async {
        let (one, other) = pair();
        let file = Fd::from(tempfile::tempfile().unwrap());
        yield_now().await;
        let before = open_descriptors();
        for round in 0..100 {
            let mut receive = Box::pin(io::recv_with_fds(&other, vec![0; 8], 4));
            assert!(poll_once(&mut receive).await.is_pending());
            yield_now().await;
            let fds = vec![file.clone(); 4];
            io::send_with_fds(&one, b"x".to_vec(), fds).await.0.unwrap();
            if round % 2 == 0 {
                yield_now().await;
            }
            drop(receive);
        }
        // What the dropped ones have not taken is in the socket.
        drop(one);
        loop {
            let (received, _) = io::recv_with_fds(&other, vec![0; 8], 4).await;
            if received.unwrap().bytes == 0 {
                break;
            }
        }
        // The socket that was closed.
        assert_eq!(open_descriptors(), before - 1);
    });
}

/// Nobody takes connections: accepting pauses at its bound, and goes on when they are taken.
#[test]
fn flood_of_connections_is_bounded() {
    let _alone = ALONE.lock();
    with(|_| async {
        let name = format!("reactor-flood-{}", std::process::id());
        let listener = Listener::bind_abstract(name.as_bytes()).unwrap();
        let mut incoming = listener.incoming();
        // Submitted, nothing there.
        let mut first = Box::pin(incoming.next());
        assert!(poll_once(&mut first).await.is_pending());
        drop(first);
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(Stream::connect_abstract(name.as_bytes()).await.unwrap());
        }
        // Taken by the kernel in the meantime: no more than the bound, and a few while it is told.
        for _ in 0..100 {
            yield_now().await;
        }
        let open = open_descriptors();
        for _ in 0..100 {
            drop(incoming.next().await.unwrap());
        }
        let after = open_descriptors();
        assert!(open.saturating_sub(after) < 70, "{open} open, {after} after");
        drop(clients);
    });
}
