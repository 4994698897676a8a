//! Starting and stopping the contexts of a process.

use crate::context::{Context, Registry, Shared, StallHandler, TurnHook};
use crate::counters::CounterCells;
use crate::cpu;
use crate::local::{self, Local};
use crate::queue::Mpsc;
use crate::ring::{Ring, SetupError};
use crate::task::Owned;
use crate::turn::Loop;
use crate::wake::WakeState;
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

const MAIN: usize = 0;
const IOHANDLER: usize = 1;
const MONITOR: usize = 2;
const FIRST_CORE: usize = 3;

/// How to set up the contexts.
#[derive(Clone)]
pub struct Config {
    /// The host CPUs that get a core context each, pinned there. Not empty.
    pub cores: Vec<usize>,
    /// The longest time, in nanoseconds, that a core context polls before it sleeps. 0: never.
    pub poll_ns_max: u64,
    /// Submission queue entries of each ring (a power of two; 4 to 32768).
    pub ring_entries: u32,
    /// A task poll or bottom half that takes longer is reported.
    pub stall_limit: Duration,
    /// Called with each report, beside the log.
    pub on_stall: Option<StallHandler>,
    /// Run around each turn of each context.
    pub hooks: Vec<Arc<dyn TurnHook>>,
}

impl Config {
    /// A core context for each CPU that this process may use (`sched_getaffinity`).
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
    /// A ring became unusable while running.
    #[error("a context's ring failed: {0}")]
    Loop(#[source] io::Error),
    /// The root future panicked.
    #[error("the main task panicked")]
    RootPanicked,
}

/// The contexts of a running process. Clones are cheap.
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
/// dropped, operations cancelled, descriptors closed.
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
    let main_ring = make_ring(&reactors.contexts[MAIN], config.ring_entries)?;
    let threads = start_threads(&config, &reactors, &gate)?;
    // Everybody is there: nothing after this point can fail to start.
    let main = reactors.main().clone();
    let root = main.spawn("root", RootTask { registry: Arc::clone(&registry) }.run(root, reactors));
    let mut result = serve(main, main_ring, &gate);
    for thread in threads {
        let ended = thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of a context panicked")));
        result = result.and(ended);
    }
    sweep(&registry);
    let output = futures_now(root);
    result.map_err(StartError::Loop)?;
    output.ok_or(StartError::RootPanicked)
}

/// Drops what destructors have sent to contexts that had ended: they hold handles, which hold the registry.
fn sweep(registry: &Registry) {
    for shared in &registry.contexts {
        drop(shared.inject.take());
        for task in shared.tasks.all() {
            // A future bound to a thread that is gone stays where it is (`Task::drop`).
            if !task.is_local() {
                task.discard();
            }
        }
    }
}

/// Takes the output of a task that has finished; `None` where it has not, or panicked.
fn futures_now<T>(handle: crate::join::JoinHandle<T>) -> Option<T> {
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
    let services = ["main", "iohandler", "monitor"].map(|name| (name.to_owned(), None));
    let cores = config.cores.iter().enumerate().map(|(n, cpu)| (format!("core-{n}"), Some(*cpu)));
    let contexts = services
        .into_iter()
        .chain(cores)
        .map(|(name, cpu)| new_shared(name, cpu))
        .collect::<Result<Box<[Shared]>, StartError>>()?;
    Ok(Registry {
        contexts,
        stopping: AtomicBool::new(false),
        hooks: config.hooks.clone(),
        on_stall: config.on_stall.clone(),
        stall_limit: config.stall_limit,
        poll_ns_max: config.poll_ns_max,
    })
}

fn new_shared(name: String, cpu: Option<usize>) -> Result<Shared, StartError> {
    // SAFETY: eventfd(2) takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        let source = io::Error::last_os_error();
        return Err(StartError::Os { context: name, what: "no eventfd", source });
    }
    Ok(Shared {
        name,
        cpu,
        inject: Mpsc::new(),
        wake: WakeState::new(),
        ring_fd: AtomicI32::new(-1),
        // SAFETY: the descriptor was just made and is known to nobody else.
        eventfd: unsafe { OwnedFd::from_raw_fd(fd) },
        counters: CounterCells::new(),
        stopped: AtomicBool::new(false),
        tasks: Owned::new(),
    })
}

/// Where the contexts meet while stopping.
struct Gate {
    /// No loop runs any more: tasks can be dropped.
    stopped: Barrier,
    /// Every context has dropped its tasks: no message is sent any more.
    torn_down: Barrier,
}

fn make_ring(context: &Context, entries: u32) -> Result<Ring, StartError> {
    let ring = Ring::new(entries)
        .map_err(|source| StartError::Ring { context: context.name().to_owned(), source })?;
    context.shared().ring_fd.store(ring.as_raw_fd(), Ordering::Relaxed);
    Ok(ring)
}

type Thread = std::thread::JoinHandle<io::Result<()>>;

/// Starts every context but main. When one fails, those that wait are let go and nothing is left.
fn start_threads(
    config: &Config,
    reactors: &Reactors,
    gate: &Arc<Gate>,
) -> Result<Vec<Thread>, StartError> {
    let mut threads = Vec::new();
    let mut go = Vec::new();
    for context in &reactors.contexts[IOHANDLER..] {
        let (ready, is_ready) = mpsc::channel();
        let (start, may_start) = mpsc::channel::<()>();
        let (context, gate, entries) = (context.clone(), Arc::clone(gate), config.ring_entries);
        let name = context.name().to_owned();
        let body = move || {
            let ring = match pin(&context).and_then(|()| make_ring(&context, entries)) {
                Ok(ring) => ring,
                Err(error) => {
                    // The receiver waits for this very message.
                    let _gone = ready.send(Err(error));
                    return Ok(());
                }
            };
            let _gone = ready.send(Ok(()));
            drop(ready);
            match may_start.recv() {
                Ok(()) => serve(context, ring, &gate),
                Err(_another_failed) => Ok(()),
            }
        };
        let thread =
            std::thread::Builder::new().name(name.clone()).spawn(body).map_err(|source| {
                StartError::Os { context: name.clone(), what: "no thread", source }
            })?;
        threads.push(thread);
        is_ready.recv().unwrap_or_else(|_| {
            let source = io::Error::other("its thread ended early");
            Err(StartError::Os { context: name, what: "start", source })
        })?;
        go.push(start);
    }
    for start in go {
        // Each receiver is alive: its thread waits for this.
        let _gone = start.send(());
    }
    Ok(threads)
}

fn pin(context: &Context) -> Result<(), StartError> {
    let Some(cpu) = context.cpu() else { return Ok(()) };
    cpu::pin_current_thread(cpu).map_err(|source| StartError::Os {
        context: context.name().to_owned(),
        what: "the thread cannot be pinned to its CPU",
        source,
    })
}

/// A context's life on its thread, from the first turn to the closing of the ring.
fn serve(context: Context, ring: Ring, gate: &Gate) -> io::Result<()> {
    let local = Rc::new(Local::new(context, ring));
    let installed = local::install(&local);
    let mut turns = Loop::new(Rc::clone(&local));
    let result = turns.run();
    if let Err(error) = &result {
        tracing::error!(context = local.context.name(), %error, "the ring failed");
        stop(&local.context.registry);
    }
    gate.stopped.wait();
    local.shared().stopped.store(true, Ordering::Release);
    turns.tear_down();
    gate.torn_down.wait();
    drop(installed);
    result
}
