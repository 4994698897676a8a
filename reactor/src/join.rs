//! Waiting for the result of a task.

use crate::task::Task;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    Done(Result<T, JoinError>),
    Taken,
}

pub(crate) struct Cell<T>(Mutex<State<T>>);

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self, result: Result<T, JoinError>) {
        let before = std::mem::replace(&mut *self.lock(), State::Done(result));
        if let State::Running(Some(waker)) = before {
            waker.wake();
        }
    }

    fn is_running(&self) -> bool {
        matches!(*self.lock(), State::Running(_))
    }
}

/// Runs the task's future and leaves its result in the cell; leaves `Cancelled` when dropped before.
pub(crate) struct Attached<F: Future> {
    name: &'static str,
    /// Boxed so that this type needs no pin projection; `None` once finished.
    future: Option<Pin<Box<F>>>,
    cell: Arc<Cell<F::Output>>,
}

pub(crate) fn attach<F: Future>(
    name: &'static str,
    future: F,
) -> (Attached<F>, Arc<Cell<F::Output>>) {
    let cell = Arc::new(Cell(Mutex::new(State::Running(None))));
    (Attached { name, future: Some(Box::pin(future)), cell: Arc::clone(&cell) }, cell)
}

impl<F: Future> Future for Attached<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        let result = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(_) => {
                tracing::error!(task = this.name, "a task panicked");
                Err(JoinError::Panicked)
            }
        };
        this.future = None;
        this.cell.complete(result);
        Poll::Ready(())
    }
}

impl<F: Future> Drop for Attached<F> {
    fn drop(&mut self) {
        if self.future.take().is_some() && self.cell.is_running() {
            self.cell.complete(Err(JoinError::Cancelled));
        }
    }
}

/// The result of a task, as a future. Dropping it leaves the task running.
#[must_use = "dropping a JoinHandle detaches its task"]
pub struct JoinHandle<T> {
    cell: Arc<Cell<T>>,
    task: Arc<Task>,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(cell: Arc<Cell<T>>, task: Arc<Task>) -> Self {
        Self { cell, task }
    }

    /// Asks for the task's future to be dropped in its context, at its next turn at the latest. Any
    /// thread; never blocks; await the handle to know when it has happened.
    pub fn cancel(&self) {
        self.task.cancel();
    }

    /// Whether the task has finished.
    pub fn is_finished(&self) -> bool {
        !self.cell.is_running()
    }

    /// Leaves the task to itself.
    pub fn detach(self) {}
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.cell.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Running(_) => {
                *state = State::Running(Some(cx.waker().clone()));
                Poll::Pending
            }
            State::Done(result) => Poll::Ready(result),
            State::Taken => panic!("a JoinHandle was polled after it gave its result"),
        }
    }
}

/// A handle that cancels its task when dropped.
pub struct CancelOnDrop<T>(Option<JoinHandle<T>>);

impl<T> CancelOnDrop<T> {
    /// Ties the task's life to the returned value.
    pub fn new(handle: JoinHandle<T>) -> Self {
        Self(Some(handle))
    }

    /// Waits for the result. A panic of the task goes on in the caller; a cancelled task is awaited for ever, as its
    /// owner is being dropped with it.
    pub(crate) async fn join(&mut self) -> T {
        let Some(handle) = &mut self.0 else { return std::future::pending().await };
        let result = handle.await;
        self.0 = None;
        match result {
            Ok(value) => value,
            Err(JoinError::Panicked) => panic!("the local task panicked"),
            Err(JoinError::Cancelled) => std::future::pending().await,
        }
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.cancel();
        }
    }
}
