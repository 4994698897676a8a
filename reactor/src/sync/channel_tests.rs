//! The channel as a state machine, against a model of it: what is sent arrives once and in order, room is
//! given first come, first served, whoever can go on has been woken, and nothing is lost by dropping.

use super::{Receiver, SendError, Sender, TrySendError, bounded};
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::Index;
use proptest::{prop_assert, prop_assert_eq};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Clone, Debug)]
enum Action {
    TrySend,
    /// Begins to send, and polls once.
    Send,
    /// Polls one of those that have not been able to.
    PollSend(Index),
    DropSend(Index),
    TryRecv,
    PollRecv,
    CloneSender,
    DropSender,
    DropReceiver,
}

fn action() -> impl Strategy<Value = Action> {
    proptest::prop_oneof![
        6 => Just(Action::TrySend),
        12 => Just(Action::Send),
        8 => any::<Index>().prop_map(Action::PollSend),
        4 => any::<Index>().prop_map(Action::DropSend),
        6 => Just(Action::TryRecv),
        8 => Just(Action::PollRecv),
        2 => Just(Action::CloneSender),
        2 => Just(Action::DropSender),
        // Rare: nothing much happens afterwards.
        1 => Just(Action::DropReceiver),
    ]
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<(), SendError<u32>>>>>;

/// A sender that waits for room.
struct Blocked {
    future: Sending,
    woken: Arc<Woken>,
    value: u32,
    /// The model says that it may go on.
    granted: bool,
}

struct Machine {
    capacity: usize,
    senders: Vec<Sender<u32>>,
    receiver: Option<Receiver<u32>>,
    receiver_woken: Arc<Woken>,
    receiver_waits: bool,
    blocked: Vec<Blocked>,
    queue: VecDeque<u32>,
    next: u32,
}

type Outcome = Result<(), proptest::test_runner::TestCaseError>;

impl Machine {
    fn new(capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self {
            capacity,
            senders: vec![sender],
            receiver: Some(receiver),
            receiver_woken: Arc::default(),
            receiver_waits: false,
            blocked: Vec::new(),
            queue: VecDeque::new(),
            next: 0,
        }
    }

    fn has_room(&self) -> bool {
        let granted = self.blocked.iter().filter(|blocked| blocked.granted).count();
        self.queue.len() + granted < self.capacity
    }

    /// The first that waits may go on, if there is room: it must have been woken.
    fn pass_room_on(&mut self) -> Outcome {
        if self.receiver.is_some()
            && self.has_room()
            && let Some(first) = self.blocked.iter_mut().find(|blocked| !blocked.granted)
        {
            first.granted = true;
            prop_assert!(first.woken.take(), "has room and was not woken");
        }
        Ok(())
    }

    fn queued(&mut self, value: u32) -> Outcome {
        self.queue.push_back(value);
        if std::mem::take(&mut self.receiver_waits) {
            prop_assert!(self.receiver_woken.take(), "has a value and was not woken");
        }
        Ok(())
    }

    fn step(&mut self, action: &Action) -> Outcome {
        match action {
            Action::TrySend => self.try_send(),
            Action::Send => self.send(),
            Action::PollSend(index) if !self.blocked.is_empty() => {
                self.poll_send(index.index(self.blocked.len()))
            }
            Action::DropSend(index) if !self.blocked.is_empty() => {
                drop(self.blocked.remove(index.index(self.blocked.len())));
                self.pass_room_on()?;
                self.sender_gone()
            }
            Action::TryRecv => self.try_recv(),
            Action::PollRecv => self.poll_recv(),
            Action::CloneSender => {
                let sender = self.senders.last().cloned();
                self.senders.extend(sender);
                Ok(())
            }
            Action::DropSender => self.drop_sender(),
            Action::DropReceiver => self.drop_receiver(),
            Action::PollSend(_) | Action::DropSend(_) => Ok(()),
        }
    }

    fn value(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn try_send(&mut self) -> Outcome {
        let value = self.value();
        let Some(sender) = self.senders.last() else { return Ok(()) };
        let result = sender.try_send(value);
        if self.receiver.is_none() {
            prop_assert_eq!(result, Err(TrySendError::Closed(value)));
        } else if !self.has_room() {
            prop_assert_eq!(result, Err(TrySendError::Full(value)));
        } else {
            prop_assert_eq!(result, Ok(()));
            self.queued(value)?;
        }
        Ok(())
    }

    fn send(&mut self) -> Outcome {
        let value = self.value();
        let Some(sender) = self.senders.last().cloned() else { return Ok(()) };
        let mut future: Sending = Box::pin(async move { sender.send(value).await });
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if self.receiver.is_none() {
            prop_assert_eq!(polled, Poll::Ready(Err(SendError(value))));
        } else if self.has_room() {
            prop_assert_eq!(polled, Poll::Ready(Ok(())));
            drop(future);
            self.queued(value)?;
        } else {
            prop_assert_eq!(polled, Poll::Pending);
            self.blocked.push(Blocked { future, woken, value, granted: false });
        }
        Ok(())
    }

    fn poll_send(&mut self, n: usize) -> Outcome {
        let blocked = &mut self.blocked[n];
        // Another waker each time, as a task that has moved has.
        blocked.woken = Arc::default();
        let waker = Waker::from(Arc::clone(&blocked.woken));
        let polled = blocked.future.as_mut().poll(&mut Context::from_waker(&waker));
        let (value, granted) = (blocked.value, blocked.granted);
        if self.receiver.is_none() {
            prop_assert_eq!(polled, Poll::Ready(Err(SendError(value))));
            drop(self.blocked.remove(n));
        } else if granted {
            prop_assert_eq!(polled, Poll::Ready(Ok(())));
            drop(self.blocked.remove(n));
            self.queued(value)?;
        } else {
            prop_assert_eq!(polled, Poll::Pending);
        }
        Ok(())
    }

    fn try_recv(&mut self) -> Outcome {
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        let got = receiver.try_recv();
        let expected = self.queue.pop_front();
        prop_assert_eq!(got, expected);
        if got.is_some() { self.pass_room_on() } else { Ok(()) }
    }

    /// Whether any sender is left, those that wait included.
    fn has_senders(&self) -> bool {
        !self.senders.is_empty() || !self.blocked.is_empty()
    }

    fn poll_recv(&mut self) -> Outcome {
        let has_senders = self.has_senders();
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        let waker = Waker::from(Arc::clone(&self.receiver_woken));
        let polled = receiver.poll_recv(&mut Context::from_waker(&waker));
        match self.queue.pop_front() {
            Some(value) => {
                prop_assert_eq!(polled, Poll::Ready(Some(value)));
                self.pass_room_on()
            }
            None if !has_senders => {
                prop_assert_eq!(polled, Poll::Ready(None));
                Ok(())
            }
            None => {
                prop_assert_eq!(polled, Poll::Pending);
                self.receiver_waits = true;
                Ok(())
            }
        }
    }

    fn drop_sender(&mut self) -> Outcome {
        drop(self.senders.pop());
        self.sender_gone()
    }

    fn sender_gone(&mut self) -> Outcome {
        if !self.has_senders() && std::mem::take(&mut self.receiver_waits) {
            prop_assert!(self.receiver_woken.take(), "the last sender is gone, and nobody says so");
        }
        Ok(())
    }

    fn drop_receiver(&mut self) -> Outcome {
        if self.receiver.take().is_none() {
            return Ok(());
        }
        self.queue.clear();
        self.receiver_waits = false;
        for blocked in &self.blocked {
            prop_assert!(blocked.granted || blocked.woken.take(), "waits for nobody");
        }
        Ok(())
    }
}

proptest::proptest! {
    #[test]
    fn channel_does_as_the_model(
        capacity in 1usize..5,
        actions in proptest::collection::vec(action(), 0..200),
    ) {
        let mut machine = Machine::new(capacity);
        for action in &actions {
            machine.step(action)?;
            if let Some(receiver) = &machine.receiver {
                prop_assert_eq!(receiver.len(), machine.queue.len());
            }
        }
    }
}
