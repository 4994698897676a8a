//! Running, stopping, resetting and ending the machine. The run state belongs to main, so these
//! are coroutine commands.

use crate::core::Env;
use crate::error::QmpError;
use crate::machine::RunState;
use crate::registry::{Command, Registry};
use reactor::sync::oneshot;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::coroutine("stop", "Stops all vCPUs.", stop));
    registry.add(Command::coroutine("cont", "Lets all vCPUs run.", cont));
    registry.add(Command::coroutine("system_reset", "Resets the machine.", system_reset));
    registry.add(Command::coroutine(
        "system_powerdown",
        "Presses the power button; what the guest makes of it is its own affair.",
        system_powerdown,
    ));
    registry.add(Command::coroutine(
        "system_wakeup",
        "Wakes the guest up from a suspended state.",
        system_wakeup,
    ));
    let exit_preconfig = Command::coroutine(
        "x-exit-preconfig",
        "Ends the state before the machine is configured (-preconfig).",
        x_exit_preconfig,
    );
    registry.add(exit_preconfig.allow_preconfig().features(&["unstable"]));
    let quit = Command::coroutine("quit", "Ends this program.", quit);
    registry.add(quit.allow_preconfig());
}

pub(crate) async fn stop(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.stop().await
}

pub(crate) async fn cont(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.cont().await
}

pub(crate) async fn system_reset(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.system_reset().await
}

pub(crate) async fn system_powerdown(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.system_powerdown().await
}

pub(crate) async fn system_wakeup(env: Env, (): ()) -> Result<(), QmpError> {
    let machine = env.machine()?;
    if !machine.can_wake_up() {
        return Err(QmpError::generic("wake-up from suspend is not supported by this guest"));
    }
    if machine.run_state() != RunState::Suspended {
        return Err(QmpError::generic("Unable to wake up: guest is not in suspended state"));
    }
    machine.system_wakeup().await
}

pub(crate) async fn x_exit_preconfig(env: Env, (): ()) -> Result<(), QmpError> {
    let (answer, machine_is_there) = oneshot::channel();
    {
        let leaving = &env.core.leaving_preconfig;
        let mut leaving = leaving.lock().unwrap_or_else(PoisonError::into_inner);
        if !env.core.preconfig.swap(false, Ordering::AcqRel) {
            let text = "The command is permitted only before machine initialization";
            return Err(QmpError::generic(text));
        }
        *leaving = Some(answer);
    }
    env.core.preconfig_ended.notify_all();
    // It is dropped, not sent.
    let _ended = machine_is_there.await;
    Ok(())
}

pub(crate) async fn quit(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.quit().await
}
