//! The lock of the block graph: coroutine readers in any context, one writer in `main`.
//!
//! A reader may hold the lock across `.await` and a hop; as long as it does, no node is added,
//! removed or connected in another way. It costs two uncontended operations on a count of its own
//! context. The writer publishes that it is there, waits for the readers to leave, changes the
//! graph, and unlocks. Guest requests take no part in this: they are held off by
//! [drained sections](super::drain).
//!
//! # When to use `schedule_unref`
//! Dropping the last reference to a node drains and closes it, which waits for I/O. That I/O may
//! need the lock for reading, so a writer that dropped the node in place would wait for itself.
//! Whoever gives a reference up while it holds the lock for writing therefore hands the node to
//! [`Writer::schedule_unref`]. [`Writer::unlock`] first publishes that there is no writer and wakes
//! the readers, and then drops the nodes, in the order of the calls, from this list and nothing
//! else: no other work runs at that place. When it returns, their images are closed, unlocked, and
//! can be opened again. Where the lock is not held, drop the reference with
//! [`Node::unref`](super::node::Node) at once.

use super::node::Node;
use reactor::Context;
use reactor::sync::{ReadGuard, RwLock, WriteGuard};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A value that is read in every context and written in `main`, and the nodes to drop after a
/// write.
pub struct GraphLock<T> {
    lock: RwLock<T>,
    main: Context,
}

impl<T> GraphLock<T> {
    /// A lock around `value`, written in `main`.
    pub fn new(main: &Context, value: T) -> Self {
        Self { lock: RwLock::new(main, value), main: main.clone() }
    }

    /// Takes the lock for reading. Any context; waits only for a writer that is inside or has been
    /// waiting for its turn.
    pub async fn read(&self) -> ReadGuard<'_, T> {
        self.lock.read().await
    }

    /// Takes the lock for writing: waits for all readers to leave.
    ///
    /// # Panics
    /// In another context than `main`.
    pub async fn write(&self) -> Writer<'_, T> {
        let guard = self.lock.write().await;
        Writer { guard, unrefs: Unrefs { nodes: Vec::new(), main: self.main.clone() } }
    }
}

/// Exclusive access to the graph. To be ended by [`unlock`](Self::unlock).
#[must_use = "dropping the writer releases the lock"]
pub struct Writer<'a, T> {
    // Dropped in this order: the lock is free when the nodes go.
    guard: WriteGuard<'a, T>,
    unrefs: Unrefs,
}

/// The nodes to drop after the lock has been released.
struct Unrefs {
    nodes: Vec<Arc<Node>>,
    main: Context,
}

impl<T> Writer<'_, T> {
    /// Gives a reference to `node` up when the lock has been released. See the module.
    pub fn schedule_unref(&mut self, node: Arc<Node>) {
        self.unrefs.nodes.push(node);
    }

    /// Releases the lock, wakes the readers, and then drops what was scheduled.
    pub async fn unlock(self) {
        let Self { guard, mut unrefs } = self;
        drop(guard);
        for node in std::mem::take(&mut unrefs.nodes) {
            node.unref().await;
        }
    }
}

impl Drop for Unrefs {
    /// A writer that was cancelled leaves no image open either.
    fn drop(&mut self) {
        let nodes = std::mem::take(&mut self.nodes);
        if !nodes.is_empty() {
            let closing = async move {
                for node in nodes {
                    node.unref().await;
                }
            };
            self.main.spawn("block nodes", closing).detach();
        }
    }
}

impl<T> Deref for Writer<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Writer<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
