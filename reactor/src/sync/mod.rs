//! Primitives for tasks, whatever their contexts. All of them are cancel-safe: a future dropped
//! while it waits gives its place up and loses nothing. Futures may be awaited in any context and off
//! reactors; every other function may be called on any thread, and none blocks.
//!
//! Each keeps its waiters behind a short internal lock that is never held across a wake-up or an
//! `.await`. None belongs on the data path of one core, where a task and an
//! [`OpGroup`](crate::OpGroup) need no synchronisation at all.

mod channel;
mod lock;
mod notify;
pub mod oneshot;
mod quiesce;
mod rwlock;
mod scope;
mod semaphore;
mod waiters;

pub use channel::{Receiver, SendError, Sender, TrySendError, bounded};
pub use lock::{Mutex, MutexGuard};
pub use notify::Notify;
pub use quiesce::{Quiesce, Section};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use scope::{Scope, scope};
pub use semaphore::{Permit, Semaphore};

#[cfg(test)]
mod channel_tests;
#[cfg(test)]
mod tests;
