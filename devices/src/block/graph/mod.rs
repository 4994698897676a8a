//! The block graph: nodes that are images, or something over other nodes, and the devices that use
//! them.
//!
//! ```text
//!   device queue ──▶ BackendQueue ──▶ (filter's queue ──▶) RawQueue ──▶ the core's ring
//!        ╎                ╎ held off while the graph drains
//!   device ─────────▶ Backend ──▶ Node "disk0" (raw) ──file──▶ Node "#block012" (file)
//! ```
//! - `lock`: readers in every context, one writer in `main`, and what is dropped after a write
//! - `node`, `permissions`: what exists, who uses it, who may do what
//! - `options`, `drivers/`: how a node is made, and what it does; `drive`: `-drive`; `implied`: what an
//!   image says of itself
//! - `backend`, `queue`, `stats`, `histogram`: what a device holds, and the way of its requests
//! - `throttle`, `groups`, `limiter`: limits of throughput; `errors`: what becomes of requests that fail
//! - `drain`: sections without requests
//! - `change`: adding and removing nodes; `reopen`: changing their options; `claim`: devices come
//!   and go; `media`: what is put into them; `content`: tools read and write
//! - `create`: new images; `snapshot`: what is written from now on goes to another image
//!
//! A [`BlockGraph`] belongs to one machine. It is changed in `main` only; what queries need is
//! published after each change and can be looked at anywhere, without waiting. Nodes change under
//! the lock; that devices come and go concerns `main` alone.

mod backend;
mod change;
mod claim;
mod content;
mod create;
mod drain;
mod drive;
mod drivers;
mod errors;
mod groups;
mod histogram;
mod implied;
mod limiter;
mod lock;
mod media;
mod node;
mod options;
mod permissions;
mod probe;
mod queue;
mod reopen;
mod snapshot;
mod stats;
#[cfg(test)]
mod tests;
mod throttle;

pub use backend::{Backend, Owner, SizeListener};
pub use claim::ClaimOptions;
pub use content::Content;
pub use create::{NewImage, NewQcow2, Preallocation};
pub use drain::Drained;
pub use drive::{DriveOptions, Interface};
pub use drivers::blkdebug::{Event, InjectError, IoType};
pub use drivers::bytes::Kept;
pub use drivers::format::Details;
pub use errors::{ErrorAction, ErrorPolicy, ErrorSink, IoError, IoStatus, OnError};
pub use groups::ThrottleGroups;
pub use histogram::{Boundaries, Histogram, Shapes, are_boundaries};
pub use lock::{GraphLock, Writer};
pub use media::{Device, Tray, TrayMoved, TraySink};
pub use node::Node;
pub use options::{Backing, DRIVERS, DetectZeroes, DriverOptions, Options, Reference};
pub use permissions::{Access, Permissions};
pub use snapshot::NewOverlay;
pub use stats::{Kind, KindStats, Stats};
pub use throttle::{Limits, Rate, ThrottleGroup};

use crate::clock::{Clock, HostClock};
use crate::fdset::FdSets;
use reactor::{Context, Reactors};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The nodes of a graph, in the order of their making: what a node uses comes before it.
#[derive(Clone, Default)]
pub struct Nodes(Vec<Arc<Node>>);

impl Nodes {
    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Node>> {
        self.0.iter()
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.iter().find(|node| node.name() == name)
    }

    /// Puts what a node uses before it again, and leaves the order alone otherwise.
    fn sort(&mut self) {
        fn visit(node: &Arc<Node>, sorted: &mut Vec<Arc<Node>>) {
            if sorted.iter().any(|known| Arc::ptr_eq(known, node)) {
                return;
            }
            for child in node.children() {
                visit(&child.node, sorted);
            }
            sorted.push(Arc::clone(node));
        }
        let mut sorted = Vec::with_capacity(self.0.len());
        self.0.iter().for_each(|node| visit(node, &mut sorted));
        self.0 = sorted;
    }
}

