//! Operations through the ring: files, sockets, cancellation, and the data path's groups.

use reactor::net::{Listener, Stream};
use reactor::{Config, Fd, OpGroup, Reactors, Target, hop, io, run, yield_now};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

fn with<F, Fut, T>(root: F) -> T
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    run(Config::from_affinity().unwrap(), root).unwrap()
}

fn eventfd() -> Fd {
    // SAFETY: eventfd(2) takes no pointer, and the descriptor is new.
    Fd::from(unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) })
}

#[test]
fn file_keeps_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    with(|_| async move {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let file = io::openat(&path, flags, 0o600).await.unwrap();
        let (result, _) = io::write_all_at(&file, vec![7u8; 10_000], 5).await;
        result.unwrap();
        let (n, _) = io::writev_at(&file, vec![b"abc".to_vec(), b"def".to_vec()], 10_005).await;
        assert_eq!(n.unwrap(), 6);
        io::fdatasync(&file).await.unwrap();
        io::fsync(&file).await.unwrap();
        let (result, bytes) = io::read_exact_at(&file, vec![0u8; 10_011], 0).await;
        result.unwrap();
        assert!(bytes[..5] == [0; 5] && bytes[5..10_005].iter().all(|b| *b == 7));
        assert_eq!(&bytes[10_005..], b"abcdef");
        let (n, buffers) = io::readv_at(&file, vec![vec![0; 2], vec![0; 9]], 10_005).await;
        assert_eq!((n.unwrap(), &buffers[0][..], &buffers[1][..4]), (6, &b"ab"[..], &b"cdef"[..]));
        let (result, _) = io::read_exact_at(&file, vec![0u8; 2], 10_010).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        io::fallocate(&file, punch, 0, 8192).await.unwrap();
        let (_, bytes) = io::read_at(&file, vec![1u8; 16], 100).await;
        assert_eq!(bytes, [0; 16]);
        assert_eq!(io::statx(&file, libc::STATX_SIZE).await.unwrap().stx_size, 10_011);
        io::close(file).await.unwrap();
        let error = io::openat(&path.join("x"), libc::O_RDONLY, 0).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    });
}

#[test]
fn sockets_connect_carry_and_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    with(|reactors| async move {
        let unix = Listener::bind_unix(&path).unwrap();
        let tcp = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = format!("reactor-test-{}", std::process::id());
        let named = Listener::bind_abstract(name.as_bytes()).unwrap();
        let port = {
            let socket: std::net::TcpListener = tcp.fd().clone().into_owned_copy();
            socket.local_addr().unwrap()
        };
        for (listener, kind) in [(unix, 0), (tcp, 1), (named, 2)] {
            let server = reactors.iohandler().spawn("echo", async move {
                let stream = listener.accept().await.unwrap();
                loop {
                    let (n, mut bytes) = stream.recv(vec![0; 64]).await;
                    bytes.truncate(n.unwrap());
                    if bytes.is_empty() {
                        return;
                    }
                    stream.send_all(bytes).await.0.unwrap();
                }
            });
            let stream = match kind {
                0 => Stream::connect_unix(&path).await.unwrap(),
                1 => Stream::connect_tcp(port).await.unwrap(),
                _ => Stream::connect_abstract(name.as_bytes()).await.unwrap(),
            };
            stream.send_all(b"hello".to_vec()).await.0.unwrap();
            let (n, bytes) = stream.recv(vec![0; 64]).await;
            assert_eq!(&bytes[..n.unwrap()], b"hello");
            drop(stream);
            server.await.unwrap();
        }
        let error = Stream::connect_unix(&path.join("none")).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
        let error = Stream::connect_unix(std::path::Path::new(&"x".repeat(108))).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    });
}

trait OwnedCopy {
    fn into_owned_copy<T: From<OwnedFd>>(self) -> T;
}

impl OwnedCopy for Fd {
    fn into_owned_copy<T: From<OwnedFd>>(self) -> T {
        use std::os::fd::AsFd;
        T::from(self.as_fd().try_clone_to_owned().unwrap())
    }
}

#[test]
fn sending_to_a_closed_peer_is_an_error_not_a_signal() {
    with(|_| async {
        let (end, other) = UnixStream::pair().unwrap();
        drop(other);
        let (result, _) = io::send(&end.into(), b"x".to_vec()).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn poll_is_level_triggered() {
    with(|_| async {
        let (mut end, other) = UnixStream::pair().unwrap();
        end.write_all(b"x").unwrap();
        let other = other.into();
        for _ in 0..3 {
            let events = io::poll(&other, libc::POLLIN as u32).await.unwrap();
            assert_ne!(events & libc::POLLIN as u32, 0);
        }
    });
}

/// A descriptor with O_NONBLOCK is waited for like any other.
#[test]
fn nonblocking_descriptors_are_waited_for() {
    with(|reactors| async move {
        // SAFETY: eventfd(2) takes no pointer, and the descriptor is new.
        let fd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK)) };
        let fd = Fd::from(fd);
        let reader = reactors.main().spawn("reader", {
            let fd = fd.clone();
            async move { io::read_eventfd(&fd).await }
        });
        yield_now().await;
        yield_now().await;
        io::write_all(&fd, 3u64.to_ne_bytes().to_vec()).await.0.unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), 3);
    });
}

/// A dropped read is cancelled; until the kernel says so, its buffer stays allocated.
#[test]
fn dropped_read_keeps_its_buffer() {
    with(|_| async {
        let (mut end, other) = UnixStream::pair().unwrap();
        let other: Fd = other.into();
        for _ in 0..200 {
            let limit = Duration::from_micros(50);
            let read = io::recv(&other, vec![0u8; 4096]);
            assert!(reactor::timeout(limit, read).await.is_err());
        }
        end.write_all(b"for the one that waits").unwrap();
        let (n, bytes) = io::recv(&other, vec![0; 64]).await;
        assert_eq!(&bytes[..n.unwrap()], b"for the one that waits");
    });
}

