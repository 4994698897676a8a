//! A lock-free multi-producer queue, emptied as a whole by its one consumer.
//!
//! Producers push onto a Treiber stack with one compare-and-swap; the consumer takes the stack with
//! one swap and turns it round, so what one thread pushed comes out in the order it was pushed.
//! Once closed it takes nothing more.

use crate::primitive::{AtomicPtr, Ordering};
use std::ptr;

struct Node<T> {
    value: T,
    next: *mut Node<T>,
}

/// The queue. Memory: one small allocation for each value on its way.
pub(crate) struct Mpsc<T> {
    head: AtomicPtr<Node<T>>,
}

// SAFETY: values only move from the pushing thread to the taking one; `T: Send` allows that.
unsafe impl<T: Send> Send for Mpsc<T> {}
// SAFETY: as above; all shared access goes through the atomic head.
unsafe impl<T: Send> Sync for Mpsc<T> {}

/// The head of a closed queue: no node is at this address, nodes are aligned.
fn closed<T>() -> *mut Node<T> {
    ptr::without_provenance_mut(1)
}

impl<T> Mpsc<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Appends `value`; gives it back when the queue is closed. Any thread; lock-free.
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let node = Box::into_raw(Box::new(Node { value, next: ptr::null_mut() }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                // SAFETY: the node was made above and has not been published.
                return Err(unsafe { Box::from_raw(node) }.value);
            }
            // SAFETY: the node is ours until the exchange below publishes it.
            unsafe { (*node).next = head };
            // Release pairs with the Acquire in `swap`: the consumer sees the node's contents.
            match self.head.compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(now) => head = now,
            }
        }
    }

    /// Whether nothing is queued at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        head.is_null() || head == closed()
    }

    /// Takes everything queued so far, oldest first. The consumer only.
    pub(crate) fn take(&self) -> Taken<T> {
        // The common case costs no locked instruction.
        if self.is_empty() {
            return Taken { next: ptr::null_mut() };
        }
        self.swap(ptr::null_mut())
    }

    /// Takes everything queued so far; every push from now on fails. The consumer only.
    pub(crate) fn close(&self) -> Taken<T> {
        self.swap(closed())
    }

    fn swap(&self, with: *mut Node<T>) -> Taken<T> {
        // Acquire pairs with the Release in `push`.
        let mut node = self.head.swap(with, Ordering::Acquire);
        if node == closed() {
            node = ptr::null_mut();
        }
        let mut oldest: *mut Node<T> = ptr::null_mut();
        while !node.is_null() {
            // SAFETY: the swap made the whole list ours alone; each node came from a Box.
            let next = unsafe { (*node).next };
            // SAFETY: as above.
            unsafe { (*node).next = oldest };
            oldest = node;
            node = next;
        }
        Taken { next: oldest }
    }
}

impl<T> Drop for Mpsc<T> {
    fn drop(&mut self) {
        drop(self.close());
    }
}

/// What [`Mpsc::take`] took; yields oldest first.
pub(crate) struct Taken<T> {
    next: *mut Node<T>,
}

impl<T> Iterator for Taken<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: `swap` made the list ours; each node came from a Box and is visited once.
        let node = unsafe { Box::from_raw(self.next) };
        self.next = node.next;
        Some(node.value)
    }
}

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        for value in self.by_ref() {
            drop(value);
        }
    }
}