/// What there is at one moment.
#[derive(Clone)]
pub struct Contents {
    /// The nodes.
    pub nodes: Arc<Nodes>,
    /// What devices and drives hold, in the order of their making.
    pub backends: Vec<Arc<Backend>>,
}

impl Contents {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.node(name)
    }

    /// The back end of this drive or device.
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        let named = |backend: &&Arc<Backend>| {
            let owner = backend.owner();
            !name.is_empty() && (owner.drive == name || owner.device == name)
        };
        self.backends.iter().find(named)
    }
}

/// The block graph of a machine.
pub struct BlockGraph {
    main: Context,
    lock: GraphLock<Nodes>,
    /// The nodes after the last change. Held for moments only.
    published: Mutex<Arc<Nodes>>,
    /// Changed in `main`. Held for moments only.
    backends: Mutex<Vec<Arc<Backend>>>,
    /// What limits, latencies and delays go by.
    clock: Arc<dyn Clock>,
    /// What paths may mean.
    fdsets: FdSets,
    /// Limits that several share.
    groups: Arc<ThrottleGroups>,
    /// Told of requests that fail.
    io_errors: Arc<OnceLock<ErrorSink>>,
    /// Told of trays that move.
    tray_moved: OnceLock<TraySink>,
    /// Numbers uses and generated names.
    next: AtomicU64,
    /// One change at a time, the opening and closing of images included.
    changing: reactor::sync::Mutex<()>,
}

impl BlockGraph {
    /// An empty graph, changed in `main`, by the host's clock.
    pub fn new(reactors: &Reactors) -> Arc<Self> {
        Self::with(reactors, Arc::new(HostClock::new()), FdSets::default())
    }

    /// An empty graph, changed in `main`; limits of throughput and latencies go by `clock`, and
    /// `fdsets` are the sets that paths may mean.
    pub fn with(reactors: &Reactors, clock: Arc<dyn Clock>, fdsets: FdSets) -> Arc<Self> {
        let main = reactors.main().clone();
        Arc::new(Self {
            lock: GraphLock::new(&main, Nodes::default()),
            main,
            published: Mutex::default(),
            backends: Mutex::default(),
            groups: Arc::new(ThrottleGroups::new(&clock)),
            clock,
            fdsets,
            io_errors: Arc::default(),
            tray_moved: OnceLock::new(),
            next: AtomicU64::new(0),
            changing: reactor::sync::Mutex::new(()),
        })
    }

    /// The lock, for coroutines that need the nodes to stay as they are while they wait.
    pub fn lock(&self) -> &GraphLock<Nodes> {
        &self.lock
    }

    /// What there was after the last change. Any thread; never waits.
    pub fn contents(&self) -> Contents {
        let nodes = Arc::clone(&self.published.lock().unwrap_or_else(PoisonError::into_inner));
        Contents { nodes, backends: self.backends().clone() }
    }

    fn backends(&self) -> MutexGuard<'_, Vec<Arc<Backend>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, nodes: &Nodes) {
        let nodes = Arc::new(nodes.clone());
        let before = {
            let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *published, nodes)
        };
        drop(before);
    }

    /// The throttle groups, which objects share.
    pub fn throttle_groups(&self) -> &Arc<ThrottleGroups> {
        &self.groups
    }

    /// Gives a back end these limits, in the group of this name or else in its own; none where they
    /// are no limits (`block_set_io_throttle`). Other members of the group share them. Any thread.
    pub fn throttle(&self, backend: &Backend, group: Option<&str>, limits: Limits) {
        if !limits.any() {
            return backend.set_throttle(None);
        }
        let owner = backend.owner();
        let own = backend.throttle().map(|group| group.name().to_owned());
        let name = group.map(str::to_owned).or(own).unwrap_or(if owner.drive.is_empty() {
            owner.device
        } else {
            owner.drive
        });
        let group = self.groups.get(&name, limits);
        group.set_limits(limits);
        backend.set_throttle(Some(group));
    }

    /// A number that no use has.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A name that no user can choose.
    fn generated_name(&self) -> String {
        format!("#block{:03}", self.number())
    }
}