#[test]
fn read_dropped_in_another_context_is_cancelled_at_home() {
    with(|reactors| async move {
        let (mut end, other) = UnixStream::pair().unwrap();
        let other: Fd = other.into();
        {
            let mut read = std::pin::pin!(io::recv(&other, vec![0u8; 16]));
            let first = std::future::poll_fn(|cx| std::task::Poll::Ready(read.as_mut().poll(cx)));
            assert!(first.await.is_pending());
            hop(reactors.core(0)).await;
        }
        hop(reactors.main()).await;
        yield_now().await;
        end.write_all(b"later").unwrap();
        let (n, bytes) = io::recv(&other, vec![0; 16]).await;
        assert_eq!(&bytes[..n.unwrap()], b"later");
    });
}

#[test]
fn polling_an_operation_away_from_its_ring_panics_with_a_reason() {
    let result = with(|reactors| async move {
        reactors
            .main()
            .clone()
            .spawn("strays", async move {
                let (_end, other) = UnixStream::pair().unwrap();
                let other = other.into();
                let mut read = std::pin::pin!(io::recv(&other, vec![0u8; 16]));
                let first =
                    std::future::poll_fn(|cx| std::task::Poll::Ready(read.as_mut().poll(cx)));
                assert!(first.await.is_pending());
                hop(reactors.core(0)).await;
                read.await.0.unwrap();
            })
            .await
    });
    assert_eq!(result, Err(reactor::JoinError::Panicked));
}

/// Memory that operations of a group use.
struct Arena {
    bytes: Vec<u8>,
    iovecs: Vec<libc::iovec>,
}

#[test]
fn batch_of_32_reads_costs_one_enter() {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..32 * 4096u32).map(|n| (n / 4096 + n) as u8).collect();
    file.write_all(&content).unwrap();
    with(|reactors| async move {
        let core = reactors.core(0).clone();
        let check = core.clone().spawn_local_with("batch", move || async move {
            let mut bytes = vec![0u8; 32 * 4096];
            let iovecs = bytes
                .chunks_mut(4096)
                .map(|c| libc::iovec { iov_base: c.as_mut_ptr().cast(), iov_len: 4096 })
                .collect();
            let arena = Rc::new(Arena { bytes, iovecs });
            let file = Fd::from(file);
            let group = OpGroup::new(32, Rc::clone(&arena) as Rc<dyn std::any::Any>);
            let fixed = OpGroup::register_file(&file).unwrap();
            for warm_up in [true, false] {
                yield_now().await;
                let before = core.counters();
                for n in 0..32u32 {
                    let iov = &raw const arena.iovecs[n as usize];
                    let file = Target::Fixed(&fixed);
                    // SAFETY: the arena is kept by the group.
                    unsafe { group.readv(file, iov, 1, u64::from(n) * 4096, u64::from(n)) };
                }
                assert_eq!(group.in_flight(), 32);
                let mut seen = [false; 32];
                for _ in 0..32 {
                    let done = group.next().await;
                    assert_eq!(done.into_result().unwrap(), 4096);
                    seen[done.token as usize] = true;
                }
                assert!(seen.iter().all(|s| *s));
                // The counters are published at the end of the turn.
                yield_now().await;
                let after = core.counters();
                if !warm_up {
                    assert_eq!(after.sqes - before.sqes, 32);
                    assert_eq!(after.enters - before.enters, 1);
                }
            }
            arena.bytes.clone()
        });
        assert!(check.await.unwrap() == content);
    });
}

#[test]
fn group_waits_for_and_signals_eventfds() {
    with(|reactors| async move {
        let (doorbell, irq) = (eventfd(), eventfd());
        let (ring, answer) = (doorbell.clone(), irq.clone());
        let device = reactors.core(0).spawn_local_with("device", move || async move {
            let group = OpGroup::new(4, Rc::new(doorbell.clone()));
            for _ in 0..3 {
                group.wait_eventfd(doorbell.as_raw_fd(), 1);
                assert_eq!(group.next().await.token, 1);
                OpGroup::signal_eventfd(irq.as_raw_fd());
            }
        });
        for _ in 0..3 {
            io::write_all(&ring, 1u64.to_ne_bytes().to_vec()).await.0.unwrap();
            assert_eq!(io::read_eventfd(&answer).await.unwrap(), 1);
        }
        device.await.unwrap();
    });
}

#[test]
fn dropped_group_frees_its_memory_after_the_last_completion() {
    with(|reactors| async move {
        reactors
            .core(0)
            .spawn_local_with("drops", || async {
                let (end, other) = UnixStream::pair().unwrap();
                let other: Fd = other.into();
                let mut bytes = vec![0u8; 64];
                let iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 64 };
                let arena = Rc::new(Arena { bytes, iovecs: vec![iov] });
                let watch = Rc::downgrade(&arena);
                let iov = arena.iovecs.as_ptr();
                let group = OpGroup::new(1, arena);
                // SAFETY: the arena is kept by the group.
                unsafe { group.readv(Target::Fd(&other), iov, 1, 0, 0) };
                yield_now().await;
                drop(group);
                // The kernel has not answered yet.
                assert!(watch.upgrade().is_some());
                while watch.upgrade().is_some() {
                    yield_now().await;
                }
                drop(end);
            })
            .await
            .unwrap();
    });
}
