//! A lock for what is read in every context and changed in one.

pub(super) mod gate;

use gate::Gate;

use super::{Mutex, MutexGuard, Notify};
use crate::context::Context;
use crate::{guard, local, timeout};
use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Readers in any context, a writer in one (QEMU's block graph lock).
///
/// Taking it for reading costs two uncontended atomic operations: readers are counted by context.
/// Neither side starves the other, and a read-side section may contain another, in this task or in one
/// that it waits for. A writer waits for a moment without readers. Where that does not come, it keeps
/// newcomers out for a while, so that those inside can leave; where they do not, because one of them
/// waits for a newcomer, the newcomers have their turn again, and both turns grow.
pub struct RwLock<T> {
    writer: Context,
    gate: Gate,
    /// Readers that wait for the writer to be out.
    readers: Notify,
    /// The writer that waits for the readers to be out.
    emptied: Notify,
    /// One writer at a time.
    turn: Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: the gate lets in either readers, who share `&T`, or one writer, who has `&mut T`; both may be
// on other threads than the one that made the lock.
unsafe impl<T: Send> Send for RwLock<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// A lock around `value` that is taken for writing in `writer` only.
    pub fn new(writer: &Context, value: T) -> Self {
        // One place for each context, and one for all other threads.
        let places = writer.registry.contexts.len() + 1;
        Self {
            writer: writer.clone(),
            gate: Gate::new(places),
            readers: Notify::new(),
            emptied: Notify::new(),
            turn: Mutex::new(()),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock for reading, if nobody writes. Any thread; never blocks.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let here = local::try_with(|local| local.shared.index);
        let place = here.unwrap_or(usize::MAX).min(self.gate.places() - 1);
        let entered = self.gate.enter(place);
        // Made in any case: its drop leaves.
        let guard = ReadGuard { lock: self, place };
        entered.then_some(guard)
    }

    /// Takes the lock for reading, waiting for a writer to be out. Any context. The guard may be held
    /// across `.await` and a hop.
    pub async fn read(&self) -> ReadGuard<'_, T> {
        loop {
            // Before the attempt: a release after it is not missed.
            let released = self.readers.notified();
            if let Some(guard) = self.try_read() {
                return guard;
            }
            released.await;
        }
    }

    /// Takes the lock for writing, waiting for writers that came before and for all readers.
    ///
    /// # Panics
    /// In another context than the writer's.
    pub async fn write(&self) -> WriteGuard<'_, T> {
        assert!(self.writer.is_current(), "this lock is written in {:?} only", self.writer);
        let turn = self.turn.lock().await;
        let _waiting = Waiting::new(&self.gate);
        let mut patience = PATIENCE;
        loop {
            if timeout(patience, self.chance()).await.is_ok() {
                break;
            }
            let keeping = KeepingOut::new(self);
            if timeout(patience, self.vacated()).await.is_ok() {
                // The write guard opens it.
                std::mem::forget(keeping);
                break;
            }
            drop(keeping);
            patience = (patience * 2).min(PATIENCE_MAX);
        }
        WriteGuard { lock: self, deferred: Vec::new(), _turn: turn }
    }

    /// Waits for a moment without readers, and closes the gate in it.
    async fn chance(&self) {
        loop {
            let emptied = self.emptied.notified();
            // Not closed for nothing: that would refuse readers.
            if self.gate.is_empty() {
                if self.gate.try_close() {
                    return;
                }
                self.readers.notify_all();
            }
            emptied.await;
        }
    }

    /// Waits until those who were inside when the gate was closed have left.
    async fn vacated(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.gate.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// The value, without locking: nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// How long a writer waits for a moment without readers before it makes one, at first and at most.
const PATIENCE: Duration = Duration::from_micros(500);
const PATIENCE_MAX: Duration = Duration::from_millis(50);

/// The gate is closed to newcomers, until the drop.
struct KeepingOut<'a, T>(&'a RwLock<T>);

impl<'a, T> KeepingOut<'a, T> {
    fn new(lock: &'a RwLock<T>) -> Self {
        lock.gate.close();
        Self(lock)
    }
}

impl<T> Drop for KeepingOut<'_, T> {
    fn drop(&mut self) {
        self.0.gate.open();
        self.0.readers.notify_all();
    }
}

/// Ends the waiting also where the future is dropped.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.await_empty();
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.stop_waiting();
    }
}

/// Shared access; released when dropped, on any thread.
#[must_use = "dropping the guard releases the lock"]
pub struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
    place: usize,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is counted, so no writer is inside.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        if self.lock.gate.leave(self.place) {
            self.lock.emptied.notify_one();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Exclusive access; released when dropped. Then readers are let in, and after that what was
/// [deferred](Self::defer) runs.
#[must_use = "dropping the guard releases the lock"]
pub struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    deferred: Vec<Box<dyn FnOnce() + Send>>,
    _turn: MutexGuard<'a, ()>,
}

// SAFETY: sharing the guard shares only `&T`; the deferred functions are reached through `&mut` only.
unsafe impl<T: Sync> Sync for WriteGuard<'_, T> {}

impl<T> WriteGuard<'_, T> {
    /// Runs `f` when the lock has been released and waiting readers have been woken, in the order of the
    /// calls, before the drop of the guard returns (QEMU's `bdrv_schedule_unref`).
    pub fn defer(&mut self, f: impl FnOnce() + Send + 'static) {
        self.deferred.push(Box::new(f));
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the gate is closed for this guard alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.gate.open();
        self.lock.readers.notify_all();
        for f in std::mem::take(&mut self.deferred) {
            guard::run("what a writer deferred", self.lock.writer.name(), f);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
