//! The monitor as the program sees it.

use crate::commands;
use crate::core::{Core, Env};
use crate::hmp::{Echo, HmpSession};
use crate::machine::Machine;
use crate::registry::Registry;
use crate::session::dispatcher::{self, Dispatcher};
use crate::session::endpoint::Endpoint;
use crate::session::hub::{EventSink, Hub};
use crate::session::serve::serve;
use crate::wire::Style;
use devices::chardev::listener::{self, ListenError, Listening};
use devices::chardev::{Address, AllowList, FrontEnd, Peer, admits};
use devices::fdset::FdSets;
use reactor::sync::{Notify, oneshot};
use reactor::{CancelOnDrop, Fd, Reactors, io, sleep, timeout};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What is served on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Qmp(Style),
    Hmp,
}

/// A monitor: its sockets, its sessions and its commands. Dropping it closes the sockets and
/// removes their files; connections end with the reactors.
pub struct Monitor {
    core: Arc<Core>,
    servers: Mutex<Vec<Server>>,
    /// The tasks that serve character devices.
    on_chardevs: Mutex<Vec<CancelOnDrop<()>>>,
}

/// What a socket is for.
struct Served {
    protocol: Protocol,
    address: Address,
    allow: AllowList,
}

/// A listening socket and the task that accepts on it.
struct Server {
    _accepting: CancelOnDrop<()>,
    first_client: Option<Arc<FirstClient>>,
    _listening: Listening,
}

/// For `wait=on`.
#[derive(Default)]
struct FirstClient {
    came: AtomicBool,
    notify: Notify,
}

/// An `x-exit-preconfig` that has not been answered yet.
#[must_use = "dropping it answers the command"]
pub struct LeavingPreconfig {
    _answer: Option<oneshot::Sender<()>>,
}

impl Monitor {
    /// A monitor on the given contexts. Nothing runs yet; events may already be emitted.
    pub fn new(reactors: &Reactors) -> Self {
        Self::with_fdsets(reactors, FdSets::default())
    }

    /// The same; `fdsets` are the sets that its clients put descriptors into.
    pub fn with_fdsets(reactors: &Reactors, fdsets: FdSets) -> Self {
        Self::with_registry(reactors, fdsets, commands::registry())
    }

