//! A bounded channel: many senders, one receiver.

use super::waiters::{Left, Ticket, Waiters};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    /// Places given to senders that have waited and have not filled them yet.
    reserved: usize,
    senders: usize,
    receiver_gone: bool,
    receiver: Option<Waker>,
    /// While anybody waits here there is no room.
    blocked: Waiters,
}

impl<T> State<T> {
    fn has_room(&self) -> bool {
        self.queue.len() + self.reserved < self.capacity
    }

    /// Gives a free place to the sender that has waited longest.
    fn pass_room_on(&mut self) -> Option<Waker> {
        if !self.has_room() {
            return None;
        }
        let waker = self.blocked.grant()?;
        self.reserved += 1;
        Some(waker)
    }

    /// Takes a value out, and the waker of a sender that may fill the place.
    fn pop(&mut self) -> Option<(T, Option<Waker>)> {
        let value = self.queue.pop_front()?;
        Some((value, self.pass_room_on()))
    }

    /// Puts a value in, and takes the receiver's waker.
    fn push(&mut self, value: T) -> Option<Waker> {
        self.queue.push_back(value);
        self.receiver.take()
    }
}

struct Shared<T>(Mutex<State<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
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

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the channel is full",
            Self::Closed(_) => "the receiver is gone",
        })
    }
}

impl<T: fmt::Debug> std::error::Error for SendError<T> {}
impl<T: fmt::Debug> std::error::Error for TrySendError<T> {}

/// A sending end; clones send into the same channel.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The receiving end.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

/// A channel that holds at most `capacity` values (at least one). Values of one sender arrive in their
/// order; senders that wait for room get it first come, first served.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared(Mutex::new(State {
        queue: VecDeque::new(),
        capacity: capacity.max(1),
        reserved: 0,
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
            if !state.has_room() {
                return Err(TrySendError::Full(value));
            }
            state.push(value)
        };
        wake(receiver);
        Ok(())
    }

    /// Queues the value, waiting for room. A future that is dropped before it is ready has sent nothing.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let value = match self.try_send(value) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(value)) => return Err(SendError(value)),
            Err(TrySendError::Full(value)) => value,
        };
        let mut value = Some(value);
        let mut blocked = Blocked { shared: &self.shared, ticket: Ticket::default() };
        std::future::poll_fn(|cx| blocked.poll(&mut value, cx.waker())).await
    }

    /// Whether the receiver is gone. Any thread.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().receiver_gone
    }
}

/// A sender's place in the queue for room.
struct Blocked<'a, T> {
    shared: &'a Shared<T>,
    ticket: Ticket,
}

impl<T> Blocked<'_, T> {
    fn poll(&mut self, value: &mut Option<T>, waker: &Waker) -> Poll<Result<(), SendError<T>>> {
        // Cloned without the lock: a waker may come from anywhere.
        let waker = waker.clone();
        let mut state = self.shared.lock();
        let granted = state.blocked.take_grant(&mut self.ticket);
        state.reserved -= usize::from(granted);
        let Some(next) = value.take() else { panic!("send was polled after it ended") };
        if state.receiver_gone {
            let (_, mine) = state.blocked.leave(&mut self.ticket);
            drop(state);
            drop(mine);
            return Poll::Ready(Err(SendError(next)));
        }
        if granted || (!self.ticket.is_queued() && state.has_room()) {
            let receiver = state.push(next);
            drop(state);
            wake(receiver);
            return Poll::Ready(Ok(()));
        }
        *value = Some(next);
        let stale = state.blocked.wait(&mut self.ticket, waker);
        drop(state);
        drop(stale);
        Poll::Pending
    }
}

impl<T> Drop for Blocked<'_, T> {
    fn drop(&mut self) {
        if !self.ticket.is_queued() {
            return;
        }
        let mut state = self.shared.lock();
        let (left, mine) = state.blocked.leave(&mut self.ticket);
        let mut next = None;
        if left == Left::Granted {
            state.reserved -= 1;
            next = state.pass_room_on();
        }
        drop(state);
        drop(mine);
        wake(next);
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
        wake(waker);
    }
}

impl<T> Receiver<T> {
    /// The next value; `None` when the channel is empty and every sender is gone.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv), for a future written by hand.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.try_recv() {
            return Poll::Ready(Some(value));
        }
        let waker = cx.waker().clone();
        let mut state = self.shared.lock();
        // One may have come since.
        if let Some((value, sender)) = state.pop() {
            drop(state);
            wake(sender);
            return Poll::Ready(Some(value));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        let stale = state.receiver.replace(waker);
        drop(state);
        drop(stale);
        Poll::Pending
    }

    /// A value that is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        let (value, sender) = self.shared.lock().pop()?;
        wake(sender);
        Some(value)
    }

    /// Values that wait to be received.
    pub fn len(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
