//! The monitor itself: negotiation, what there is, and HMP inside of QMP.

use crate::core::Env;
use crate::error::QmpError;
use crate::hmp;
use crate::registry::{Command, Registry};
use crate::{qapi_enum, qapi_struct};

qapi_enum! {
    /// What a client can switch on.
    pub enum QmpCapability {
        /// `exec-oob`: commands that overtake others.
        Oob = "oob",
    }
}

qapi_struct! {
    /// What the client wants.
    pub struct Capabilities {
        /// Capabilities to switch on.
        pub enable: Option<Vec<QmpCapability>> = "enable",
    }
}

qapi_struct! {
    /// A command.
    pub struct CommandInfo {
        /// Its name.
        pub name: String = "name",
    }
}

qapi_struct! {
    /// A line for the human monitor.
    pub struct HumanMonitorCommand {
        /// The line.
        pub command_line: String = "command-line",
        /// The CPU that the line is about, where it is about one.
        pub cpu_index: Option<i64> = "cpu-index",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let negotiate = Command::plain(
        "qmp_capabilities",
        "Ends the negotiation; before it no other command is accepted, after it this one is not.",
        qmp_capabilities,
    );
    registry.add(negotiate.allow_preconfig());
    let query = Command::plain("query-commands", "All commands.", query_commands);
    registry.add(query.allow_preconfig());
    registry.add(Command::coroutine(
        "human-monitor-command",
        "Runs a line of the human monitor and gives its output. Errors are part of the output.",
        human_monitor_command,
    ));
}

fn qmp_capabilities(env: &Env, wanted: Capabilities) -> Result<(), QmpError> {
    let oob = wanted.enable.is_some_and(|enable| enable.contains(&QmpCapability::Oob));
    if let Some(session) = &env.session {
        session.negotiate(oob);
    }
    Ok(())
}

pub(crate) fn query_commands(env: &Env, (): ()) -> Result<Vec<CommandInfo>, QmpError> {
    let commands = env.core.registry.iter();
    Ok(commands.map(|command| CommandInfo { name: command.name().to_owned() }).collect())
}

async fn human_monitor_command(env: Env, asked: HumanMonitorCommand) -> Result<String, QmpError> {
    if asked.cpu_index.is_some_and(|index| index != 0) {
        return Err(QmpError::generic("Parameter 'cpu-index' expects a CPU number"));
    }
    Ok(hmp::run_line(&Env::of_hmp(&env.core), &asked.command_line).await)
}
