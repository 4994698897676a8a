//! What is done when the guest reboots, shuts down, panics, or a watchdog expires.

use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{Command, Registry};
use crate::{qapi_enum, qapi_struct};
use std::sync::{Mutex, PoisonError};

qapi_enum! {
    /// What is done when the guest reboots.
    pub enum RebootAction {
        /// The machine is reset.
        Reset = "reset",
        /// The machine is shut down, as `ShutdownAction` says.
        Shutdown = "shutdown",
    }
}

qapi_enum! {
    /// What is done when the guest shuts down.
    pub enum ShutdownAction {
        /// This program ends.
        Poweroff = "poweroff",
        /// The machine is stopped and stays.
        Pause = "pause",
    }
}

qapi_enum! {
    /// What is done when the guest panics.
    pub enum PanicAction {
        /// The machine is stopped and stays.
        Pause = "pause",
        /// The machine is shut down, as `ShutdownAction` says.
        Shutdown = "shutdown",
        /// This program ends with a status that says so.
        ExitFailure = "exit-failure",
        /// The guest goes on, as far as it can.
        None = "none",
    }
}

qapi_enum! {
    /// What is done when a watchdog expires.
    pub enum WatchdogAction {
        /// The machine is reset.
        Reset = "reset",
        /// The power button is pressed.
        Shutdown = "shutdown",
        /// This program ends.
        Poweroff = "poweroff",
        /// The machine is stopped and stays.
        Pause = "pause",
        /// A line is logged.
        Debug = "debug",
        /// Nothing.
        None = "none",
        /// Every vCPU gets a non-maskable interrupt.
        InjectNmi = "inject-nmi",
    }
}

qapi_struct! {
    /// What to change; the others stay.
    pub struct SetAction {
        /// When the guest reboots.
        pub reboot: Option<RebootAction> = "reboot",
        /// When the guest shuts down.
        pub shutdown: Option<ShutdownAction> = "shutdown",
        /// When the guest panics.
        pub panic: Option<PanicAction> = "panic",
        /// When a watchdog expires.
        pub watchdog: Option<WatchdogAction> = "watchdog",
    }
}

/// What is done in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionSet {
    /// When the guest reboots.
    pub reboot: RebootAction,
    /// When the guest shuts down.
    pub shutdown: ShutdownAction,
    /// When the guest panics.
    pub panic: PanicAction,
    /// When a watchdog expires.
    pub watchdog: WatchdogAction,
}

impl Default for ActionSet {
    /// As QEMU without options.
    fn default() -> Self {
        Self {
            reboot: RebootAction::Reset,
            shutdown: ShutdownAction::Poweroff,
            panic: PanicAction::Shutdown,
            watchdog: WatchdogAction::Reset,
        }
    }
}

impl ActionSet {
    /// Changes what `changes` names.
    pub fn apply(&mut self, changes: &SetAction) {
        self.reboot = changes.reboot.unwrap_or(self.reboot);
        self.shutdown = changes.shutdown.unwrap_or(self.shutdown);
        self.panic = changes.panic.unwrap_or(self.panic);
        self.watchdog = changes.watchdog.unwrap_or(self.watchdog);
    }
}

/// The actions of a machine. Any thread; the lock is held for moments only.
#[derive(Debug, Default)]
pub struct Actions(Mutex<ActionSet>);

impl Actions {
    /// Begins with these.
    pub fn new(actions: ActionSet) -> Self {
        Self(Mutex::new(actions))
    }

    /// Those of this moment.
    pub fn get(&self) -> ActionSet {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what `changes` names.
    pub fn apply(&self, changes: &SetAction) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply(changes);
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let set = Command::plain(
        "set-action",
        "Says what is done when the guest reboots, shuts down or panics, or a watchdog expires.",
        |env: &Env, changes: SetAction| set_action(env, &changes),
    );
    registry.add(set.allow_preconfig());
}

fn set_action(env: &Env, changes: &SetAction) -> Result<(), QmpError> {
    env.machine()?.actions().apply(changes);
    Ok(())
}
