//! Descriptors over sockets, credentials, and what the kernel knows beforehand: registered files and
//! registered buffers.

mod common;

use common::{pair, with};
use reactor::net::{Listener, Stream};
use reactor::{Fd, FixedBuffer, FixedMemory, OpGroup, Target, hop, io};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;

fn file_with(content: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn descriptors_arrive_with_their_bytes() {
    with(|_| async {
        let (one, other) = pair();
        let (one, other) = (Stream::from_fd(one), Stream::from_fd(other));
        let files: Vec<Fd> =
            ["first", "second"].map(|text| Fd::from(file_with(text.as_bytes()))).to_vec();
        one.send_all_with_fds(b"two files".to_vec(), files).await.0.unwrap();
        let (received, bytes) = other.recv_with_fds(vec![0; 64], 4).await;
        let received = received.unwrap();
        assert_eq!(&bytes[..received.bytes], b"two files");
        assert!(!received.truncated);
        let contents: Vec<String> = received
            .fds
            .into_iter()
            .map(|fd| {
                let mut file = std::fs::File::from(fd.into_owned().unwrap());
                // SAFETY: fcntl(2) with F_GETFD takes no pointer.
                let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
                assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
                file.rewind().unwrap();
                let mut content = String::new();
                file.read_to_string(&mut content).unwrap();
                content
            })
            .collect();
        assert_eq!(contents, ["first", "second"]);
        // Without descriptors it is an ordinary message.
        one.send_all(b"plain".to_vec()).await.0.unwrap();
        let (received, _) = other.recv_with_fds(vec![0; 64], 4).await;
        assert!(received.unwrap().fds.is_empty());
        drop(one);
        let (received, _) = other.recv_with_fds(vec![0; 64], 4).await;
        assert_eq!(received.unwrap().bytes, 0);
    });
}

#[test]
fn peer_is_known_by_its_credentials() {
    with(|_| async {
        let name = format!("reactor-peer-{}", std::process::id());
        let listener = Listener::bind_abstract(name.as_bytes()).unwrap();
        let client = Stream::connect_abstract(name.as_bytes()).await.unwrap();
        let server = listener.accept().await.unwrap();
        for stream in [client, server] {
            let peer = stream.peer_credentials().unwrap();
            assert_eq!(peer.pid, std::process::id().cast_signed());
            // SAFETY: these take no argument.
            assert_eq!((peer.uid, peer.gid), unsafe { (libc::geteuid(), libc::getegid()) });
        }
        let tcp = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let stream = Stream::from_fd(tcp.fd().clone());
        assert!(stream.peer_credentials().is_err() || stream.peer_credentials().unwrap().pid == 0);
    });
}

#[test]
fn shutdown_ends_the_peers_stream() {
    with(|_| async {
        let (one, other) = pair();
        let (one, other) = (Stream::from_fd(one), Stream::from_fd(other));
        one.send_all(b"last".to_vec()).await.0.unwrap();
        one.shutdown(std::net::Shutdown::Write).await.unwrap();
        let (n, _) = other.recv(vec![0; 8]).await;
        assert_eq!(n.unwrap(), 4);
        let (n, _) = other.recv(vec![0; 8]).await;
        assert_eq!(n.unwrap(), 0);
        other.send_all(b"still".to_vec()).await.0.unwrap();
        let (n, _) = one.recv(vec![0; 8]).await;
        assert_eq!(n.unwrap(), 5);
    });
}

#[test]
fn registered_file_works_in_every_context() {
    with(|reactors| async move {
        let plain = Fd::from(file_with(b"content"));
        let file = plain.register().unwrap();
        assert!(file.is_registered() && !plain.is_registered());
        // The descriptor itself is not needed at home: the table has the file.
        for context in reactors.all() {
            hop(context).await;
            assert_eq!(file.is_registered(), *context == *reactors.main());
            let (n, bytes) = io::read_at(&file, vec![0; 7], 0).await;
            assert_eq!((n.unwrap(), &bytes[..]), (7, &b"content"[..]));
            io::fdatasync(&file).await.unwrap();
            let (n, _) = io::write_at(&file, b"c".to_vec(), 0).await;
            assert_eq!(n.unwrap(), 1);
            assert_eq!(io::statx(&file, libc::STATX_SIZE).await.unwrap().stx_size, 7);
        }
        // Dropped in the last context, released at home.
        drop(file);
        hop(reactors.main()).await;
        io::close(plain).await.unwrap();
    });
}

/// The slot of a file that was dropped in the same turn went to the next one, and the operation with it.
#[test]
fn registered_file_dropped_before_its_operation_is_submitted() {
    with(|reactors| async move {
        let task = reactors.core(0).spawn_local_with("slots", || async {
            let mut bytes = [0u8; 1];
            let iov = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 1 }];
            let memory = Rc::new((std::cell::RefCell::new(bytes), iov));
            let iov = libc::iovec { iov_base: memory.0.as_ptr().cast(), iov_len: 1 };
            let iov = Rc::new([iov]);
            let group = OpGroup::new(2, Rc::new((Rc::clone(&memory), Rc::clone(&iov))));
            let (old, new) = (Fd::from(file_with(b"o")), Fd::from(file_with(b"n")));
            let file = OpGroup::register_file(&old).unwrap();
            // SAFETY: the group keeps the iovec and what it points to.
            unsafe { group.readv(Target::Fixed(&file), iov.as_ptr(), 1, 0, 0) };
            drop(file);
            let _other = OpGroup::register_file(&new).unwrap();
            assert_eq!(group.next().await.result, 1);
            memory.0.take()[0]
        });
        assert_eq!(task.await, Ok(b'o'));
    });
}

