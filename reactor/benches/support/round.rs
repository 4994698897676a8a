//! A way to another context and back. The perf suite compiles this file as well.

use reactor::Context;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

/// A bottom half there wakes this task.
pub async fn bottom_half(other: Context) {
    let done = Arc::new(AtomicBool::new(false));
    let mut sent = false;
    poll_fn(|cx| {
        if !sent {
            sent = true;
            let (done, waker) = (Arc::clone(&done), cx.waker().clone());
            other.schedule_bh(move || {
                done.store(true, Ordering::Release);
                waker.wake();
            });
        }
        if done.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
