//! What a device holds of the graph: a node with permissions, behind the [`Disk`] trait.

use super::errors::{ErrorSink, Errors};
use super::histogram::Histogram;
use super::media::Tray;
use super::node::Node;
use super::options::DetectZeroes;
use super::queue::BackendQueue;
use super::stats::{QueueStats, Stats};
use super::throttle::ThrottleGroup;
use crate::block::{BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, SECTOR};
use reactor::Context;
use reactor::sync::Quiesce;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use vm_memory::GuestMemoryMmap;

/// Whom it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// `-drive id=`; empty for a node that a device names itself.
    pub drive: String,
    /// The device's path, as QEMU writes it; empty before there is one.
    pub device: String,
}

/// Called when the size has changed.
pub type SizeListener = Box<dyn Fn() + Send + Sync>;

/// A device's hold on the graph. It can be moved to another node while the device runs.
pub struct Backend {
    /// What messages call it.
    label: String,
    read_only: bool,
    writeback: bool,
    /// The number of its use of the root.
    pub(super) use_id: u64,
    pub(super) quiesce: Quiesce,
    /// Counts changes of the root, or below it, after which queues are to be made anew.
    generation: AtomicU64,
    /// Counts changes of the limits.
    throttle_version: AtomicU64,
    pub(super) errors: Errors,
    state: Mutex<State>,
    this: Weak<Self>,
}

#[derive(Default)]
pub(super) struct State {
    owner: Owner,
    root: Option<Arc<Node>>,
    removable: bool,
    /// Its device's, while there is one.
    tray: Option<Weak<dyn Tray>>,
    /// Whether the last medium was read-only.
    was_read_only: bool,
    throttle: Option<Arc<ThrottleGroup>>,
    /// The tasks of the queues.
    watchers: Vec<Waker>,
    pub(super) queues: Vec<Arc<QueueStats>>,
    /// What queues counted that are gone.
    before: Stats,
    /// Likewise.
    pub(super) histograms: [Option<Histogram>; 4],
    size_listeners: Vec<SizeListener>,
}

