//! Words from one context to the tasks of queues on others.
//!
//! A queue's task looks at one flag a turn; the lock is taken only when there is something.

use crate::pci::signal;
use reactor::Fd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Words that wait for one task.
const WORDS_MAX: usize = 4096;

/// What waits for one queue's task.
pub(super) struct Mailbox<T> {
    pending: AtomicBool,
    words: Mutex<Vec<T>>,
    doorbell: Fd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Mailbox<T> {
    /// What has arrived since the last call; `None` where nobody has rung.
    pub(super) fn take(&self) -> Option<Vec<T>> {
        // Acquire pairs with the Release in `ring`.
        if !self.pending.load(Ordering::Acquire) {
            return None;
        }
        self.pending.store(false, Ordering::SeqCst);
        Some(std::mem::take(&mut *lock(&self.words)))
    }

    fn ring(&self) {
        self.pending.store(true, Ordering::Release);
        signal(&self.doorbell);
    }
}

/// The mailboxes of the tasks that are alive.
pub(super) struct Mailboxes<T>(Arc<Mutex<Vec<Arc<Mailbox<T>>>>>);

impl<T> Default for Mailboxes<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Mailboxes<T> {
    /// A mailbox for a task that its doorbell wakes, for as long as the result lives.
    pub(super) fn open(&self, doorbell: &Fd) -> Listener<T> {
        let mailbox = Arc::new(Mailbox {
            pending: AtomicBool::new(false),
            words: Mutex::default(),
            doorbell: doorbell.clone(),
        });
        lock(&self.0).push(Arc::clone(&mailbox));
        Listener { mailbox, all: Arc::clone(&self.0) }
    }

    /// Tells every task. A task that does not come to read loses what is too much for it.
    pub(super) fn post(&self, word: &T) {
        for mailbox in lock(&self.0).iter() {
            let mut words = lock(&mailbox.words);
            if words.len() < WORDS_MAX {
                words.push(word.clone());
            }
            drop(words);
            mailbox.ring();
        }
    }

    /// Wakes every task, with nothing to say.
    pub(super) fn wake(&self) {
        for mailbox in lock(&self.0).iter() {
            mailbox.ring();
        }
    }
}

/// A task's end of its mailbox.
pub(super) struct Listener<T> {
    mailbox: Arc<Mailbox<T>>,
    all: Arc<Mutex<Vec<Arc<Mailbox<T>>>>>,
}

impl<T> std::ops::Deref for Listener<T> {
    type Target = Mailbox<T>;

    fn deref(&self) -> &Mailbox<T> {
        &self.mailbox
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        lock(&self.all).retain(|other| !Arc::ptr_eq(other, &self.mailbox));
    }
}
