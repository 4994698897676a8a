//! Waiting for the result of a task.

use crate::guard;
use crate::task::Runnable;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why a task has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It was cancelled, or its context stopped.
    #[error("the task was cancelled")]
    Cancelled,
    /// It panicked; the panic has been reported.
    #[error("the task panicked")]
    Panicked,
}

enum State<T> {
    Running(Option<Waker>),
    /// Nobody will ask: the result is dropped when it comes.
    Detached,
    Done(Result<T, JoinError>),
    Taken,
}

/// Where a task leaves its result.
pub(crate) struct JoinCell<T>(Mutex<State<T>>);

impl<T> JoinCell<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Running(None)))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called once, by the task `name`, on its home's thread.
    pub(crate) fn complete(&self, name: &str, result: Result<T, JoinError>) {
        let unwanted = {
            let mut state = self.lock();
            match std::mem::replace(&mut *state, State::Taken) {
                State::Running(waker) => {
                    *state = State::Done(result);
                    drop(state);
                    if let Some(waker) = waker {
                        guard::run("the waker of a task's owner", name, || waker.wake());
                    }
                    return;
                }
                State::Detached | State::Done(_) | State::Taken => result,
            }
        };
        guard::run("the destructor of a task's output", name, || drop(unwanted));
    }

    /// Gives up a result that may not be dropped on this thread.
    pub(crate) fn leak(&mut self) {
        let state = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Done(Ok(output)) = std::mem::replace(state, State::Taken) {
            std::mem::forget(output);
        }
    }

    fn is_running(&self) -> bool {
        matches!(*self.lock(), State::Running(_))
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<T, JoinError>> {
        // Cloned and dropped without the lock: a waker may come from anywhere.
        let mine = waker.clone();
        let stale = {
            let mut state = self.lock();
            match std::mem::replace(&mut *state, State::Taken) {
                State::Running(before) => {
                    *state = State::Running(Some(mine));
                    before
                }
                State::Done(result) => {
                    drop(state);
                    return Poll::Ready(result);
                }
                State::Detached | State::Taken => {
                    drop(state);
                    panic!("a JoinHandle was polled after it gave its result")
                }
            }
        };
        drop(stale);
        Poll::Pending
    }

    fn detach(&self, name: &str) {
        let before = {
            let mut state = self.lock();
            let running = matches!(*state, State::Running(_));
            let next = if running { State::Detached } else { State::Taken };
            std::mem::replace(&mut *state, next)
        };
        guard::run("the destructor of a task's output", name, || drop(before));
    }
}

/// A task as who waits for it sees it.
pub(crate) trait Joinable<T>: Send + Sync {
    fn join(&self) -> &JoinCell<T>;
    fn name(&self) -> &'static str;
    fn runnable(self: Arc<Self>) -> Arc<dyn Runnable>;
}

/// The result of a task, as a future that may be awaited in any context and off reactors. Dropping it
/// leaves the task running.
#[must_use = "dropping a JoinHandle detaches its task"]
pub struct JoinHandle<T> {
    task: Arc<dyn Joinable<T>>,
    /// The output is dropped with the handle: Send only where that is.
    output: PhantomData<Mutex<T>>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: Arc<dyn Joinable<T>>) -> Self {
        Self { task, output: PhantomData }
    }

    /// Asks for the task's future to be dropped in its context, at its next turn at the latest. Any
    /// thread; never blocks; await the handle to know that it has happened.
    pub fn cancel(&self) {
        self.runnable().cancel();
    }

    /// The task without its type.
    pub(crate) fn runnable(&self) -> Arc<dyn Runnable> {
        Arc::clone(&self.task).runnable()
    }

    /// Whether the task has finished. Any thread; takes a short lock.
    pub fn is_finished(&self) -> bool {
        !self.task.join().is_running()
    }

    /// Leaves the task to itself. Any thread; takes a short lock.
    pub fn detach(self) {}
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// When polled again after the result.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.task.join().poll(cx.waker())
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.join().detach(self.task.name());
    }
}

/// A handle that cancels its task when dropped.
pub struct CancelOnDrop<T>(JoinHandle<T>);

impl<T> CancelOnDrop<T> {
    /// Ties the task's life to the returned value. Any thread; never blocks.
    pub fn new(handle: JoinHandle<T>) -> Self {
        Self(handle)
    }

    /// The handle, to wait for the task or to cancel it before.
    pub fn handle(&mut self) -> &mut JoinHandle<T> {
        &mut self.0
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
