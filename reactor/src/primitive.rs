//! What the lock-free protocols stand on: `std`'s atomics here, loom's in `tests/loom.rs`, which builds the
//! same sources over a `primitive` module of its own.

pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence,
};
