//! Telling a queue's task that something around it has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A counter of changes, and who is to be woken at each. Looking at it takes no lock.
#[derive(Default)]
pub(crate) struct Signal {
    version: AtomicU64,
    watchers: Mutex<Vec<(u64, Waker)>>,
    next: AtomicU64,
}

impl Signal {
    /// Something has changed. Any thread.
    pub(crate) fn changed(&self) {
        // Release: who sees the new version sees what has changed.
        self.version.fetch_add(1, Ordering::Release);
        let wakers: Vec<Waker> = self.lock().iter().map(|(_, waker)| waker.clone()).collect();
        for waker in wakers {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task's view of a [`Signal`].
pub(crate) struct Watch {
    signal: Arc<Signal>,
    seen: u64,
    registered: Option<(u64, Waker)>,
}

impl Watch {
    /// Looks for changes from now on.
    pub(crate) fn new(signal: &Arc<Signal>) -> Self {
        let seen = signal.version.load(Ordering::Acquire);
        Self { signal: Arc::clone(signal), seen, registered: None }
    }

    /// Whether something has changed since the last look; the task of `cx` will be woken when
    /// something changes after this one.
    pub(crate) fn look(&mut self, cx: &std::task::Context<'_>) -> bool {
        let known = self.registered.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker()));
        if !known {
            self.forget();
            let id = self.signal.next.fetch_add(1, Ordering::Relaxed);
            self.signal.lock().push((id, cx.waker().clone()));
            self.registered = Some((id, cx.waker().clone()));
        }
        let version = self.signal.version.load(Ordering::Acquire);
        std::mem::replace(&mut self.seen, version) != version
    }

    fn forget(&mut self) {
        if let Some((id, _)) = self.registered.take() {
            self.signal.lock().retain(|(other, _)| *other != id);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.forget();
    }
}
