//! Nothing leaks. A process's descriptors are counted, so these tests take turns.

use reactor::net::Listener;
use reactor::{Config, Reactors, io, run, yield_now};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

static ALONE: Mutex<()> = Mutex::new(());

fn with<F, Fut, T>(root: F) -> T
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    run(Config::from_affinity().unwrap(), root).unwrap()
}

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
