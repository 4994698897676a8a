//! One io_uring instance: set-up, submission with back-pressure, waiting.
//!
//! Everything here runs on the thread that owns the ring (`IORING_SETUP_SINGLE_ISSUER`).

mod files;
mod policy;
mod setup;

pub(crate) use policy::{AfterEnter, after_enter};
pub use setup::SetupError;

use io_uring::{IoUring, cqueue, squeue, types};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;

/// A completion, copied out of the completion queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
}

/// How long an enter may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: submit and run deferred task work.
    No,
    /// Until there is a completion.
    Forever,
    /// Until there is a completion or the time is over.
    For(Duration),
}

/// What the kernel was asked to do; plain numbers that the context publishes as counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RingCounters {
    pub(crate) enters: u64,
    pub(crate) sqes: u64,
    pub(crate) cqes: u64,
    pub(crate) backlogged: u64,
}

pub(crate) struct Ring {
    uring: IoUring,
    /// Entries that found the submission queue full; they go first.
    backlog: VecDeque<squeue::Entry>,
    files: files::FileSlots,
    pub(crate) counters: RingCounters,
}

impl Ring {
    /// Makes a ring of `entries` submission entries for the calling thread.
    pub(crate) fn new(entries: u32) -> Result<Self, SetupError> {
        Ok(Self {
            uring: setup::build(entries)?,
            backlog: VecDeque::new(),
            files: files::FileSlots::default(),
            counters: RingCounters::default(),
        })
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    /// Queues one entry; it reaches the kernel with the next enter. Never loses one: what finds
    /// the queue full waits in a backlog.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion has been reaped.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.counters.sqes += 1;
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: the caller keeps what the entry points to.
        if unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.counters.backlogged += 1;
            self.backlog.push_back(entry);
        }
    }

    /// Whether entries wait to be submitted.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.submission().is_empty()
    }

    /// Whether an enter would find completions that are not in the queue yet (deferred task work
    /// or an overflow that the kernel keeps).
    pub(crate) fn has_deferred(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether completions can be reaped without a system call.
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    fn refill_from_backlog(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever pushed the entry keeps what it points to until its completion.
            if unsafe { queue.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits all that is queued and sleeps as `wait` says.
    ///
    /// Errors that mean "again later" (`after_enter`) are not errors here.
    pub(crate) fn enter(&mut self, wait: Wait) -> std::io::Result<()> {
        self.refill_from_backlog();
        // With a backlog left the kernel must first be given room; do not sleep on that.
        let wait = if self.backlog.is_empty() { wait } else { Wait::No };
        self.counters.enters += 1;
        let unsubmitted = self.uring.submission().len() as u32;
        let submitter = self.uring.submitter();
        let result = match wait {
            // GETEVENTS without a minimum: submit, run deferred task work, return.
            // SAFETY: no argument is passed; what the entries point to is kept by their owners.
            Wait::No => unsafe { submitter.enter::<()>(unsubmitted, 0, GETEVENTS, None) },
            Wait::Forever => submitter.submit_and_wait(1),
            Wait::For(limit) => {
                let limit = types::Timespec::from(limit);
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match after_enter(&error) {
                AfterEnter::Reap => Ok(()),
                AfterEnter::Fail => Err(error),
            },
        }
    }

    /// Copies the completions that are there into `into` (not cleared first).
    pub(crate) fn reap(&mut self, into: &mut Vec<Cqe>) {
        let before = into.len();
        into.extend(
            self.uring
                .completion()
                .map(|cqe: cqueue::Entry| Cqe { user_data: cqe.user_data(), result: cqe.result() }),
        );
        self.counters.cqes += (into.len() - before) as u64;
    }
}

#[cfg(test)]
mod tests;
