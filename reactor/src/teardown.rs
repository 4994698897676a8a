//! The end of a context: what is left is dropped, cancelled and waited for.

use crate::guard;
use crate::local::{self, Local};
use crate::ring::Wait;
use crate::turn::Loop;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long operations may take to end after their cancellation. What then is still in the kernel's
/// hands (a disk that does not answer) keeps its memory for ever.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);
/// How long one request for cancellation may wait.
const CANCEL_ROUND: Duration = Duration::from_millis(10);
/// Bottom halves that are queued run once more, and so do those that they queue, but not for ever.
const BH_ROUNDS: usize = 16;

impl Loop {
    /// Ends what is left: drops the tasks whose home is here, runs the bottom halves that are queued,
    /// cancels every operation and waits for the kernel to let go of their buffers. The loop has ended
    /// in every context by now.
    pub(crate) fn tear_down(&mut self) {
        let local = Rc::clone(&self.local);
        let name = local.shared.name.as_str();
        for shared in &local.context.registry.contexts {
            for task in shared.tasks.at_home(local.shared.index) {
                task.discard();
            }
        }
        local.turn_begins();
        while local.pop_ready().is_some() {}
        for _ in 0..BH_ROUNDS {
            // Operations and timers dropped on other threads come home here as well.
            self.take_sent();
            if self.bottom_halves.is_empty() {
                break;
            }
            // All of them: the bounds of a turn are for who comes after them.
            while !self.bottom_halves.is_empty() {
                self.run_bottom_halves();
            }
        }
        let rest = std::mem::take(&mut self.bottom_halves);
        for work in rest {
            guard::run("the destructor of a bottom half", name, || drop(work));
        }
        let timers = local.timers.borrow_mut().clear();
        for waker in timers {
            guard::run("the destructor of a waker", name, || drop(waker));
        }
        self.take_sent();
        if !self.drain(Instant::now() + CANCEL_LIMIT) {
            tracing::error!(
                context = name,
                left = local.ops.borrow().len(),
                "operations did not end when cancelled; their buffers are leaked"
            );
            local::leak_ops(&local);
        }
    }

    /// Cancels everything and reaps until nothing is in flight. False when `deadline` came first.
    fn drain(&mut self, deadline: Instant) -> bool {
        let local = Rc::clone(&self.local);
        while local.ops.borrow().len() > 0 {
            if Instant::now() > deadline || !cancel_round(&local) {
                return false;
            }
            self.reap();
            self.take_sent();
        }
        true
    }
}

/// Asks once for everything to be cancelled. Repeated, as an operation that is being handed to a worker
/// can escape one round. False when the ring is unusable.
fn cancel_round(local: &Rc<Local>) -> bool {
    // First what is queued only: a cancellation finds what has been submitted.
    if local.ring.borrow_mut().enter(Wait::No).is_err() {
        return false;
    }
    // Sleeps in the kernel at most as long as asked, also where a worker cannot be interrupted.
    let cancelled = local.ring.borrow_mut().cancel_all(CANCEL_ROUND);
    if let Err(error) = cancelled
        && !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EALREADY | libc::ETIME))
    {
        tracing::debug!(%error, "cancelling all operations");
    }
    local.ring.borrow_mut().enter(Wait::For(CANCEL_ROUND)).is_ok()
}