    pub(crate) fn with_registry(
        reactors: &Reactors,
        fdsets: FdSets,
        registry: Registry<Env>,
    ) -> Self {
        let core = Core {
            registry,
            dispatcher: Dispatcher::default(),
            hub: Hub::new(reactors.monitor()),
            coroutine_lane: reactor::sync::Mutex::new(()),
            machine: OnceLock::new(),
            machine_came: Notify::new(),
            preconfig: AtomicBool::new(false),
            preconfig_ended: Notify::new(),
            leaving_preconfig: Mutex::default(),
            fdsets,
            listening: Mutex::default(),
            schema: OnceLock::new(),
            reactors: reactors.clone(),
        };
        Self { core: Arc::new(core), servers: Mutex::default(), on_chardevs: Mutex::default() }
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Where the machine's events go in.
    pub fn events(&self) -> EventSink {
        EventSink(Arc::clone(&self.core.hub))
    }

    /// Serves QMP at `endpoint`. Clients are accepted and greeted from now on; their in-band
    /// commands wait for [`start`](Self::start). Gives the address; a TCP port 0 has become the one
    /// that was assigned. Blocks for the time of a few system calls.
    pub fn listen_qmp(&self, endpoint: &Endpoint, style: Style) -> Result<Address, ListenError> {
        self.listen(endpoint, Protocol::Qmp(style))
    }

    /// Serves HMP at `endpoint`; otherwise as [`listen_qmp`](Self::listen_qmp): what is typed before
    /// [`start`](Self::start) waits for it.
    pub fn listen_hmp(&self, endpoint: &Endpoint) -> Result<Address, ListenError> {
        self.listen(endpoint, Protocol::Hmp)
    }

    fn listen(&self, endpoint: &Endpoint, protocol: Protocol) -> Result<Address, ListenError> {
        let listening = listener::open(&endpoint.address)?;
        let address = listening.address.clone();
        if let Some(label) = &endpoint.label {
            let listed = (label.clone(), format!("{address},server=on"));
            self.core.listening.lock().unwrap_or_else(PoisonError::into_inner).push(listed);
        }
        let served = Served { protocol, address: address.clone(), allow: endpoint.allow.clone() };
        let first_client = endpoint.wait.then(Arc::<FirstClient>::default);
        let accepting =
            accept(Arc::clone(&self.core), listening.fd.clone(), served, first_client.clone());
        let monitor = self.core.reactors.monitor();
        let server = Server {
            _accepting: CancelOnDrop::new(monitor.spawn("monitor-accept", accepting)),
            first_client,
            _listening: listening,
        };
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        Ok(address)
    }

    /// Serves QMP on a character device: one client after the other. Any thread.
    pub fn serve_qmp(&self, frontend: FrontEnd, style: Style) {
        let core = Arc::clone(&self.core);
        self.serve_chardev("qmp-chardev", async move {
            loop {
                match frontend.connection().await.into_socket() {
                    Ok((fd, peer, held)) => {
                        serve(Arc::clone(&core), fd, peer, style).await;
                        drop(held);
                    }
                    Err(error) => tracing::warn!(%error, "a monitor client cannot be served"),
                }
            }
        });
    }

    /// Serves HMP on a character device: one client after the other. Any thread.
    pub fn serve_hmp(&self, frontend: FrontEnd) {
        let core = Arc::clone(&self.core);
        self.serve_chardev("hmp-chardev", async move {
            loop {
                let connection = frontend.connection().await;
                let terminal = std::io::IsTerminal::is_terminal(&connection.output.as_fd());
                let echo = if terminal { Echo::On } else { Echo::Off };
                let (input, output) = (connection.input.as_ref(), &connection.output);
                HmpSession::new(Arc::clone(&core), echo).serve(input, output).await;
            }
        });
    }

    fn serve_chardev(
        &self,
        name: &'static str,
        serving: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = CancelOnDrop::new(self.core.reactors.monitor().spawn(name, serving));
        self.on_chardevs.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Waits until each socket with `wait=on` has had a client.
    pub async fn wait_for_clients(&self) {
        let waiting: Vec<_> = {
            let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            servers.iter().filter_map(|server| server.first_client.clone()).collect()
        };
        for client in waiting {
            while !client.came.load(Ordering::Acquire) {
                client.notify.notified().await;
            }
        }
    }

    /// The machine is there: commands are executed from now on. Any thread; once.
    ///
    /// # Panics
    /// When called a second time: a mistake in the program.
    pub fn start(&self, machine: Arc<dyn Machine>) {
        assert!(self.core.machine.set(machine).is_ok(), "a monitor is started once");
        self.core.machine_came.notify_all();
        let dispatcher = dispatcher::monitor_qmp_dispatch(Arc::clone(&self.core));
        self.core.reactors.iohandler().spawn("qmp-dispatcher", dispatcher).detach();
    }

    /// As [`start`](Self::start), but until `x-exit-preconfig` only commands that allow it are
    /// executed, and the machine must not run.
    ///
    /// # Panics
    /// When the monitor was started before: a mistake in the program.
    pub fn start_preconfig(&self, machine: Arc<dyn Machine>) {
        self.core.preconfig.store(true, Ordering::Release);
        self.start(machine);
    }

    /// Waits until the machine may run: after [`start_preconfig`](Self::start_preconfig) for
    /// `x-exit-preconfig`, else not at all. The command is answered when what is returned is
    /// dropped: its client finds the machine as it shall be.
    pub async fn preconfig_ended(&self) -> LeavingPreconfig {
        loop {
            let ended = self.core.preconfig_ended.notified();
            if !self.core.preconfig.load(Ordering::Acquire) {
                let leaving = &self.core.leaving_preconfig;
                let mut leaving = leaving.lock().unwrap_or_else(PoisonError::into_inner);
                return LeavingPreconfig { _answer: leaving.take() };
            }
            ended.await;
        }
    }

    /// An HMP session without a socket, for a terminal or a character device.
    pub fn hmp_session(&self, echo: Echo) -> HmpSession {
        HmpSession::new(Arc::clone(&self.core), echo)
    }

    /// The end: accepts nobody, starts no command, waits up to `limit` until the running ones have
    /// ended and everything is sent, then closes all QMP sessions. The socket files are gone when
    /// it begins to wait.
    pub async fn shutdown(&self, limit: Duration) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let core = Arc::clone(&self.core);
        let settle = async {
            core.dispatcher.close().await;
            let hub = Arc::clone(&core.hub);
            // Behind the events on their way: bottom halves run before tasks.
            let flush = core.reactors.monitor().spawn("monitor-settle", async move {
                for session in hub.sessions() {
                    session.drained().await;
                }
            });
            // It fails only when the context has ended.
            let _ = flush.await;
        };
        if timeout(limit, settle).await.is_err() {
            tracing::warn!("monitor clients did not read everything before the end");
        }
        for session in self.core.hub.sessions() {
            session.close();
        }
        // Not before: what they serve was to be sent.
        self.on_chardevs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Accepts clients for ever. In the monitor context.
async fn accept(
    core: Arc<Core>,
    listening: Fd,
    served: Served,
    first_client: Option<Arc<FirstClient>>,
) {
    /// After an error that time may cure, such as no free descriptor.
    const PAUSE: Duration = Duration::from_millis(100);
    let monitor = core.reactors.monitor().clone();
    let address = served.address.to_string();
    loop {
        let fd = match io::accept(&listening).await {
            Ok(fd) => fd,
            Err(error) if listener::is_of_the_client(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "a monitor client cannot be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let peer = Peer::of(&fd);
        if !admits(&served.allow, peer, &address) {
            continue;
        }
        if let Some(first) = &first_client {
            first.came.store(true, Ordering::Release);
            first.notify.notify_one();
        }
        match served.protocol {
            Protocol::Qmp(style) => {
                send_small_packets_at_once(&fd);
                monitor.spawn("qmp-session", serve(Arc::clone(&core), fd, peer, style)).detach();
            }
            Protocol::Hmp => {
                let session = HmpSession::new(Arc::clone(&core), Echo::Off);
                let serving = async move { session.serve(Some(&fd), &fd).await };
                monitor.spawn("hmp-session", serving).detach();
            }
        }
    }
}

/// Turns Nagle's algorithm off where there is one: a UNIX socket refuses, which is fine.
fn send_small_packets_at_once(fd: &Fd) {
    let _ = nix::sys::socket::setsockopt(&fd.as_fd(), nix::sys::socket::sockopt::TcpNoDelay, &true);
}
