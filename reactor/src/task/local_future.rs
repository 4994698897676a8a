//! A future that is made where it runs, by a function that came from another thread.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(super) enum LocalFuture<M, F> {
    /// Not made yet: only `M` is here, which may be dropped on any thread.
    Make(Option<M>),
    /// Made on its thread, pinned.
    Made(F),
}

impl<M, F> LocalFuture<M, F>
where
    M: FnOnce() -> F,
{
    pub(super) fn new(make: M) -> Self {
        Self::Make(Some(make))
    }
}

impl<M, F> Future for LocalFuture<M, F>
where
    M: FnOnce() -> F,
    F: Future,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `Made` is never moved out of; `Make` is not pinned: only its contents are taken.
        let this = unsafe { self.get_unchecked_mut() };
        if let Self::Make(make) = this {
            let make = make.take().expect("a task whose function panicked is not polled again");
            *this = Self::Made(make());
        }
        let Self::Made(future) = this else { unreachable!("made above") };
        // SAFETY: the future is inside `this`, which is pinned.
        unsafe { Pin::new_unchecked(future) }.poll(cx)
    }
}
