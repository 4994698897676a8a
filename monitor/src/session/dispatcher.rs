//! Where each command runs.
//!
//! | request | runs |
//! |---|---|
//! | not well-formed | nowhere: answered by the dispatcher, in its turn |
//! | plain command | as a bottom half of *iohandler* |
//! | coroutine command | in *main*, which the coroutine hops to and comes back from |
//! | out of band | at once in *monitor*, past everything here |
//!
//! [`monitor_qmp_dispatch`] is a coroutine that lives in iohandler and serves the sessions round
//! robin. One coroutine command runs at a time, over all sessions, so that two of them never
//! interleave their changes to what main owns; while it waits, the plain commands of *other*
//! sessions go on. The requests of one session run strictly one after the other.

use super::Session;
use super::fair::Fair;
use super::latency::Timing;
use crate::core::{Core, Env};
use crate::dispatch::{BadRequest, Request, qmp_dispatch, qmp_dispatch_co, refuse};
use crate::error::QmpError;
use crate::registry::{Command, Kind, Value};
use reactor::sync::{Notify, oneshot};
use reactor::{Fd, hop};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests that may wait for a session before reading stops, as in QEMU.
pub(crate) const QUEUE_MAX: usize = 8;
/// Waiting requests at which reading goes on after it stopped: not at each one less, so that the
/// reader is woken once for several requests.
const QUEUE_RESUME: usize = 2;

/// A request in the queue.
struct Job {
    session: Arc<Session>,
    kind: Kind,
    request: Result<Request, BadRequest>,
    /// Came with it.
    fds: Vec<Fd>,
    timing: Timing,
}

#[derive(Default)]
struct State {
    fair: Fair<Job>,
    /// A coroutine command is running.
    coroutine_runs: bool,
    /// Nothing is started any more.
    closed: bool,
}

/// The queue between the monitor context and the dispatcher.
#[derive(Default)]
pub(crate) struct Dispatcher {
    state: Mutex<State>,
    /// There may be something to run.
    wake: Notify,
    /// A command has ended.
    ended: Notify,
}

