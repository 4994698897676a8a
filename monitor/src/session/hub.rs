//! The way of events to the sessions.
//!
//! Whoever emits an event leaves its message here and schedules a bottom half of the monitor
//! context, which hands it to every negotiated session. While events are on their way, replies
//! queue up behind them: an event emitted before a command returned is sent before its reply.

use super::Session;
use super::throttle::{Key, PERIOD, Throttle, Verdict};
use crate::event::{self, Event};
use crate::wire::{Reader, Style, Writer};
use reactor::{BottomHalf, Context, sleep};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// Events on their way at once; more are dropped and counted.
const EVENTS_MAX: usize = 1024;

enum Post {
    Event(Vec<u8>),
    Reply(Arc<Session>, Vec<u8>),
}

/// The sessions and what is on its way to them.
pub(crate) struct Hub {
    inbox: Mutex<Vec<Post>>,
    /// Posts that have not been handed over yet. Read without the lock.
    pending: AtomicUsize,
    events_dropped: AtomicU64,
    sessions: Mutex<Vec<Arc<Session>>>,
    bottom_half: BottomHalf,
    throttle: Throttle,
    monitor: Context,
    this: Weak<Self>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(monitor: &Context) -> Arc<Self> {
        Arc::new_cyclic(|hub: &Weak<Self>| {
            let this = hub.clone();
            let hub = hub.clone();
            let bottom_half = monitor.bottom_half("monitor-events", move || {
                if let Some(hub) = hub.upgrade() {
                    hub.deliver();
                }
            });
            Self {
                inbox: Mutex::default(),
                pending: AtomicUsize::new(0),
                events_dropped: AtomicU64::new(0),
                sessions: Mutex::default(),
                bottom_half,
                throttle: Throttle::default(),
                monitor: monitor.clone(),
                this,
            }
        })
    }

    pub(crate) fn add(&self, session: Arc<Session>) {
        lock(&self.sessions).push(session);
    }

    pub(crate) fn remove(&self, session: &Arc<Session>) {
        lock(&self.sessions).retain(|other| !Arc::ptr_eq(other, session));
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).clone()
    }

    /// Sends a reply, behind the events that are on their way. Any context; never waits.
    pub(crate) fn reply(&self, session: &Arc<Session>, message: Vec<u8>) {
        // Acquire: an event that happened before this reply was counted before.
        if self.pending.load(Ordering::Acquire) == 0 {
            session.send_reply(&message);
        } else {
            self.post(Post::Reply(Arc::clone(session), message));
        }
    }

    fn emit(&self, name: &str, message: Vec<u8>) {
        let Some(key) = Key::of(name, &message) else { return self.send(message) };
        match self.throttle.take(&key, &message) {
            Verdict::Kept => return,
            Verdict::Unlimited => {}
            Verdict::Send => {
                let periods = periods(self.this.clone(), key);
                self.monitor.spawn("event-period", periods).detach();
            }
        }
        self.send(message);
    }

    fn send(&self, message: Vec<u8>) {
        if self.pending.load(Ordering::Relaxed) < EVENTS_MAX {
            self.post(Post::Event(message));
        } else {
            self.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn post(&self, post: Post) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        lock(&self.inbox).push(post);
        self.bottom_half.schedule();
    }

    /// The bottom half: in the monitor context.
    fn deliver(&self) {
        let posts = std::mem::take(&mut *lock(&self.inbox));
        let sessions = self.sessions();
        for post in &posts {
            match post {
                Post::Event(message) => broadcast(&sessions, message),
                Post::Reply(session, message) => session.send_reply(message),
            }
        }
        // What was posted meanwhile has scheduled the bottom half again.
        self.pending.fetch_sub(posts.len(), Ordering::AcqRel);
    }
}

/// Sends what has been kept back at the end of each period, until nothing was.
async fn periods(hub: Weak<Hub>, key: Key) {
    loop {
        sleep(PERIOD).await;
        let Some(hub) = hub.upgrade() else { return };
        let Some(message) = hub.throttle.due(&key) else { return };
        hub.send(message);
    }
}

fn broadcast(sessions: &[Arc<Session>], message: &[u8]) {
    let mut pretty: Option<Vec<u8>> = None;
    for session in sessions.iter().filter(|session| session.is_negotiated()) {
        match session.style() {
            Style::Line => session.send_event(message),
            Style::Pretty => {
                session.send_event(pretty.get_or_insert_with(|| prettified(message)));
            }
        }
    }
}

/// The same message in the other layout.
fn prettified(message: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Style::Pretty);
    if let Some(Ok(value)) = Reader::default().next(&mut { message }) {
        writer.value(&value);
    }
    writer.into_message()
}

/// Where events enter the monitor. Clones are cheap and may go to any thread.
#[derive(Clone)]
pub struct EventSink(pub(crate) Arc<Hub>);

impl EventSink {
    /// Sends the event, with the time of this call, to every session that has negotiated; an event
    /// that guests can cause at any rate at most once a second. Any thread; never waits. An event emitted by the handler of a command, or before it, is sent
    /// before that command's reply.
    pub fn emit<E: Event>(&self, event: &E) {
        self.0.emit(E::NAME, event::message(event, Style::Line, SystemTime::now()));
    }
}
