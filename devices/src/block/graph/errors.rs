//! What becomes of requests that fail: `werror=`, `rerror=`.
//!
//! A request that stops the machine is kept by its queue, as it was, and started again when the
//! machine goes on. It is not in flight meanwhile: a drain does not wait for it.

use super::BlockGraph;
use super::backend::Backend;
use super::drivers::file::strerror;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What is done about a request that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OnError {
    /// The guest is told.
    Report,
    /// It counts as done.
    Ignore,
    /// The machine stops where space is wanting; else the guest is told.
    Enospc,
    /// The machine stops, and the request is tried again when it goes on.
    Stop,
}

impl OnError {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Report, Self::Ignore, Self::Enospc, Self::Stop];
    /// Their names, likewise.
    pub const WORDS: [&str; 4] = ["report", "ignore", "enospc", "stop"];

    /// By its name; `None` for `auto` and what is not known.
    pub fn named(name: &str) -> Option<Self> {
        Self::WORDS.iter().position(|word| *word == name).map(|n| Self::ALL[n])
    }

    fn action(self, errno: i32) -> ErrorAction {
        match self {
            Self::Ignore => ErrorAction::Ignore,
            Self::Stop => ErrorAction::Stop,
            Self::Enospc if errno == libc::ENOSPC => ErrorAction::Stop,
            Self::Enospc | Self::Report => ErrorAction::Report,
        }
    }
}

/// What is done about requests that fail. `None`: as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorPolicy {
    /// `rerror=`: about reads.
    pub read: Option<OnError>,
    /// `werror=`: about all others.
    pub write: Option<OnError>,
}

impl ErrorPolicy {
    /// The guest is told of everything.
    pub const REPORT: Self = Self { read: Some(OnError::Report), write: Some(OnError::Report) };
}

/// What has been done about a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorAction {
    /// It counts as done.
    Ignore,
    /// The guest is told.
    Report,
    /// The machine is to stop.
    Stop,
}

/// Whether requests succeed, since the machine last went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IoStatus {
    /// They do.
    Ok,
    /// One failed, and the machine was to stop.
    Failed,
    /// One failed for want of space, and the machine was to stop.
    NoSpace,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// Where the device is in the object tree.
    pub path: String,
    /// The drive; empty where a device uses a node by its name.
    pub drive: String,
    /// The node.
    pub node: Option<String>,
    /// It was a read.
    pub read: bool,
    /// What has been done about it.
    pub action: ErrorAction,
    /// Space was wanting; `None` where that makes no difference.
    pub no_space: Option<bool>,
    /// The errno.
    pub errno: i32,
}

impl IoError {
    /// The errno in words, as strerror(3) has it.
    pub fn reason(&self) -> String {
        strerror(&io::Error::from_raw_os_error(self.errno))
    }
}

/// Takes what failed; any thread, returns at once.
pub type ErrorSink = Box<dyn Fn(&IoError) + Send + Sync>;

/// The state of a back end as to errors. Any thread.
pub(super) struct Errors {
    on_read: AtomicU8,
    on_write: AtomicU8,
    status: AtomicU8,
    /// Counts when stopped requests are to be started again.
    retries: AtomicU64,
    sink: Arc<OnceLock<ErrorSink>>,
}

impl Errors {
    pub(super) fn new(sink: Arc<OnceLock<ErrorSink>>) -> Self {
        Self {
            on_read: AtomicU8::new(OnError::Report as u8),
            on_write: AtomicU8::new(OnError::Enospc as u8),
            status: AtomicU8::new(IoStatus::Ok as u8),
            retries: AtomicU64::new(0),
            sink,
        }
    }

    fn on(&self, read: bool) -> OnError {
        let number = if read { &self.on_read } else { &self.on_write };
        OnError::ALL[usize::from(number.load(Ordering::Relaxed))]
    }

    /// Whether the machine may stop.
    fn may_stop(&self) -> bool {
        self.on(true) == OnError::Stop || matches!(self.on(false), OnError::Enospc | OnError::Stop)
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Acquire)
    }

    fn failed(&self, errno: i32) {
        let status = if errno == libc::ENOSPC { IoStatus::NoSpace } else { IoStatus::Failed };
        // The first one counts.
        let _later = self.status.compare_exchange(
            IoStatus::Ok as u8,
            status as u8,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
    }
}

impl Backend {
    /// Sets what is done about requests that fail. Any thread.
    pub fn set_on_error(&self, policy: ErrorPolicy) {
        for (on, number) in
            [(policy.read, &self.errors.on_read), (policy.write, &self.errors.on_write)]
        {
            if let Some(on) = on {
                number.store(on as u8, Ordering::Relaxed);
            }
        }
    }

    /// What is done about reads that fail, and about other requests.
    pub fn on_error(&self) -> (OnError, OnError) {
        (self.errors.on(true), self.errors.on(false))
    }

    /// Whether requests succeed; `None` where no error stops the machine.
    pub fn io_status(&self) -> Option<IoStatus> {
        if self.owner().device.is_empty() || !self.errors.may_stop() {
            return None;
        }
        Some(match self.errors.status.load(Ordering::Acquire) {
            n if n == IoStatus::Ok as u8 => IoStatus::Ok,
            n if n == IoStatus::NoSpace as u8 => IoStatus::NoSpace,
            _ => IoStatus::Failed,
        })
    }

    /// A request has failed: what is to be done about it. Whoever listens has been told.
    pub(super) fn failed(&self, read: bool, errno: i32) -> ErrorAction {
        let action = self.errors.on(read).action(errno);
        if action == ErrorAction::Stop {
            self.errors.failed(errno);
        }
        let Some(sink) = self.errors.sink.get() else { return action };
        let owner = self.owner();
        // SCSI disks go by their ids.
        let path = match owner.device.as_str() {
            path if path.starts_with('/') => path.to_owned(),
            id => format!("/machine/peripheral/{id}"),
        };
        sink(&IoError {
            path,
            drive: owner.drive,
            node: self.root().map(|root| root.name().to_owned()),
            read,
            action,
            no_space: self.errors.may_stop().then_some(errno == libc::ENOSPC),
            errno,
        });
        action
    }

    fn retry_failed(&self) {
        self.errors.status.store(IoStatus::Ok as u8, Ordering::Release);
        // Release pairs with the Acquire in `retries`.
        self.errors.retries.fetch_add(1, Ordering::Release);
        self.wake_queues();
    }
}

impl BlockGraph {
    /// Has `sink` told of each request that fails. The first one stays.
    pub fn on_io_error(&self, sink: ErrorSink) {
        let _first = self.io_errors.set(sink);
    }

    /// Whether a request has failed since the machine last went on, for which it was to stop.
    pub fn has_stopped(&self) -> bool {
        let failed = |backend: &Arc<Backend>| {
            backend.errors.status.load(Ordering::Acquire) != IoStatus::Ok as u8
        };
        self.backends().iter().any(failed)
    }

    /// The machine goes on: requests that have stopped it are started again. Any thread.
    pub fn retry_failed(&self) {
        for backend in &self.contents().backends {
            backend.retry_failed();
        }
    }
}
