//! One io_uring instance: set-up, submission with back-pressure, waiting.
//!
//! Everything here runs on the thread that owns the ring (`IORING_SETUP_SINGLE_ISSUER`).

#[cfg(test)]
pub(crate) mod faults;
mod policy;
mod setup;
mod slots;

pub(crate) use policy::{AfterEnter, after_enter};
pub use setup::SetupError;
pub(crate) use setup::{Features, fitting_entries};
pub(crate) use slots::Slot;

use io_uring::{IoUring, cqueue, squeue, types};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;
/// `IORING_ENTER_EXT_ARG`.
const EXT_ARG: u32 = 1 << 3;

/// A completion, copied out of the completion queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cqe {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Cqe {
    /// Whether the operation will have more completions (`IORING_CQE_F_MORE`).
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The buffer that the kernel has picked (`IORING_CQE_F_BUFFER`).
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
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
    pub(crate) overflows: u64,
    pub(crate) retries: u64,
}

/// Entries that go into the submission queue together or not at all.
enum Waiting {
    One(squeue::Entry),
    Linked([squeue::Entry; 2]),
}

impl Waiting {
    fn entries(&self) -> &[squeue::Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Linked(entries) => entries,
        }
    }
}

pub(crate) struct Ring {
    uring: IoUring,
    pub(crate) features: Features,
    /// Entries that found the submission queue full; they go first.
    backlog: VecDeque<Waiting>,
    files: slots::Slots,
    buffers: slots::Slots,
    groups_made: u16,
    groups_free: Vec<u16>,
    pub(crate) counters: RingCounters,
    #[cfg(test)]
    pub(crate) faults: Option<faults::Plan>,
}

impl Ring {
    /// Makes a ring of `entries` submission entries for the calling thread.
    pub(crate) fn new(entries: u32) -> Result<Self, SetupError> {
        let (uring, features) = setup::build(fitting_entries(entries))?;
        Ok(Self {
            uring,
            features,
            backlog: VecDeque::new(),
            files: slots::Slots::default(),
            buffers: slots::Slots::default(),
            groups_made: 0,
            groups_free: Vec::new(),
            counters: RingCounters::default(),
            #[cfg(test)]
            faults: None,
        })
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Cancels everything that has been submitted and waits for `limit` at most.
    pub(crate) fn cancel_all(&mut self, limit: Duration) -> std::io::Result<()> {
        let all = types::CancelBuilder::any();
        self.uring.submitter().register_sync_cancel(Some(types::Timespec::from(limit)), all)
    }

    /// Queues one entry; it reaches the kernel with the next enter. Never loses one: what finds
    /// the queue full waits in a backlog.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion has been reaped.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller keeps what the entry points to.
        unsafe { self.push_together(Waiting::One(entry)) };
    }

    /// Queues an entry and its time limit, so that one submission takes both.
    ///
    /// # Safety
    /// As [`push`](Self::push), for both entries.
    pub(crate) unsafe fn push_linked(&mut self, entry: squeue::Entry, limit: squeue::Entry) {
        let entry = entry.flags(squeue::Flags::IO_LINK);
        // SAFETY: the caller keeps what the entries point to.
        unsafe { self.push_together(Waiting::Linked([entry, limit])) };
    }

    /// # Safety
    /// As [`push`](Self::push), for all entries.
    unsafe fn push_together(&mut self, entries: Waiting) {
        self.counters.sqes += entries.entries().len() as u64;
        if self.backlog.is_empty() {
            // SAFETY: the caller keeps what the entries point to.
            let pushed = unsafe { self.uring.submission().push_multiple(entries.entries()) };
            if pushed.is_ok() {
                return;
            }
        }
        self.counters.backlogged += entries.entries().len() as u64;
        self.backlog.push_back(entries);
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
        while let Some(entries) = self.backlog.front() {
            // SAFETY: whoever pushed the entries keeps what they point to until their completions.
            if unsafe { queue.push_multiple(entries.entries()) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
        // What a burst has needed is not kept for ever.
        if self.backlog.capacity() > 1024 {
            self.backlog = VecDeque::new();
        }
    }

    /// Submits all that is queued and sleeps as `wait` says.
    ///
    /// Errors that mean "again later" (`after_enter`) are not errors here.
    pub(crate) fn enter(&mut self, wait: Wait) -> std::io::Result<()> {
        if !self.backlog.is_empty() {
            self.refill_from_backlog();
        }
        // With a backlog left the kernel must first be given room; do not sleep on that.
        let wait = if self.backlog.is_empty() { wait } else { Wait::No };
        self.counters.enters += 1;
        let queue = self.uring.submission();
        let unsubmitted = queue.len() as u32;
        self.counters.overflows += u64::from(queue.cq_overflow());
        drop(queue);
        match self.enter_once(unsubmitted, wait) {
            Ok(()) => Ok(()),
            Err(error) => match after_enter(&error) {
                AfterEnter::Reap => {
                    self.counters.retries += u64::from(error.raw_os_error() != Some(libc::ETIME));
                    Ok(())
                }
                AfterEnter::Fail => Err(policy::explain(error)),
            },
        }
    }

    fn enter_once(&mut self, unsubmitted: u32, wait: Wait) -> std::io::Result<()> {
        #[cfg(test)]
        let (unsubmitted, wait) = faults::inject(&mut self.faults, unsubmitted, wait)?;
        let submitter = self.uring.submitter();
        match wait {
            // GETEVENTS without a minimum: submit, run deferred task work, return.
            // SAFETY: no argument is passed; what the entries point to is kept by their owners.
            Wait::No => unsafe { submitter.enter::<()>(unsubmitted, 0, GETEVENTS, None) },
            // SAFETY: as above.
            Wait::Forever => unsafe { submitter.enter::<()>(unsubmitted, 1, GETEVENTS, None) },
            Wait::For(limit) => {
                let limit = types::Timespec::from(limit);
                let args = types::SubmitArgs::new().timespec(&limit);
                // SAFETY: as above; the arguments live through the call.
                unsafe { submitter.enter(unsubmitted, 1, GETEVENTS | EXT_ARG, Some(&args)) }
            }
        }
        .map(drop)
    }

    /// Copies the completions that are there into `into` (not cleared first).
    pub(crate) fn reap(&mut self, into: &mut VecDeque<Cqe>) {
        let before = into.len();
        into.extend(self.uring.completion().map(|cqe: cqueue::Entry| Cqe {
            user_data: cqe.user_data(),
            result: cqe.result(),
            flags: cqe.flags(),
        }));
        self.counters.cqes += (into.len() - before) as u64;
    }
}

#[cfg(test)]
mod tests;
