//! Tasks that do not outlive the place that started them.

use super::Notify;
use crate::context::Context;
use crate::join::JoinHandle;
use crate::task::Runnable;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as PollContext, Poll};

#[derive(Default)]
struct Children {
    /// The tasks that have not ended, `None` for a moment while one is being started.
    running: BTreeMap<u64, Option<Arc<dyn Runnable>>>,
    next: u64,
    cancelled: bool,
}

#[derive(Default)]
struct Inner {
    children: Mutex<Children>,
    ended: Notify,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts tasks that are cancelled together; see [`scope`]. Clones are the same scope.
#[derive(Clone)]
pub struct Scope {
    inner: Arc<Inner>,
}

/// Runs `body` with a [`Scope`] for tasks of its own. When `body` has ended, tasks that are left are
/// cancelled, and waited for until their futures are gone. When this future is dropped before, they are
/// cancelled just so, and end in their contexts' next turns.
///
/// Any context; the tasks may run in others, and hop.
pub async fn scope<F, Fut, T>(body: F) -> T
where
    F: FnOnce(Scope) -> Fut,
    Fut: Future<Output = T>,
{
    let scope = Scope { inner: Arc::default() };
    let _cancel = CancelAll(scope.clone());
    let output = body(scope.clone()).await;
    scope.cancel();
    scope.join().await;
    output
}

struct CancelAll(Scope);

impl Drop for CancelAll {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Part of each child's future: takes it out of the scope when that is dropped.
struct Child {
    inner: Arc<Inner>,
    id: u64,
}

impl Drop for Child {
    fn drop(&mut self) {
        let task = self.inner.lock().running.remove(&self.id);
        self.inner.ended.notify_all();
        drop(task);
    }
}

/// A task of the scope. The order of the fields counts: the future is dropped first.
struct ChildTask<F> {
    future: F,
    _child: Child,
}

impl<F: Future> Future for ChildTask<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut PollContext<'_>) -> Poll<F::Output> {
        // SAFETY: the future is never moved out of `self`, which is pinned.
        unsafe { self.map_unchecked_mut(|this| &mut this.future) }.poll(cx)
    }
}

impl Scope {
    /// Starts a task in `context` as part of the scope; once the scope was cancelled, it ends before its
    /// first poll. Dropping the handle leaves it to the scope. Any thread; never blocks.
    pub fn spawn<F>(
        &self,
        context: &Context,
        name: &'static str,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let child = self.begin();
        let id = child.id;
        let handle = context.spawn(name, ChildTask { future, _child: child });
        self.started(id, &handle);
        handle
    }

    fn begin(&self) -> Child {
        let mut children = self.inner.lock();
        let id = children.next;
        children.next += 1;
        children.running.insert(id, None);
        Child { inner: Arc::clone(&self.inner), id }
    }

    fn started<T>(&self, id: u64, handle: &JoinHandle<T>) {
        let mut children = self.inner.lock();
        let cancelled = children.cancelled;
        // Not there: it has ended already.
        if let Some(place) = children.running.get_mut(&id) {
            *place = Some(handle.runnable());
        }
        drop(children);
        if cancelled {
            handle.cancel();
        }
    }

    /// Cancels every task of the scope, and those to come. Any thread; never blocks.
    pub fn cancel(&self) {
        let tasks: Vec<_> = {
            let mut children = self.inner.lock();
            children.cancelled = true;
            children.running.values().flatten().map(Arc::clone).collect()
        };
        for task in tasks {
            task.cancel();
        }
    }

    /// Waits until no task of the scope is left. Not for the scope's own tasks: they would wait for
    /// themselves.
    pub async fn join(&self) {
        loop {
            // Before the look: what ends after it releases this.
            let ended = self.inner.ended.notified();
            if self.inner.lock().running.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// How many tasks of the scope have not ended.
    pub fn len(&self) -> usize {
        self.inner.lock().running.len()
    }

    /// Whether no task of the scope is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
