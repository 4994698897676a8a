//! What serves a home: a task on its context, or the thread `rcu` for the shared home. Both do the same
//! and differ in how they sleep.

use crate::domain::DOMAIN;
use crate::home::{self, Home, Mail};
use crate::leader::{Leadership, Step};
use crate::part::Part;
use futures_util::future::select;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Callbacks run between two looks at the clock.
const CHUNK: usize = 64;
/// Time for callbacks before others in the context get their turn.
const BUDGET: Duration = Duration::from_micros(200);
/// The same while more callbacks are pending than the bound allows.
const BUDGET_CROWDED: Duration = Duration::from_millis(2);

/// What to do next.
enum Next {
    Again,
    Wait(Option<Instant>),
}

/// Dropped with its context, it leaves everything to the shared home (see `Part` and `Leadership`).
struct Worker {
    home: Arc<Home>,
    mail: mpsc::Receiver<Mail>,
    leadership: Option<Leadership>,
    parts: VecDeque<Part>,
}

impl Worker {
    fn new(home: Arc<Home>, mail: mpsc::Receiver<Mail>) -> Self {
        Self { home, mail, leadership: None, parts: VecDeque::new() }
    }

    /// Does what there is to do, up to a bound.
    fn turn(&mut self, waker: &Waker) -> Next {
        // Before the mail is looked at: mail that comes later wakes.
        self.home.waker.register(waker);
        while let Ok(mail) = self.mail.try_recv() {
            match mail {
                Mail::Lead(leadership) => self.leadership = Some(leadership),
                Mail::Run(part) => self.parts.push_back(part),
            }
        }
        let next = self.lead(waker);
        self.run_callbacks();
        if self.parts.is_empty() { next } else { Next::Again }
    }

    fn run_callbacks(&mut self) {
        if self.parts.is_empty() {
            return;
        }
        let budget = if DOMAIN.is_crowded() { BUDGET_CROWDED } else { BUDGET };
        let until = Instant::now() + budget;
        while let Some(part) = self.parts.front_mut() {
            if part.run(CHUNK) {
                self.parts.pop_front();
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    fn lead(&mut self, waker: &Waker) -> Next {
        let Some(mut leadership) = self.leadership.take() else { return Next::Wait(None) };
        match leadership.step(&self.home, waker) {
            Step::Passed(mine) => {
                self.parts.extend(mine);
                self.leadership = leadership.go_on(&self.home);
                if self.leadership.is_some() { Next::Again } else { Next::Wait(None) }
            }
            Step::Again => {
                self.leadership = Some(leadership);
                Next::Again
            }
            Step::Wait(at) => {
                self.leadership = Some(leadership);
                Next::Wait(Some(at))
            }
        }
    }
}

/// Pending until the task is woken, by whatever.
#[derive(Default)]
struct Park {
    parked: bool,
}

impl Future for Park {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.parked, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Takes the home out of its thread's memory when the worker ends.
struct Residence(Arc<Home>);

impl Drop for Residence {
    fn drop(&mut self) {
        home::leave(&self.0);
        self.0.drains.context_gone();
    }
}

/// Serves a context's home until the context stops.
pub(crate) async fn run_task(home: Arc<Home>, mail: mpsc::Receiver<Mail>) {
    let _residence = Residence(Arc::clone(&home));
    let mut worker = Worker::new(home, mail);
    loop {
        let next = poll_fn(|cx| Poll::Ready(worker.turn(cx.waker()))).await;
        match next {
            Next::Again => reactor::yield_now().await,
            Next::Wait(None) => Park::default().await,
            Next::Wait(Some(at)) => {
                select(Park::default(), pin!(reactor::sleep_until(at))).await;
            }
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker that unparks the calling thread.
pub(crate) fn unpark_waker() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

thread_local! {
    static IS_RCU_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is the one that serves the shared home.
pub(crate) fn is_current_thread() -> bool {
    IS_RCU_THREAD.get()
}

/// The thread was started by whichever came first, a pinned core or a vCPU perhaps: it takes the main thread's CPUs
/// instead of that one's, and no signals.
fn leave_the_starter() {
    // SAFETY: the sets are valid for the calls, which fill or read them and keep nothing; an all-zero CPU set is a
    // valid empty one. Where a call fails, the thread stays as it was started.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut signals);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const signals, std::ptr::null_mut());
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(libc::getpid(), size_of_val(&cpus), &raw mut cpus) == 0 {
            libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus);
        }
    }
}

/// Serves the shared home for the rest of the process's life.
pub(crate) fn run_thread(home: &Arc<Home>, mail: mpsc::Receiver<Mail>) {
    IS_RCU_THREAD.set(true);
    leave_the_starter();
    let waker = unpark_waker();
    let mut worker = Worker::new(Arc::clone(home), mail);
    loop {
        match worker.turn(&waker) {
            Next::Again => std::thread::yield_now(),
            Next::Wait(None) => std::thread::park(),
            Next::Wait(Some(at)) => {
                std::thread::park_timeout(at.saturating_duration_since(Instant::now()));
            }
        }
    }
}
