//! A bounded channel: many senders, one receiver.

use super::waiters::Waiters;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receiver_gone: bool,
    receiver: Option<Waker>,
    blocked: Waiters,
}

struct Shared<T>(Mutex<State<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiver is gone; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// The value could not be queued now; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The channel holds as many values as it may.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver is gone")
    }
}

/// A sending end; clones send into the same channel.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The receiving end.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// A channel that holds at most `capacity` values (at least one).
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared(Mutex::new(State {
        queue: VecDeque::new(),
        capacity: capacity.max(1),
        senders: 1,
        receiver_gone: false,
        receiver: None,
        blocked: Waiters::new(),
    })));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

impl<T> Sender<T> {
    /// Queues the value if there is room. Any thread; never blocks.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let receiver = {
            let mut state = self.shared.lock();
            if state.receiver_gone {
                return Err(TrySendError::Closed(value));
            }
            if state.queue.len() >= state.capacity {
                return Err(TrySendError::Full(value));
            }
            state.queue.push_back(value);
            state.receiver.take()
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
        Ok(())
    }

    /// Queues the value, waiting for room.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = Some(value);
        let mut blocked = Blocked { shared: &self.shared, ticket: None };
        std::future::poll_fn(|cx| {
            let Some(next) = value.take() else { panic!("send was polled after it ended") };
            match self.try_send(next) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Closed(back)) => Poll::Ready(Err(SendError(back))),
                Err(TrySendError::Full(back)) => {
                    value = Some(back);
                    blocked.wait(cx.waker())
                }
            }
        })
        .await
    }
}

/// A sender's place in the queue for room.
struct Blocked<'a, T> {
    shared: &'a Shared<T>,
    ticket: Option<u64>,
}

impl<T> Blocked<'_, T> {
    fn wait<R>(&mut self, waker: &Waker) -> Poll<R> {
        let mut state = self.shared.lock();
        state.blocked.wait(&mut self.ticket, waker);
        if state.receiver_gone || state.queue.len() < state.capacity {
            // Room came between the attempt and the queueing: try again at once.
            waker.wake_by_ref();
        }
        Poll::Pending
    }
}

impl<T> Drop for Blocked<'_, T> {
    fn drop(&mut self) {
        if self.ticket.is_none() {
            return;
        }
        let next = {
            let mut state = self.shared.lock();
            let woken = !state.blocked.leave(&mut self.ticket);
            let room = state.queue.len() < state.capacity;
            if woken && room { state.blocked.pop() } else { None }
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.lock().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.shared.lock();
            state.senders -= 1;
            if state.senders == 0 { state.receiver.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next value; `None` when the channel is empty and every sender is gone.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| {
            let mut state = self.shared.lock();
            if let Some(value) = state.queue.pop_front() {
                let sender = state.blocked.pop();
                drop(state);
                if let Some(waker) = sender {
                    waker.wake();
                }
                return Poll::Ready(Some(value));
            }
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            state.receiver = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A value that is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        let (value, sender) = {
            let mut state = self.shared.lock();
            let value = state.queue.pop_front()?;
            (value, state.blocked.pop())
        };
        if let Some(waker) = sender {
            waker.wake();
        }
        Some(value)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (queue, blocked, own) = {
            let mut state = self.shared.lock();
            state.receiver_gone = true;
            let blocked = state.blocked.take_all();
            (std::mem::take(&mut state.queue), blocked, state.receiver.take())
        };
        for waker in blocked {
            waker.wake();
        }
        drop((queue, own));
    }
}
