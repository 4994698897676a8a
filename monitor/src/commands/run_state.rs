//! Running, stopping, resetting and ending the machine. The run state belongs to main, so these
//! are coroutine commands.

use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{Command, Registry};

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::coroutine("stop", "Stops all vCPUs.", stop));
    registry.add(Command::coroutine("cont", "Lets all vCPUs run.", cont));
    registry.add(Command::coroutine("system_reset", "Resets the machine.", system_reset));
    registry.add(Command::coroutine(
        "system_powerdown",
        "Presses the power button; what the guest makes of it is its own affair.",
        system_powerdown,
    ));
    let quit = Command::coroutine("quit", "Ends this program.", quit);
    registry.add(quit.allow_preconfig());
}

pub(crate) async fn stop(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.stop().await
}

pub(crate) async fn cont(env: Env, (): ()) -> Result<(), QmpError> {
    let machine = env.machine()?;
    if machine.run_state().needs_reset() {
        return Err(QmpError::generic("Resetting the Virtual Machine is required"));
    }
    machine.cont().await
}

pub(crate) async fn system_reset(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.system_reset().await
}

pub(crate) async fn system_powerdown(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.system_powerdown().await
}

pub(crate) async fn quit(env: Env, (): ()) -> Result<(), QmpError> {
    env.machine()?.quit().await
}
