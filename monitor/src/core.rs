//! What all parts of one monitor share.

use crate::commands::schema::Introspection;
use crate::dispatch::Environment;
use crate::error::{ErrorClass, QmpError};
use crate::machine::Machine;
use crate::registry::{Command, Registry};
use crate::session::Session;
use crate::session::dispatcher::Dispatcher;
use crate::session::hub::Hub;
use devices::fdset::FdSets;
use devices::qdev::DeviceTree;
use reactor::Reactors;
use reactor::sync::{Mutex, Notify, oneshot};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// One monitor.
pub(crate) struct Core {
    pub(crate) reactors: Reactors,
    pub(crate) registry: Registry<Env>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) hub: Arc<Hub>,
    /// Held while a coroutine command runs, whether it came over QMP or HMP.
    pub(crate) coroutine_lane: Mutex<()>,
    pub(crate) machine: OnceLock<Arc<dyn Machine>>,
    pub(crate) machine_came: Notify,
    /// The machine waits for `x-exit-preconfig`.
    pub(crate) preconfig: AtomicBool,
    pub(crate) preconfig_ended: Notify,
    /// Answers `x-exit-preconfig` when it is dropped.
    pub(crate) leaving_preconfig: std::sync::Mutex<Option<oneshot::Sender<()>>>,
    pub(crate) fdsets: FdSets,
    /// Label and name of each socket that serves many clients.
    pub(crate) listening: std::sync::Mutex<Vec<(String, String)>>,
    /// Made when first asked for.
    pub(crate) schema: OnceLock<Introspection>,
}

impl Core {
    /// Waits until there is a machine. Any context.
    pub(crate) async fn machine_there(&self) {
        loop {
            let came = self.machine_came.notified();
            if self.machine.get().is_some() {
                return;
            }
            came.await;
        }
    }

    /// After the end of a session: the sets of descriptors go with the last one, unless the machine
    /// is still being put together, as in QEMU.
    pub(crate) fn forget_fdsets(&self) {
        let running = self.machine.get().is_some_and(|machine| machine.run_state().is_running());
        if running && self.hub.sessions().is_empty() {
            self.fdsets.clear();
        }
    }
}

/// What command handlers get besides their arguments.
#[derive(Clone)]
pub(crate) struct Env {
    pub(crate) core: Arc<Core>,
    /// The QMP session that asked; none for HMP.
    pub(crate) session: Option<Arc<Session>>,
}

impl Env {
    pub(crate) fn of_session(core: &Arc<Core>, session: &Arc<Session>) -> Self {
        Self { core: Arc::clone(core), session: Some(Arc::clone(session)) }
    }

    pub(crate) fn of_hmp(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), session: None }
    }

    /// The machine. Out-of-band commands may come before there is one.
    pub(crate) fn machine(&self) -> Result<&Arc<dyn Machine>, QmpError> {
        self.core
            .machine
            .get()
            .ok_or_else(|| QmpError::generic("The machine is not ready yet: try again"))
    }
}

impl Env {
    /// The devices of the machine.
    pub(crate) fn devices(&self) -> Result<&DeviceTree, QmpError> {
        let tree = self.machine()?.devices();
        tree.ok_or_else(|| QmpError::generic("This machine has no devices"))
    }
}

impl Environment for Env {
    /// The two modes of a session, negotiation and commands; and the two of the machine.
    fn admit(&self, name: &str, command: Option<&Command<Self>>) -> Result<(), QmpError> {
        const NEGOTIATION: &str = "qmp_capabilities";
        if let Some(session) = &self.session {
            let text = match (session.is_negotiated(), name == NEGOTIATION) {
                (false, false) => "Expecting capabilities negotiation with 'qmp_capabilities'",
                (true, true) => "Capabilities negotiation is already complete, command ignored",
                _ => "",
            };
            if !text.is_empty() {
                return Err(QmpError::new(ErrorClass::CommandNotFound, text));
            }
        }
        // Preconfig, or an out-of-band command before the machine is there.
        let early =
            self.core.machine.get().is_none() || self.core.preconfig.load(Ordering::Acquire);
        if early && command.is_some_and(|command| !command.allow_preconfig()) {
            let when = "is permitted only after machine initialization has completed";
            return Err(QmpError::generic(format!("The command '{name}' {when}")));
        }
        Ok(())
    }
}
