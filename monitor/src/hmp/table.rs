//! The commands of the human monitor.

use super::info;
use crate::BoxFuture;
use crate::commands::run_state;
use crate::core::Env;
use crate::error::QmpError;
use std::fmt::Write as _;

/// Runs with the rest of the line and gives text whose lines end in `\n`.
pub(super) type Run = for<'a> fn(&'a Env, &'a str) -> BoxFuture<'a, Result<String, QmpError>>;

/// A command.
pub(super) struct HmpCommand {
    /// The name and its abbreviations, separated by `|`.
    pub(super) names: &'static str,
    /// How its arguments are written, for the help; empty where there are none.
    pub(super) params: &'static str,
    /// What it does.
    pub(super) help: &'static str,
    pub(super) run: Run,
}

impl HmpCommand {
    fn is_called(&self, name: &str) -> bool {
        self.names.split('|').any(|own| own == name)
    }

    fn help_line(&self, prefix: &str) -> String {
        format!("{prefix}{} {} -- {}\n", self.names, self.params, self.help)
    }
}

const COMMANDS: &[HmpCommand] = &[
    HmpCommand {
        names: "cont|c",
        params: "",
        help: "resume emulation",
        run: |env, _| quietly(run_state::cont(env.clone(), ())),
    },
    HmpCommand {
        names: "exit_preconfig",
        params: "",
        help: "exit the preconfig state",
        run: |env, _| quietly(std::future::ready(run_state::x_exit_preconfig(env, ()))),
    },
    HmpCommand {
        names: "help|?",
        params: "[cmd]",
        help: "show the help",
        run: |_, rest| Box::pin(async move { Ok(help(rest)) }),
    },
    HmpCommand {
        names: "info",
        params: "[subcommand]",
        help: "show various information about the system state",
        run: |env, rest| Box::pin(run_info(env, rest)),
    },
    HmpCommand {
        names: "quit|q",
        params: "",
        help: "quit the emulator",
        run: |env, _| quietly(run_state::quit(env.clone(), ())),
    },
    HmpCommand {
        names: "stop|s",
        params: "",
        help: "stop emulation",
        run: |env, _| quietly(run_state::stop(env.clone(), ())),
    },
    HmpCommand {
        names: "system_powerdown",
        params: "",
        help: "send system power down event",
        run: |env, _| quietly(run_state::system_powerdown(env.clone(), ())),
    },
    HmpCommand {
        names: "system_reset",
        params: "",
        help: "reset the system",
        run: |env, _| quietly(run_state::system_reset(env.clone(), ())),
    },
    HmpCommand {
        names: "system_wakeup",
        params: "",
        help: "wakeup guest from suspend",
        run: |env, _| quietly(run_state::system_wakeup(env.clone(), ())),
    },
];

/// A command that says nothing when it succeeds.
fn quietly<'a>(
    command: impl Future<Output = Result<(), QmpError>> + Send + 'a,
) -> BoxFuture<'a, Result<String, QmpError>> {
    Box::pin(async move { command.await.map(|()| String::new()) })
}

/// Runs one line.
pub(super) async fn run(env: &Env, line: &str) -> String {
    let (name, rest) = split(line);
    if name.is_empty() {
        return String::new();
    }
    match COMMANDS.iter().find(|command| command.is_called(name)) {
        Some(command) => call(command, env, rest, name).await,
        None => format!("unknown command: '{name}'\n"),
    }
}

/// Runs a command, or says that it takes no arguments. `asked` is how to ask for its help.
async fn call(command: &HmpCommand, env: &Env, rest: &str, asked: &str) -> String {
    if command.params.is_empty() && !rest.is_empty() {
        let names = command.names;
        return format!(
            "{names}: extraneous characters at the end of line\n\
             Try \"help {asked}\" for more information\n"
        );
    }
    match (command.run)(env, rest).await {
        Ok(text) => text,
        Err(error) => format!("Error: {error}\n"),
    }
}

async fn run_info(env: &Env, rest: &str) -> Result<String, QmpError> {
    let (name, rest) = split(rest);
    if name.is_empty() {
        return Ok(help("info"));
    }
    Ok(match info::COMMANDS.iter().find(|command| command.is_called(name)) {
        Some(command) => call(command, env, rest, &format!("info {name}")).await,
        None => format!("unknown command: 'info {name}'\n"),
    })
}

fn help(rest: &str) -> String {
    let (name, sub) = split(rest);
    let lines = |commands: &[HmpCommand], prefix: &str| {
        commands.iter().fold(String::new(), |mut text, command| {
            let _ = text.write_str(&command.help_line(prefix));
            text
        })
    };
    match (name, sub) {
        ("", _) => lines(COMMANDS, ""),
        ("info", "") => lines(info::COMMANDS, "info "),
        ("info", sub) => match info::COMMANDS.iter().find(|command| command.is_called(sub)) {
            Some(command) => command.help_line("info "),
            None => format!("unknown command: 'info {sub}'\n"),
        },
        (name, _) => match COMMANDS.iter().find(|command| command.is_called(name)) {
            Some(command) => command.help_line(""),
            None => format!("unknown command: '{name}'\n"),
        },
    }
}

/// The first word and the rest, without the white space around them.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}
