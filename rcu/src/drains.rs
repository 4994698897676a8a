//! Who waits for batches in one context, and the eventfd through which one read on the context's ring
//! serves them all, be they thousands.

use crate::domain::DOMAIN;
use crate::home::Home;
use reactor::Fd;
use slab::Slab;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct Waiter {
    ticket: u64,
    /// Taken when the batch is complete.
    waker: Option<Waker>,
}

/// How the waiters are told.
#[derive(Default)]
enum Listener {
    /// Nobody has waited here yet.
    #[default]
    None,
    /// A task reads this eventfd while somebody waits; with the task's waker while it idles.
    Task(Fd, Option<Waker>),
    /// There is no reactor, or no more, or no eventfd to be had: by whoever completes the batch.
    Direct,
}

#[derive(Default)]
struct State {
    waiters: Slab<Waiter>,
    listener: Listener,
}

impl State {
    fn take_wakers(&mut self, complete: u64) -> Vec<Waker> {
        let done = self.waiters.iter_mut().filter(|(_, waiter)| waiter.ticket <= complete);
        done.filter_map(|(_, waiter)| waiter.waker.take()).collect()
    }

    fn is_awaited(&self) -> bool {
        self.waiters.iter().any(|(_, waiter)| waiter.waker.is_some())
    }
}

#[derive(Default)]
pub(crate) struct Drains(Mutex<State>);

impl Drains {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a waiter for batch `ticket`.
    pub(crate) fn add(&self, ticket: u64) -> usize {
        self.lock().waiters.insert(Waiter { ticket, waker: None })
    }

    pub(crate) fn remove(&self, key: usize) {
        let before = self.lock().waiters.try_remove(key);
        drop(before);
    }

    /// Sets whom to wake.
    pub(crate) fn set(&self, key: usize, waker: &Waker) {
        let mut state = self.lock();
        let before =
            state.waiters.get_mut(key).and_then(|waiter| waiter.waker.replace(waker.clone()));
        let idle = match &mut state.listener {
            Listener::Task(_, idle) => idle.take(),
            _ => None,
        };
        drop(state);
        drop(before);
        if let Some(idle) = idle {
            idle.wake();
        }
    }

    /// Tells the waiters that every batch up to `complete` is complete. Any thread.
    pub(crate) fn signal(&self, complete: u64) {
        let mut state = self.lock();
        if let Listener::Task(fd, _) = &state.listener {
            // The listener clones it out of a state that this lock keeps; the write never blocks:
            // the counter is read long before it could overflow.
            write_one(fd);
            return;
        }
        let wakers = state.take_wakers(complete);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// From now on, waiters are woken directly; those there are look again.
    pub(crate) fn context_gone(&self) {
        let mut state = self.lock();
        state.listener = Listener::Direct;
        let wakers = state.take_wakers(u64::MAX);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Starts the listener of `home`, which is the calling thread's, unless there is one.
    pub(crate) fn listen(home: &Arc<Home>) {
        let mut state = home.drains.lock();
        if !matches!(state.listener, Listener::None) {
            return;
        }
        let context = reactor::try_current().filter(|_| !home.is_shared());
        let (Some(context), Ok(fd)) = (context, eventfd()) else {
            state.listener = Listener::Direct;
            return;
        };
        state.listener = Listener::Task(fd.clone(), None);
        drop(state);
        context.spawn("rcu drains", listen(Arc::clone(home), fd)).detach();
    }

    fn poll_awaited(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.lock();
        if state.is_awaited() {
            return Poll::Ready(());
        }
        if let Listener::Task(_, idle) = &mut state.listener {
            *idle = Some(waker.clone());
        }
        Poll::Pending
    }
}

/// Waiters are woken directly once the listener has ended, for whatever reason.
struct Listening(Arc<Home>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.drains.context_gone();
    }
}

async fn listen(home: Arc<Home>, fd: Fd) {
    let listening = Listening(home);
    let drains = &listening.0.drains;
    loop {
        poll_fn(|cx| drains.poll_awaited(cx.waker())).await;
        match reactor::io::read_eventfd(&fd).await {
            Ok(_) => {
                let wakers = drains.lock().take_wakers(DOMAIN.ledger.complete());
                wakers.into_iter().for_each(Waker::wake);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "the eventfd of drain_call_rcu cannot be read");
                return;
            }
        }
    }
}

fn eventfd() -> io::Result<Fd> {
    // Not O_NONBLOCK: the ring would pass EAGAIN on instead of waiting.
    // SAFETY: eventfd(2) takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and is known to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

fn write_one(fd: &Fd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the buffer is 8 bytes long and lives through the call.
    let written = unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    debug_assert_eq!(written, 8, "an eventfd takes 8 bytes");
}
