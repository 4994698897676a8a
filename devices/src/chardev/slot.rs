//! Between a back end and the front end that uses it.

use super::connection::{Bridges, Connection};
use reactor::Fd;
use reactor::sync::{Notify, oneshot};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a front end is, which matters where several share a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEndKind {
    /// A device of the guest.
    Device,
    /// A monitor for people.
    Readline,
    /// A monitor for programs.
    Control,
}

/// Called on any thread, and outside all locks.
type OnBreak = Arc<dyn Fn() + Send + Sync>;

/// Where a back end leaves a connection for its front end.
pub(super) struct Slot {
    state: Mutex<State>,
    /// For the front end: there is a connection, or it was taken back.
    changed: Notify,
    /// For whoever waits for the first client.
    came: Notify,
    /// For the back end: a connection was handed in.
    added: Notify,
    bridges: Arc<Bridges>,
}

#[derive(Default)]
struct State {
    offered: Option<Connection>,
    /// How the connection is called, while there is one.
    connected: Option<String>,
    frontend: Option<FrontEndKind>,
    /// The front end is there and says that nobody listens behind it.
    closed: bool,
    came: bool,
    added: Option<Fd>,
    /// What the front end does at a break condition.
    on_break: Option<OnBreak>,
    /// The back end has been replaced by one that offers here.
    next: Option<Arc<Slot>>,
}

impl Slot {
    pub(super) fn new(bridges: &Arc<Bridges>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Notify::new(),
            came: Notify::new(),
            added: Notify::new(),
            bridges: Arc::clone(bridges),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a connection, called `name`. The receiver hears of its end.
    pub(super) fn offer(&self, mut connection: Connection, name: String) -> oneshot::Receiver<()> {
        let (released, gone) = oneshot::channel();
        connection.hold(released, Arc::clone(&self.bridges));
        let before = {
            let mut state = self.lock();
            state.came = true;
            state.connected = Some(name);
            state.offered.replace(connection)
        };
        drop(before);
        self.changed.notify_one();
        self.came.notify_all();
        gone
    }

    /// The connection has ended.
    pub(super) fn disconnected(&self) {
        let offered = {
            let mut state = self.lock();
            state.connected = None;
            state.offered.take()
        };
        drop(offered);
    }

    /// The back end is another one from here on, which offers its connections in `next`: what there
    /// is of the old one is taken back, and the front end goes over.
    pub(super) fn replace(&self, next: &Arc<Self>) {
        {
            let mut state = self.lock();
            let mut taken = next.lock();
            (taken.frontend, taken.closed) = (state.frontend, state.closed);
            taken.on_break = state.on_break.take();
            drop(taken);
            state.next = Some(Arc::clone(next));
        }
        self.disconnected();
        self.changed.notify_one();
    }

    /// How the connection is called.
    pub(super) fn connected(&self) -> Option<String> {
        self.lock().connected.clone()
    }

    /// What uses it.
    pub(super) fn frontend(&self) -> Option<FrontEndKind> {
        self.lock().frontend
    }

    /// Whether something uses it and listens.
    pub(super) fn frontend_open(&self) -> bool {
        let state = self.lock();
        state.frontend.is_some() && !state.closed
    }

    /// Takes it into use; false: it is in use.
    pub(super) fn attach(&self, kind: FrontEndKind) -> bool {
        let mut state = self.lock();
        if state.frontend.is_some() {
            return false;
        }
        state.frontend = Some(kind);
        true
    }

    /// A break condition, for the front end that cares.
    pub(super) fn send_break(&self) {
        let on_break = self.lock().on_break.clone();
        if let Some(on_break) = on_break {
            on_break();
        }
    }

    /// Hands a connected socket to the back end; false: it has a connection.
    pub(super) fn add(&self, fd: Fd) -> bool {
        let mut state = self.lock();
        if state.connected.is_some() || state.added.is_some() {
            return false;
        }
        state.added = Some(fd);
        drop(state);
        self.added.notify_one();
        true
    }

    /// Waits for a socket that was handed in.
    pub(super) async fn added(&self) -> Fd {
        loop {
            if let Some(fd) = self.lock().added.take() {
                return fd;
            }
            self.added.notified().await;
        }
    }

    /// Waits until there has been a connection.
    pub(super) async fn came(&self) {
        loop {
            let came = self.came.notified();
            if self.lock().came {
                return;
            }
            came.await;
        }
    }
}

/// The use of a character device. Dropping it gives the device free.
pub struct FrontEnd {
    slot: Mutex<Arc<Slot>>,
    id: String,
}

impl FrontEnd {
    /// The slot has been attached.
    pub(super) fn new(slot: Arc<Slot>, id: &str) -> Self {
        Self { slot: Mutex::new(slot), id: id.to_owned() }
    }

    /// The id of the device.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Says whether anybody listens behind the front end, for those who ask about the device.
    pub fn set_open(&self, open: bool) {
        self.slot().lock().closed = !open;
    }

    /// Where the present back end offers.
    fn slot(&self) -> Arc<Slot> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let next = slot.lock().next.clone();
            match next {
                Some(next) => *slot = next,
                None => return Arc::clone(&slot),
            }
        }
    }

    /// Sets what is done at a break condition on the line. Any thread.
    pub(crate) fn on_break(&self, call: impl Fn() + Send + Sync + 'static) {
        self.slot().lock().on_break = Some(Arc::new(call));
    }

    /// The connection that is there now. Any thread; never waits.
    pub fn try_connection(&self) -> Option<Connection> {
        self.slot().lock().offered.take()
    }

    /// Waits for a connection; dropping the previous one first is what makes another possible. On a
    /// reactor; may be dropped while it waits.
    pub async fn connection(&self) -> Connection {
        loop {
            let slot = self.slot();
            let offered = slot.lock().offered.take();
            if let Some(connection) = offered {
                return connection;
            }
            slot.changed.notified().await;
        }
    }

    /// Waits until the back end has been replaced by another: the connection it gave is over.
    pub async fn replaced(&self) {
        // The slot that the connection came from, whatever has become of it since.
        let slot = Arc::clone(&self.slot.lock().unwrap_or_else(PoisonError::into_inner));
        while slot.lock().next.is_none() {
            slot.changed.notified().await;
        }
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        let slot = self.slot();
        let mut state = slot.lock();
        (state.frontend, state.closed) = (None, false);
        let on_break = state.on_break.take();
        drop(state);
        drop(on_break);
    }
}
