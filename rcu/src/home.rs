//! Where callbacks are queued and where they run: one home for each context that uses RCU, and one
//! shared by all threads that are no reactors, served by the thread `rcu`.

use crate::callback::CallbackQueue;
use crate::domain::DOMAIN;
use crate::drains::Drains;
use crate::handover::Active;
use crate::leader::Leadership;
use crate::local::with_local;
use crate::part::Part;
use crate::primitive::{AtomicBool, AtomicPtr, AtomicWaker, Ordering};
use crate::worker;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// What is sent to a home's worker.
pub(crate) enum Mail {
    /// Drive the grace periods.
    Lead(Leadership),
    /// Run these callbacks: their grace period is over.
    Run(Part),
}

impl From<Leadership> for Mail {
    fn from(leadership: Leadership) -> Self {
        Self::Lead(leadership)
    }
}

impl From<Part> for Mail {
    fn from(part: Part) -> Self {
        Self::Run(part)
    }
}

pub(crate) struct Home {
    pub(crate) queue: CallbackQueue,
    next: AtomicPtr<Home>,
    mail: mpsc::Sender<Mail>,
    /// The worker's waker.
    pub(crate) waker: AtomicWaker,
    pub(crate) drains: Drains,
    /// The shared home's thread.
    thread: Option<Start>,
}

/// A thread that is started at the first use.
struct Start {
    started: AtomicBool,
    /// What it starts with.
    mail: Mutex<Option<mpsc::Receiver<Mail>>>,
}

impl Active for Home {
    fn next(&self) -> &AtomicPtr<Self> {
        &self.next
    }
}

impl Home {
    fn new(mail: mpsc::Sender<Mail>, thread: Option<mpsc::Receiver<Mail>>) -> Arc<Self> {
        Arc::new(Self {
            queue: CallbackQueue::new(),
            next: AtomicPtr::new(ptr::null_mut()),
            mail,
            waker: AtomicWaker::new(),
            drains: Drains::default(),
            thread: thread.map(|receiver| Start {
                started: AtomicBool::new(false),
                mail: Mutex::new(Some(receiver)),
            }),
        })
    }

    /// The home of threads that are no reactors.
    pub(crate) fn shared() -> Arc<Self> {
        let (sender, receiver) = mpsc::channel();
        Self::new(sender, Some(receiver))
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.thread.is_some()
    }

    /// Hands `mail` to the worker. Where its context has stopped, the shared home takes it over. Any
    /// thread; never blocks.
    pub(crate) fn send(&self, mail: Mail) {
        match self.mail.send(mail) {
            Ok(()) => {
                self.start_thread();
                self.waker.wake();
            }
            // The shared home's receiver is never dropped: this goes one level deep.
            Err(mpsc::SendError(mail)) => DOMAIN.shared.send(mail),
        }
    }

    /// Starts the shared home's thread at the first use. Where the system refuses, the mail stays and the
    /// next use tries again.
    fn start_thread(&self) {
        if let Some(start) = &self.thread
            && !start.started.load(Ordering::Relaxed)
        {
            start.start();
        }
    }
}

impl Start {
    #[cold]
    fn start(&self) {
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        if mail.is_none() {
            return;
        }
        let (hand_over, handed_over) = mpsc::channel();
        let body = move || {
            if let Ok(mail) = handed_over.recv() {
                worker::run_thread(&DOMAIN.shared, mail);
            }
        };
        match std::thread::Builder::new().name("rcu".into()).spawn(body) {
            Ok(_detached) => {
                if let Some(mail) = mail.take() {
                    // Its thread waits for this.
                    let _sent = hand_over.send(mail);
                }
                self.started.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::error!(%error, "the RCU thread cannot be started"),
        }
    }
}

/// A context and its home, as its thread remembers them.
pub(crate) struct Resident {
    context: reactor::Context,
    home: Arc<Home>,
}

/// Runs `f` with the home of the calling thread, making it where there is none yet.
pub(crate) fn with_home<R>(f: impl FnOnce(&Arc<Home>) -> R) -> R {
    let Some(context) = reactor::try_current() else { return f(&DOMAIN.shared) };
    // A destructor of a thread-local value may come here after RCU's own are gone.
    let home = with_local(|local| {
        let resident = local.resident().borrow();
        let here = resident.as_ref().filter(|resident| resident.context == context);
        here.map(|resident| Arc::clone(&resident.home))
    });
    match home {
        Some(Some(home)) => f(&home),
        Some(None) => f(&settle(&context)),
        None => f(&DOMAIN.shared),
    }
}

/// Makes a home for the current context and starts its worker.
#[cold]
fn settle(context: &reactor::Context) -> Arc<Home> {
    let (sender, receiver) = mpsc::channel();
    let home = Home::new(sender, None);
    let worker = context.spawn("rcu", worker::run_task(Arc::clone(&home), receiver));
    if worker.is_finished() {
        // The context is being torn down.
        return Arc::clone(&DOMAIN.shared);
    }
    worker.detach();
    let resident = Resident { context: context.clone(), home: Arc::clone(&home) };
    let before = with_local(|local| local.resident().replace(Some(resident)));
    drop(before);
    home
}

/// Forgets `home` on its thread: its worker has ended.
pub(crate) fn leave(home: &Arc<Home>) {
    let before = with_local(|local| {
        let mut resident = local.resident().borrow_mut();
        resident.take_if(|resident| Arc::ptr_eq(&resident.home, home))
    });
    drop(before);
}