impl Backend {
    pub(super) fn new(
        main: &Context,
        owner: Owner,
        root: Option<&Arc<Node>>,
        use_id: u64,
        (read_only, writeback): (bool, bool),
        io_errors: &Arc<OnceLock<ErrorSink>>,
    ) -> Arc<Self> {
        let label = if owner.drive.is_empty() { &owner.device } else { &owner.drive }.clone();
        let state =
            State { owner, root: root.cloned(), was_read_only: read_only, ..State::default() };
        Arc::new_cyclic(|this| Self {
            label,
            read_only,
            writeback,
            use_id,
            quiesce: Quiesce::new(main),
            generation: AtomicU64::new(0),
            throttle_version: AtomicU64::new(0),
            errors: Errors::new(Arc::clone(io_errors)),
            state: Mutex::new(state),
            this: Weak::clone(this),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom it is for.
    pub fn owner(&self) -> Owner {
        self.state().owner.clone()
    }

    /// A device has come.
    pub(super) fn set_device(&self, device: String) {
        let mut state = self.state();
        state.owner.device = device;
        state.tray = None;
        // Those are of the device before.
        state.size_listeners.clear();
    }

    /// What is in it can be taken out: it is no device's yet, or a drive's for such media.
    pub fn is_removable(&self) -> bool {
        let state = self.state();
        state.owner.device.is_empty() || state.removable
    }

    /// The tray of its device.
    pub fn tray(&self) -> Option<Arc<dyn Tray>> {
        self.state().tray.as_ref().and_then(Weak::upgrade)
    }

    /// Its device has a tray.
    pub fn set_tray(&self, tray: Weak<dyn Tray>) {
        let mut state = self.state();
        (state.tray, state.removable) = (Some(tray), true);
    }

    /// Whether the medium is read-only, or the last one was.
    pub fn medium_read_only(&self) -> bool {
        self.root().map_or_else(|| self.state().was_read_only, |root| root.info().read_only)
    }

    pub(super) fn set_removable(&self, removable: bool) {
        self.state().removable = removable;
    }

    /// The drive is no longer known by its id.
    pub(super) fn forget_drive(&self) {
        self.state().owner.drive.clear();
    }

    /// The node that it stores on; `None` once released.
    pub fn root(&self) -> Option<Arc<Node>> {
        self.state().root.clone()
    }

    /// What becomes of writes of zeroes.
    pub(super) fn detect_zeroes(&self) -> DetectZeroes {
        self.root().map_or(DetectZeroes::Off, |root| root.options().detect_zeroes)
    }

    /// Moves to another node, or makes all queues anew where it is the same. Within a drained
    /// section.
    pub(super) fn set_root(&self, root: Option<Arc<Node>>) {
        // The old one may go with its images: not under the lock.
        let before = self.root();
        let mut state = self.state();
        if let Some(before) = &before {
            state.was_read_only = before.info().read_only;
        }
        state.root = root;
        drop(state);
        drop(before);
        self.renew();
    }

    /// Makes all queues anew: what is below has changed. Within a drained section.
    pub(super) fn renew(&self) {
        // Release pairs with the Acquire in `generation`.
        self.generation.fetch_add(1, Ordering::Release);
        self.wake_queues();
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The group whose limits it keeps.
    pub fn throttle(&self) -> Option<Arc<ThrottleGroup>> {
        self.state().throttle.clone()
    }

    pub(super) fn set_throttle(&self, group: Option<Arc<ThrottleGroup>>) {
        self.state().throttle = group;
        // Release pairs with the Acquire in `throttle_version`.
        self.throttle_version.fetch_add(1, Ordering::Release);
        self.wake_queues();
    }

    pub(super) fn throttle_version(&self) -> u64 {
        self.throttle_version.load(Ordering::Acquire)
    }

    /// Has the queues look for what has changed.
    pub(super) fn wake_queues(&self) {
        let watchers = std::mem::take(&mut self.state().watchers);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Has `waker` woken when the root or the limits change, and when requests are to be retried.
    pub(super) fn watch(&self, waker: &Waker) {
        self.state().watchers.push(waker.clone());
    }

    pub(super) fn queue_ended(&self, stats: &Arc<QueueStats>) {
        let mut state = self.state();
        state.queues.retain(|known| !Arc::ptr_eq(known, stats));
        let last = Stats { in_flight: 0, ..stats.snapshot() };
        state.before.add(&last);
        stats.add_histograms(&mut state.histograms);
    }

    /// What it has done. Any thread.
    pub fn stats(&self) -> Stats {
        let state = self.state();
        let mut all = state.before;
        for queue in &state.queues {
            all.add(&queue.snapshot());
        }
        all
    }

    /// Whether its user has asked for no writes.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether the guest may cache writes.
    pub fn writeback(&self) -> bool {
        self.writeback
    }

    /// Has `listener` called in `main` after each change of the size.
    pub fn on_size_change(&self, listener: SizeListener) {
        self.state().size_listeners.push(listener);
    }

    pub(super) fn size_changed(&self) {
        // Taken out: a listener may call back.
        let listeners = std::mem::take(&mut self.state().size_listeners);
        for listener in &listeners {
            listener();
        }
        let mut state = self.state();
        let added = std::mem::replace(&mut state.size_listeners, listeners);
        state.size_listeners.extend(added);
    }

    fn error(&self, what: &'static str) -> DiskError {
        let source = io::Error::from_raw_os_error(libc::ENOMEDIUM);
        DiskError { disk: self.label.clone(), what, source }
    }
}

impl Disk for Backend {
    fn name(&self) -> &str {
        &self.label
    }

    fn size(&self) -> u64 {
        let root = self.root();
        root.map_or(0, |root| root.size() & !(SECTOR - 1))
    }

    fn info(&self) -> DiskInfo {
        let info = self.root().map(|root| root.info());
        let none = DiskInfo {
            read_only: true,
            writeback: false,
            physical_block: SECTOR as u32,
            discard_granularity: None,
        };
        let info = info.unwrap_or(none);
        DiskInfo { read_only: info.read_only || self.read_only, writeback: self.writeback, ..info }
    }

    fn queue(
        &self,
        ram: &Arc<GuestMemoryMmap<()>>,
        slots: usize,
        segments: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        let this = self.this.upgrade().ok_or_else(|| io::Error::other("it is closed"))?;
        let stats = Arc::new(QueueStats::new(&self.histogram_shapes()));
        let queue = BackendQueue::new(this, ram, slots, segments, Arc::clone(&stats))?;
        self.state().queues.push(stats);
        Ok(Box::new(queue))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async {
            let root = self.root().ok_or_else(|| self.error("flush"))?;
            root.flush().await
        })
    }

    /// Flushes only: nodes are closed when nobody uses them any more.
    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async {
            match self.root() {
                Some(root) if !self.info().read_only => root.flush().await,
                _ => Ok(()),
            }
        })
    }
}
