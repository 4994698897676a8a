//! Starting and stopping the contexts of a process.

use crate::context::{Context, Registry, StallHandler, TurnHook};
use crate::cpu;
use crate::guard;
use crate::local::{self, Local};
use crate::mailbox::Shared;
use crate::ring::{Ring, SetupError};
use crate::turn::Loop;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

const MAIN: usize = 0;
const IOHANDLER: usize = 1;
const MONITOR: usize = 2;
const FIRST_CORE: usize = 3;
/// Submission queue entries of the contexts that are not cores: two pages for the whole ring.
const SERVICE_RING_ENTRIES: u32 = 32;

/// How to set up the contexts.
#[derive(Clone)]
pub struct Config {
    /// The host CPUs that get a core context each, pinned there. Not empty.
    pub cores: Vec<usize>,
    /// The longest time, in nanoseconds, that a core context polls before it sleeps. 0: never.
    pub poll_ns_max: u64,
    /// Submission queue entries of each core's ring; made a power of two from 4 to 32768. The other
    /// contexts have 32 at most. What does not fit waits in memory: a small ring costs system calls, not
    /// operations.
    pub ring_entries: u32,
    /// A task poll or bottom half that takes longer is reported.
    pub stall_limit: Duration,
    /// Called with each report, beside the log.
    pub on_stall: Option<StallHandler>,
    /// Run around each turn of each context.
    pub hooks: Vec<Arc<dyn TurnHook>>,
    /// What the kernel answers, by context.
    #[cfg(test)]
    pub(crate) faults: Option<crate::ring::faults::Scripts>,
}

impl Config {
    /// A core context for each CPU that this process may use. Errors: those of sched_getaffinity(2).
    pub fn from_affinity() -> io::Result<Self> {
        Ok(Self::with_cores(cpu::allowed()?))
    }

    /// Core contexts on the given host CPUs.
    pub fn with_cores(cores: Vec<usize>) -> Self {
        Self {
            cores,
            poll_ns_max: 0,
            ring_entries: 128,
            stall_limit: Duration::from_millis(10),
            on_stall: None,
            hooks: Vec::new(),
            #[cfg(test)]
            faults: None,
        }
    }
}

/// Why the contexts could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `Config::cores` is empty.
    #[error("no CPU is given for the core contexts: name one at least")]
    NoCores,
    /// The ring of a context could not be made.
    #[error("{context}: {source}")]
    Ring {
        /// The context.
        context: String,
        /// The reason.
        source: SetupError,
    },
    /// A thread, a descriptor or the pinning was refused.
    #[error("{context}: {what}: {source}")]
    Os {
        /// The context.
        context: String,
        /// What was tried.
        what: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// A ring became unusable while running, or a [`TurnHook`] panicked: every context was stopped.
    #[error("a context failed while it ran: {0}")]
    Loop(#[source] io::Error),
    /// The root future panicked.
    #[error("the main task panicked")]
    RootPanicked,
}

/// The contexts of a running process. Clones are cheap and may go to any thread; no function blocks.
#[derive(Clone)]
pub struct Reactors {
    contexts: Arc<[Context]>,
}

impl Reactors {
    /// Coroutine commands, device tree and block graph writers, run state.
    pub fn main(&self) -> &Context {
        &self.contexts[MAIN]
    }

    /// The QMP dispatcher, character devices, control descriptors.
    pub fn iohandler(&self) -> &Context {
        &self.contexts[IOHANDLER]
    }

    /// Management sockets and out-of-band commands.
    pub fn monitor(&self) -> &Context {
        &self.contexts[MONITOR]
    }

    /// The pinned contexts, one a CPU. Never empty.
    pub fn cores(&self) -> &[Context] {
        &self.contexts[FIRST_CORE..]
    }

    /// The core context `n`, counted round.
    pub fn core(&self, n: usize) -> &Context {
        let cores = self.cores();
        &cores[n % cores.len()]
    }

    /// Every context.
    pub fn all(&self) -> &[Context] {
        &self.contexts
    }
}

/// Starts the contexts and runs `root`'s future in `main`, whose loop takes over the calling
/// thread. Returns the future's output once every context has stopped: tasks that are left are
/// dropped, operations cancelled, descriptors closed. Blocks for that long; errors: [`StartError`].
///
/// # Panics
/// On a thread that runs a reactor already: loops are never nested.
#[expect(clippy::needless_pass_by_value, reason = "a configuration is used once")]
pub fn run<F, Fut, T>(config: Config, root: F) -> Result<T, StartError>
where
    F: FnOnce(Reactors) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    assert!(!local::on_reactor(), "a reactor cannot be run inside a reactor");
    if config.cores.is_empty() {
        return Err(StartError::NoCores);
    }
    let registry = Arc::new(new_registry(&config)?);
    let contexts: Arc<[Context]> = (0..registry.contexts.len())
        .map(|index| Context { registry: Arc::clone(&registry), index })
        .collect();
    let reactors = Reactors { contexts };
    let gate = Arc::new(Gate {
        stopped: Barrier::new(registry.contexts.len()),
        torn_down: Barrier::new(registry.contexts.len()),
    });
    let main_ring = make_ring(&reactors.contexts[MAIN], &config)?;
    let threads = start_threads(&config, &reactors, &gate)?;
    // Everybody is there: nothing after this point can fail to start.
    let main = reactors.main().clone();
    let root = main.spawn("root", RootTask { registry: Arc::clone(&registry) }.run(root, reactors));
    let mut result = serve(main, main_ring, &gate);
    for thread in threads {
        result = result.and(join(thread));
    }
    sweep(&registry);
    let output = output_of(root);
    result.map_err(StartError::Loop)?;
    output.ok_or(StartError::RootPanicked)
}

