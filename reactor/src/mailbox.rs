//! The side of a context that every thread may touch: its queue, its sleep state, its name.

use crate::context::Running;
use crate::counters::CounterCells;
use crate::local;
use crate::queue::{Mpsc, Taken};
use crate::task::Owned;
use crate::wake::{Notify, WakeState};
use crate::work::{HomeWork, Work};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// What senders write: on cache lines of its own, apart from what the context itself counts.
#[repr(align(128))]
pub(crate) struct Mailbox {
    queue: Mpsc<Work>,
    pub(crate) wake: WakeState,
    /// Wake-up messages sent, and wake-ups that needed none.
    pub(crate) sent: AtomicU64,
    pub(crate) coalesced: AtomicU64,
}

/// The part of a context that other threads may touch.
pub(crate) struct Shared {
    pub(crate) mailbox: Mailbox,
    pub(crate) name: String,
    pub(crate) index: usize,
    /// Names the runtime: rings post messages to one another within one runtime only.
    pub(crate) runtime: u64,
    pub(crate) cpu: Option<usize>,
    pub(crate) ring_fd: AtomicI32,
    pub(crate) eventfd: OwnedFd,
    pub(crate) counters: CounterCells,
    pub(crate) running: Running,
    pub(crate) tasks: Owned,
    /// Set when the loop has ended: tasks spawned here from now on are dropped.
    pub(crate) stopped: AtomicBool,
    /// Operations outlived the loop: their memory is never freed.
    pub(crate) leaked: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        name: String,
        index: usize,
        runtime: u64,
        cpu: Option<usize>,
    ) -> std::io::Result<Self> {
        // SAFETY: eventfd(2) takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self {
            mailbox: Mailbox {
                queue: Mpsc::new(),
                wake: WakeState::new(),
                sent: AtomicU64::new(0),
                coalesced: AtomicU64::new(0),
            },
            name,
            index,
            runtime,
            cpu,
            ring_fd: AtomicI32::new(-1),
            // SAFETY: the descriptor was just made and is known to nobody else.
            eventfd: unsafe { OwnedFd::from_raw_fd(fd) },
            counters: CounterCells::new(),
            running: Running::new(),
            tasks: Owned::default(),
            stopped: AtomicBool::new(false),
            leaked: AtomicBool::new(false),
        })
    }

    /// Hands `work` to the context, waking it where needed; drops it where the context is gone. Any
    /// thread, never blocks.
    pub(crate) fn send(&self, work: Work) {
        match self.mailbox.queue.push(work) {
            Ok(()) => self.wake(),
            Err(work) => self.refuse(work),
        }
    }

    /// Gets rid of work that nobody will do.
    fn refuse(&self, work: Work) {
        match work {
            // The kernel may still write there.
            Work::Home(home) if home.holds_memory() && self.leaked.load(Ordering::Acquire) => {
                std::mem::forget(home);
            }
            other => drop(other),
        }
    }

    /// Makes the context look at its queue.
    fn wake(&self) {
        // A reactor's own wake-ups are sent at the end of its turn (`Local::flush_wakes`): what it
        // sends until then needs one message, and a long turn holds up nobody else's.
        if !local::wake_later(self) {
            self.wake_now();
        }
    }

    /// As a thread without a ring does it.
    pub(crate) fn wake_now(&self) {
        if self.mailbox.wake.notify() == Notify::Send {
            self.mailbox.sent.fetch_add(1, Ordering::Relaxed);
            self.signal_eventfd();
        } else {
            self.mailbox.coalesced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wakes the context by its eventfd, whatever state it is in.
    pub(crate) fn signal_eventfd(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is 8 bytes long and lives through the call. It does not block: the counter
        // is never reset and would need 2^64 wake-ups to be full.
        let n = unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        debug_assert_eq!(n, 8, "an eventfd takes 8 bytes");
    }

    /// Whether nothing is queued at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        self.mailbox.queue.is_empty()
    }

    /// Everything queued so far. On the context's thread.
    pub(crate) fn take(&self) -> Taken<Work> {
        self.mailbox.queue.take()
    }

    /// Takes no more work, and drops what there is: the threads of the runtime have ended.
    pub(crate) fn close(&self) {
        for work in self.mailbox.queue.close() {
            crate::guard::run("dropping work for a context that has ended", &self.name, || {
                self.refuse(work);
            });
        }
    }

    /// Sends housekeeping.
    pub(crate) fn send_home(&self, work: HomeWork) {
        self.send(Work::Home(work));
    }
}