impl Dispatcher {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, session: &Session) {
        self.lock().fair.add(session.id);
    }

    /// Drops what waits for the session; what runs goes on and its reply is lost.
    pub(crate) fn remove(&self, session: &Session) {
        self.lock().fair.remove(session.id);
    }

    pub(crate) fn push(
        &self,
        core: &Core,
        session: &Arc<Session>,
        request: Result<Request, BadRequest>,
        fds: Vec<Fd>,
    ) {
        let command =
            request.as_ref().ok().and_then(|request| core.registry.find(&request.command));
        let kind = command.map_or(Kind::Plain, Command::kind);
        let timing = Timing::begin(command.map(Command::name));
        let job = Job { session: Arc::clone(session), kind, request, fds, timing };
        self.lock().fair.push(session.id, job);
        self.wake.notify_one();
    }

    /// Whether another request of the session may be read. Before the end of the negotiation
    /// requests are read one by one, because the answer decides how the next one is read.
    pub(crate) fn has_room(&self, session: &Session) -> bool {
        self.has_fewer(session, QUEUE_MAX)
    }

    /// Whether reading may go on after it stopped for want of room.
    pub(crate) fn has_room_again(&self, session: &Session) -> bool {
        self.has_fewer(session, QUEUE_RESUME + 1)
    }

    fn has_fewer(&self, session: &Session, limit: usize) -> bool {
        let state = self.lock();
        if session.is_negotiated() {
            state.fair.depth(session.id) < limit
        } else {
            state.fair.is_idle(session.id)
        }
    }

    /// Requests of the session that wait.
    pub(crate) fn depth(&self, session: &Session) -> usize {
        self.lock().fair.depth(session.id)
    }

    pub(crate) fn is_idle(&self, session: &Session) -> bool {
        self.lock().fair.is_idle(session.id)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let coroutine_runs = state.coroutine_runs;
        let job = state.fair.pop(|job| job.kind == Kind::Plain || !coroutine_runs)?;
        if job.kind == Kind::Coroutine {
            state.coroutine_runs = true;
        }
        let resume = state.fair.depth(job.session.id) <= QUEUE_RESUME;
        drop(state);
        if resume {
            job.session.changed.notify_one();
        }
        Some(job)
    }

    fn done(&self, session: &Session, kind: Kind) {
        let mut state = self.lock();
        state.fair.done(session.id);
        if kind == Kind::Coroutine {
            state.coroutine_runs = false;
        }
        let idle = state.fair.is_idle(session.id);
        drop(state);
        if idle {
            session.changed.notify_one();
        }
        self.ended.notify_all();
        self.wake.notify_one();
    }

    /// Starts nothing more, and waits for what runs.
    pub(crate) async fn close(&self) {
        self.lock().closed = true;
        loop {
            let ended = self.ended.notified();
            if self.lock().fair.running() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// The dispatcher coroutine. Lives in iohandler and ends with its context.
pub(crate) async fn monitor_qmp_dispatch(core: Arc<Core>) {
    debug_assert!(core.reactors.iohandler().is_current());
    loop {
        let Some(Job { session, kind, request, fds, timing }) = core.dispatcher.next() else {
            core.dispatcher.wake.notified().await;
            continue;
        };
        session.hand_over(fds);
        let mut running = Running::new(&core, session, (kind, timing), &request);
        match (request, kind) {
            (Err(bad), _) => {
                let reply = refuse(bad, running.session.style());
                running.reply(reply);
            }
            (Ok(request), Kind::Plain) => in_bottom_half(running, request).await,
            (Ok(request), Kind::Coroutine) => {
                let coroutine = in_main(running, request);
                core.reactors.iohandler().spawn("qmp-coroutine", coroutine).detach();
            }
        }
    }
}

/// Leaves coroutine context: the command runs as a bottom half of iohandler.
async fn in_bottom_half(mut running: Running, request: Request) {
    let (done, ended) = oneshot::channel();
    let iohandler = running.core.reactors.iohandler().clone();
    iohandler.schedule_named_bh("qmp-command", move || {
        let core = Arc::clone(&running.core);
        let env = Env::of_session(&core, &running.session);
        let reply = qmp_dispatch(&core.registry, &env, request, running.session.style());
        running.reply(reply);
        // The dispatcher waits unless its context has ended.
        let _ = done.send(());
    });
    // An error means that the bottom half panicked; `Running` has answered for it.
    let _ = ended.await;
}

/// Moves the coroutine to main for the command, and back.
async fn in_main(mut running: Running, request: Request) {
    let core = Arc::clone(&running.core);
    let env = Env::of_session(&core, &running.session);
    let style = running.session.style();
    hop(core.reactors.main()).await;
    let lane = core.coroutine_lane.lock().await;
    let reply = qmp_dispatch_co(&core.registry, &env, request, style).await;
    drop(lane);
    hop(core.reactors.iohandler()).await;
    running.reply(reply);
}

/// A command that runs. Whatever becomes of it, the client gets an answer and the queue goes on.
struct Running {
    core: Arc<Core>,
    session: Arc<Session>,
    kind: Kind,
    timing: Timing,
    id: Option<Value>,
    answered: bool,
}

impl Running {
    fn new(
        core: &Arc<Core>,
        session: Arc<Session>,
        (kind, timing): (Kind, Timing),
        request: &Result<Request, BadRequest>,
    ) -> Self {
        let id = request.as_ref().map_or(None, |request| request.id.clone());
        Self { core: Arc::clone(core), session, kind, timing, id, answered: false }
    }

    fn reply(&mut self, message: Vec<u8>) {
        self.answered = true;
        // First: who has the reply finds it counted.
        self.session.count(self.timing);
        self.core.hub.reply(&self.session, message);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.answered {
            let error =
                QmpError::generic("The command ended by an error of this program: see its log");
            let message = refuse(BadRequest { id: self.id.take(), error }, self.session.style());
            self.core.hub.reply(&self.session, message);
        }
        self.core.dispatcher.done(&self.session, self.kind);
    }
}