/// Drops what destructors have sent to contexts that had ended: they hold handles, which hold the
/// registry. What is sent from now on is dropped by its sender.
fn sweep(registry: &Registry) {
    for shared in &registry.contexts {
        shared.close();
        for task in shared.tasks.all() {
            // A future bound to a thread that is gone stays where it is (`Cell::drop`).
            if !task.header().local {
                task.discard();
            }
        }
    }
}

/// Takes the output of a task that has finished; `None` where it has not, or panicked.
fn output_of<T>(handle: crate::join::JoinHandle<T>) -> Option<T> {
    let mut handle = std::pin::pin!(handle);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match handle.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(Ok(output)) => Some(output),
        _ => None,
    }
}

/// Stops the runtime when the root future ends, also by a panic.
struct RootTask {
    registry: Arc<Registry>,
}

impl RootTask {
    async fn run<F, Fut, T>(self, root: F, reactors: Reactors) -> T
    where
        F: FnOnce(Reactors) -> Fut,
        Fut: Future<Output = T>,
    {
        root(reactors).await
    }
}

impl Drop for RootTask {
    fn drop(&mut self) {
        stop(&self.registry);
    }
}

fn stop(registry: &Arc<Registry>) {
    // SeqCst: pairs with the load between `prepare_sleep` and sleeping.
    registry.stopping.store(true, Ordering::SeqCst);
    for shared in &registry.contexts {
        // Past the coalescing: it must arrive whatever else is on its way.
        shared.signal_eventfd();
    }
}

fn new_registry(config: &Config) -> Result<Registry, StartError> {
    static RUNTIMES: AtomicU64 = AtomicU64::new(0);
    let runtime = RUNTIMES.fetch_add(1, Ordering::Relaxed);
    let services = ["main", "iohandler", "monitor"].map(|name| (name.to_owned(), None));
    let cores = config.cores.iter().enumerate().map(|(n, cpu)| (format!("core-{n}"), Some(*cpu)));
    let contexts = services
        .into_iter()
        .chain(cores)
        .enumerate()
        .map(|(index, (name, cpu))| {
            Shared::new(name.clone(), index, runtime, cpu)
                .map(Arc::new)
                .map_err(|source| StartError::Os { context: name, what: "no eventfd", source })
        })
        .collect::<Result<Box<[Arc<Shared>]>, StartError>>()?;
    Ok(Registry {
        contexts,
        stopping: AtomicBool::new(false),
        hooks: config.hooks.clone(),
        on_stall: config.on_stall.clone(),
        stall_limit: config.stall_limit,
        poll_ns_max: config.poll_ns_max,
    })
}

/// Where the contexts meet while stopping.
struct Gate {
    /// No loop runs any more: tasks can be dropped.
    stopped: Barrier,
    /// Every context has dropped its tasks: no message is sent any more.
    torn_down: Barrier,
}

fn make_ring(context: &Context, config: &Config) -> Result<Ring, StartError> {
    // The service contexts do little at a time: pages for each of many virtual machines add up.
    let entries = if context.cpu().is_some() {
        config.ring_entries
    } else {
        config.ring_entries.min(SERVICE_RING_ENTRIES)
    };
    let ring = Ring::new(entries)
        .map_err(|source| StartError::Ring { context: context.name().to_owned(), source })?;
    context.shared().ring_fd.store(ring.as_raw_fd(), Ordering::Relaxed);
    #[cfg(test)]
    let ring = {
        let mut ring = ring;
        let script = config.faults.as_ref().map(|faults| faults(context.name()));
        ring.faults = script.map(crate::ring::faults::Plan::new);
        ring
    };
    Ok(ring)
}

