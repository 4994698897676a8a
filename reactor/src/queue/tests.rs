//! Apart from `queue`, whose source `tests/loom.rs` builds over atomics of its own.

use crate::queue::Mpsc;
use std::sync::Arc;

#[test]
fn values_of_one_producer_keep_their_order() {
    // Fewer under Miri, which is slow.
    let each = if cfg!(miri) { 100 } else { 10_000u32 };
    let queue = Arc::new(Mpsc::new());
    let producers: Vec<_> = (0..4u32)
        .map(|producer| {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                for n in 0..each {
                    queue.push((producer, n)).unwrap();
                }
            })
        })
        .collect();
    let mut seen = [0u32; 4];
    while seen.iter().sum::<u32>() < 4 * each {
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
    queue.push(Arc::clone(&value)).unwrap();
    let mut taken = queue.take();
    queue.push(Arc::clone(&value)).unwrap();
    queue.push(Arc::clone(&value)).unwrap();
    assert!(taken.next().is_some());
    drop(taken);
    drop(queue);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn closed_queue_gives_values_back() {
    let queue = Mpsc::new();
    queue.push(1).unwrap();
    assert_eq!(queue.close().collect::<Vec<_>>(), [1]);
    assert_eq!(queue.push(2), Err(2));
    assert!(queue.is_empty());
    assert_eq!(queue.take().next(), None);
    assert_eq!(queue.close().next(), None);
    assert_eq!(queue.push(3), Err(3));
}
