//! A lock-free multi-producer queue, emptied as a whole by its one consumer.
//!
//! Producers push onto a Treiber stack with one compare-and-swap; the consumer takes the stack with
//! one swap and turns it round, so what one thread pushed comes out in the order it was pushed.

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

impl<T> Mpsc<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Appends `value`. Any thread; lock-free.
    pub(crate) fn push(&self, value: T) {
        let node = Box::into_raw(Box::new(Node { value, next: ptr::null_mut() }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is ours until the exchange below publishes it.
            unsafe { (*node).next = head };
            // Release pairs with the Acquire in `take`: the consumer sees the node's contents.
            match self.head.compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether nothing is queued at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes everything queued so far, oldest first.
    pub(crate) fn take(&self) -> Taken<T> {
        // Acquire pairs with the Release in `push`.
        let mut node = self.head.swap(ptr::null_mut(), Ordering::Acquire);
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
        drop(self.take());
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
        // SAFETY: `take` made the list ours; each node came from a Box and is visited once.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Mpsc;
    use std::sync::Arc;

    #[test]
    fn values_of_one_producer_keep_their_order() {
        let queue = Arc::new(Mpsc::new());
        let producers: Vec<_> = (0..4u32)
            .map(|producer| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for n in 0..10_000u32 {
                        queue.push((producer, n));
                    }
                })
            })
            .collect();
        let mut seen = [0u32; 4];
        while seen.iter().sum::<u32>() < 40_000 {
            for (producer, n) in queue.take() {
                assert_eq!(n, seen[producer as usize]);
                seen[producer as usize] += 1;
            }
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn dropping_the_queue_drops_what_is_in_it() {
        let value = Arc::new(());
        let queue = Mpsc::new();
        queue.push(Arc::clone(&value));
        let mut taken = queue.take();
        queue.push(Arc::clone(&value));
        queue.push(Arc::clone(&value));
        assert!(taken.next().is_some());
        drop(taken);
        drop(queue);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