type Thread = std::thread::JoinHandle<io::Result<()>>;

fn join(thread: Thread) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread of a context panicked")))
}

/// Threads of contexts that are ready and wait to be let go.
#[derive(Default)]
struct Waiting {
    threads: Vec<Thread>,
    go: Vec<mpsc::Sender<()>>,
}

impl Waiting {
    fn start(self) -> Vec<Thread> {
        for start in self.go {
            // Each receiver is alive: its thread waits for this.
            let _gone = start.send(());
        }
        self.threads
    }

    /// Another context could not be started: these end, and leave nothing.
    fn dismiss(self) {
        drop(self.go);
        for thread in self.threads {
            let _nothing_has_run = join(thread);
        }
    }
}

/// Starts every context but main, all at the same time. When one fails, none is left.
fn start_threads(
    config: &Config,
    reactors: &Reactors,
    gate: &Arc<Gate>,
) -> Result<Vec<Thread>, StartError> {
    let mut waiting = Waiting::default();
    let (ready, is_ready) = mpsc::channel();
    let contexts = &reactors.contexts[IOHANDLER..];
    let started = contexts
        .iter()
        .try_for_each(|context| start_thread(config, context, gate, &ready, &mut waiting));
    // Now a thread that ends without a word ends the wait for it.
    drop(ready);
    let silent = || {
        let source = io::Error::other("a thread ended early");
        Err(StartError::Os { context: "a context".to_owned(), what: "start", source })
    };
    let all_ready = started.and_then(|()| {
        contexts.iter().try_for_each(|_| is_ready.recv().unwrap_or_else(|_| silent()))
    });
    match all_ready {
        Ok(()) => Ok(waiting.start()),
        Err(error) => {
            waiting.dismiss();
            Err(error)
        }
    }
}

/// Starts a thread that makes a context's ring, says so, and waits to be let go.
fn start_thread(
    config: &Config,
    context: &Context,
    gate: &Arc<Gate>,
    ready: &mpsc::Sender<Result<(), StartError>>,
    waiting: &mut Waiting,
) -> Result<(), StartError> {
    let (start, may_start) = mpsc::channel::<()>();
    let (config, gate, name) = (config.clone(), Arc::clone(gate), context.name().to_owned());
    let (context, ready) = (context.clone(), ready.clone());
    let body = move || {
        let made = pin(&context).and_then(|()| make_ring(&context, &config));
        drop(config);
        let (ring, said) = match made {
            Ok(ring) => (Some(ring), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // The receiver is gone when another context has failed.
        let _gone = ready.send(said);
        drop(ready);
        match (ring, may_start.recv()) {
            (Some(ring), Ok(())) => serve(context, ring, &gate),
            (None, _) | (_, Err(_)) => Ok(()),
        }
    };
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(body)
        .map_err(|source| StartError::Os { context: name, what: "no thread", source })?;
    waiting.threads.push(thread);
    waiting.go.push(start);
    Ok(())
}

fn pin(context: &Context) -> Result<(), StartError> {
    let Some(cpu) = context.cpu() else { return Ok(()) };
    cpu::pin_current_thread(cpu).map_err(|source| StartError::Os {
        context: context.name().to_owned(),
        what: "the thread cannot be pinned to its CPU",
        source,
    })
}

/// Calls `f`, whose panic becomes an error: the other contexts wait for this one at the gate.
fn contained(context: &str, f: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let message = format!("{context} panicked: {}", guard::message(&*payload));
        guard::discard(payload);
        Err(io::Error::other(message))
    })
}

/// A context's life on its thread, from the first turn to the closing of the ring.
fn serve(context: Context, ring: Ring, gate: &Gate) -> io::Result<()> {
    let local = Rc::new(Local::new(context, ring));
    let installed = local::install(&local);
    let mut turns = Loop::new(Rc::clone(&local));
    let name = local.shared.name.as_str();
    let result = contained(name, || turns.run());
    if let Err(error) = &result {
        tracing::error!(context = name, %error, "the loop failed");
        stop(&local.context.registry);
    }
    gate.stopped.wait();
    local.shared.stopped.store(true, Ordering::Release);
    let torn_down = contained(name, || {
        turns.tear_down();
        Ok(())
    });
    if torn_down.is_err() {
        // What is in flight has not been waited for.
        local::leak_ops(&local);
    }
    drop(turns);
    gate.torn_down.wait();
    drop(installed);
    result.and(torn_down)
}
