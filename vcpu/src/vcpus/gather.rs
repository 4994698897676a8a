//! One future for the answers of many threads.

use super::VcpuError;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Shared {
    /// Tickets that still exist.
    left: usize,
    error: Option<VcpuError>,
    waker: Option<Waker>,
}

/// Resolves when every vCPU has answered, to the first error that one of them reported. Dropping
/// it abandons the answers, not the work.
#[must_use = "a command has been sent, but not been waited for"]
pub struct Reply(Arc<Mutex<Shared>>);

/// The duty to answer: counts as an answer when dropped, on whatever path.
pub(super) struct Ticket(Arc<Mutex<Shared>>);

/// A reply and the `count` tickets that it waits for.
pub(super) fn gather(count: usize) -> (Reply, impl Iterator<Item = Ticket>) {
    let shared = Arc::new(Mutex::new(Shared { left: count, ..Shared::default() }));
    let tickets = Arc::clone(&shared);
    let tickets = std::iter::repeat_with(move || Ticket(Arc::clone(&tickets))).take(count);
    (Reply(shared), tickets)
}

/// A reply that is there already.
pub(super) fn refused(error: VcpuError) -> Reply {
    Reply(Arc::new(Mutex::new(Shared { error: Some(error), ..Shared::default() })))
}

impl Ticket {
    /// Answers with an error.
    pub fn fail(self, error: VcpuError) {
        lock(&self.0).error.get_or_insert(error);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.left -= 1;
        let waker = if shared.left == 0 { shared.waker.take() } else { None };
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for Reply {
    type Output = Result<(), VcpuError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = lock(&self.0);
        if shared.left > 0 {
            shared.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(shared.error.take().map_or(Ok(()), Err))
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Whole between any two statements.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a future on this thread; for tests only, where there is no reactor.
#[cfg(test)]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_wakes_and_the_first_error_wins() {
        let (reply, tickets) = gather(3);
        let mut tickets: Vec<_> = tickets.collect();
        let waiter = std::thread::spawn(move || block_on(reply));
        drop(tickets.pop());
        tickets.pop().unwrap().fail(VcpuError::NotPaused);
        tickets.pop().unwrap().fail(VcpuError::Ended);
        assert!(matches!(waiter.join().unwrap(), Err(VcpuError::NotPaused)));
    }

    #[test]
    fn nobody_to_wait_for_is_an_answer() {
        assert!(block_on(gather(0).0).is_ok());
        assert!(matches!(block_on(refused(VcpuError::Ended)), Err(VcpuError::Ended)));
    }
}
