//! The tasks that were spawned on a context and have not finished.

use super::Runnable;
use slab::Slab;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct List {
    tasks: Slab<Arc<dyn Runnable>>,
    spawned: u64,
}

#[derive(Default)]
pub(crate) struct Owned(Mutex<List>);

impl Owned {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there have been, and how many are left.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let list = self.lock();
        (list.spawned, list.tasks.len() as u64)
    }

    /// Adds the task that `make` builds for its place in the list.
    pub(super) fn insert<T: Runnable + 'static>(
        &self,
        make: impl FnOnce(usize) -> Arc<T>,
    ) -> Arc<T> {
        let mut list = self.lock();
        list.spawned += 1;
        let entry = list.tasks.vacant_entry();
        let task = make(entry.key());
        entry.insert(Arc::clone(&task) as Arc<dyn Runnable>);
        task
    }

    /// Takes a task out; the caller drops it without the lock.
    pub(super) fn remove(&self, slot: usize) -> Option<Arc<dyn Runnable>> {
        self.lock().tasks.try_remove(slot)
    }

    /// Every task that is left.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Runnable>> {
        self.lock().tasks.iter().map(|(_, task)| Arc::clone(task)).collect()
    }

    /// The tasks whose home is `index`, for the tear-down on that thread.
    pub(crate) fn at_home(&self, index: usize) -> Vec<Arc<dyn Runnable>> {
        let mut tasks = self.all();
        tasks.retain(|task| task.header().state.home() == index);
        tasks
    }
}
