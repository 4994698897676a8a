//! What the integration tests share.

#![allow(dead_code, reason = "each test program uses a part")]

use reactor::{Config, Fd, Reactors, run, timeout};
use std::future::Future;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::Poll;
use std::time::Duration;

/// Two cores whatever the machine has.
pub fn config() -> Config {
    let cpus = reactor::allowed_cpus().unwrap();
    Config::with_cores((0..2).map(|n| cpus[n % cpus.len()]).collect())
}

/// Runs `root` in `main`; what takes longer than anything sane fails.
pub fn with<F, Fut, T>(root: F) -> T
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let limited = |reactors| async {
        timeout(Duration::from_secs(20), root(reactors)).await.expect("it hangs")
    };
    run(config(), limited).unwrap()
}

/// Polls once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

/// Two ends of a stream.
pub fn pair() -> (Fd, Fd) {
    let (one, other) = UnixStream::pair().unwrap();
    (one.into(), other.into())
}

pub fn eventfd() -> Fd {
    // SAFETY: eventfd(2) takes no pointer, and the descriptor is new.
    Fd::from(unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) })
}