/// Dropped in another context, a file took whatever was in its place of that context's table.
#[test]
fn registered_file_dropped_elsewhere_is_released_at_home() {
    with(|reactors| async move {
        hop(reactors.core(0)).await;
        let away = OpGroup::register_file(&Fd::from(file_with(b"a"))).unwrap();
        hop(reactors.core(1)).await;
        let here = OpGroup::register_file(&Fd::from(file_with(b"h"))).unwrap();
        drop(away);
        let (n, bytes) = io::read_at(here.fd(), vec![0], 0).await;
        assert_eq!((n.unwrap(), bytes[0]), (1, b'h'));
    });
}

#[test]
fn registered_buffer_reads_and_writes() {
    with(|reactors| async move {
        let file = Fd::from(file_with(&[3; 10_000])).register().unwrap();
        let mut buffer = FixedBuffer::new(8192).unwrap();
        buffer[0] = 1;
        let (n, mut buffer) = io::read_at(&file, buffer, 100).await;
        assert_eq!((n.unwrap(), &buffer[..]), (8192, &[3; 8192][..]));
        buffer.fill(9);
        let (result, buffer) = io::write_all_at(&file, buffer, 1).await;
        result.unwrap();
        // An ordinary buffer where it is not registered.
        hop(reactors.core(0)).await;
        let (result, buffer) = io::read_exact_at(&file, buffer, 1000).await;
        result.unwrap();
        assert!(buffer[..7193].iter().all(|b| *b == 9) && buffer[7193..].iter().all(|b| *b == 3));
        drop(buffer);
        for len in [0, (1 << 30) + 1] {
            let error = FixedBuffer::new(len).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        }
        // More of them than the table has places, one after the other.
        for _ in 0..1100 {
            drop(FixedBuffer::new(4096).unwrap());
        }
    });
}

#[test]
fn group_uses_registered_memory() {
    with(|reactors| async move {
        let done = reactors.core(0).spawn_local_with("fixed", || async {
            let file = Fd::from(file_with(&(0..=255).collect::<Vec<u8>>()));
            let memory = Rc::new(std::cell::UnsafeCell::new(vec![0u8; 1 << 16]));
            // SAFETY: nothing is in flight.
            let start = unsafe { (*memory.get()).as_mut_ptr() };
            // SAFETY: the vector is kept by the group, and longer than its registration.
            let fixed = Rc::new(unsafe { FixedMemory::new(start, 1 << 16) }.unwrap());
            assert!(fixed.contains(start, 1 << 16) && !fixed.contains(start, (1 << 16) + 1));
            assert!(!fixed.contains(start.wrapping_sub(1), 1));
            let group = OpGroup::new(2, Rc::new((Rc::clone(&fixed), Rc::clone(&memory))));
            let fixed_file = OpGroup::register_file(&file).unwrap();
            let target = Target::Fixed(&fixed_file);
            // SAFETY: the group keeps the memory.
            unsafe { group.read_fixed(target, start.wrapping_add(512), 256, &fixed, 0, 1) };
            assert_eq!(group.next().await.into_result().unwrap(), 256);
            // SAFETY: as above.
            unsafe { group.write_fixed(target, start.wrapping_add(512 + 1), 8, &fixed, 0, 2) };
            assert_eq!(group.next().await.into_result().unwrap(), 8);
            // SAFETY: nothing is in flight.
            assert_eq!(unsafe { &(&(*memory.get()))[511..515] }, [0, 0, 1, 2]);
            let (_, bytes) = io::read_at(&file, vec![0; 9], 0).await;
            assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 8]);
        });
        done.await.unwrap();
    });
}

#[test]
fn names_are_made_changed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    with(|_| async move {
        let (sub, one, two) = (path.join("sub"), path.join("sub/one"), path.join("sub/two"));
        io::mkdir(&sub, 0o700).await.unwrap();
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let file = io::openat(&one, flags, 0o600).await.unwrap();
        io::rename(&one, &two).await.unwrap();
        match io::ftruncate(&file, 5000).await {
            Ok(()) => assert_eq!(std::fs::metadata(&two).unwrap().len(), 5000),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Unsupported),
        }
        io::unlink(&two).await.unwrap();
        let error = io::unlink(&two).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
}
