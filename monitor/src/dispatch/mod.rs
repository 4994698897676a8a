//! From a request to its reply.
//!
//! Generic: it knows no sockets and no contexts, and of coroutines only that a command's kind must
//! fit its caller. A program that has no coroutines uses [`qmp_dispatch`] alone. Where each
//! command runs is the business of the session layer.

mod request;

#[cfg(test)]
mod tests;

pub use request::{BadRequest, Request};

use crate::error::{ErrorClass, QmpError};
use crate::registry::{Command, Handler, Kind, Registry, Value};
use crate::wire::{Mark, Style, Writer};

/// What handlers get besides the arguments, and what decides which commands are open now.
pub trait Environment: Sized {
    /// Refuses a command in the present mode. `command` is `None` for an unknown name; accepting
    /// that leads to the usual error.
    fn admit(&self, name: &str, command: Option<&Command<Self>>) -> Result<(), QmpError> {
        let _ = (name, command);
        Ok(())
    }
}

impl Environment for () {}

/// How the command of a request must be run; [`Kind::Plain`] for one that does not exist.
pub fn kind<E>(registry: &Registry<E>, request: &Request) -> Kind {
    registry.find(&request.command).map_or(Kind::Plain, Command::kind)
}

/// Runs a plain command and gives the reply, a whole message. Outside of coroutine context.
///
/// # Panics
/// When the command is a coroutine: a mistake of the caller.
pub fn qmp_dispatch<E: Environment>(
    registry: &Registry<E>,
    environment: &E,
    request: Request,
    style: Style,
) -> Vec<u8> {
    let mut reply = Reply::begin(style, request.id);
    let result =
        find(registry, environment, &request.command, request.oob).and_then(
            |command| match command.handler() {
                Handler::Plain { call, .. } => {
                    call(environment, request.arguments, &mut reply.writer)
                }
                Handler::Coroutine { .. } => {
                    panic!(
                        "the coroutine command '{}' was called outside of a coroutine",
                        command.name()
                    )
                }
            },
        );
    reply.end(result)
}

/// Runs a coroutine command and gives the reply, a whole message. In coroutine context, where the
/// handler may wait.
///
/// # Panics
/// When the command is a plain one: a mistake of the caller.
pub async fn qmp_dispatch_co<E: Environment + Clone>(
    registry: &Registry<E>,
    environment: &E,
    request: Request,
    style: Style,
) -> Vec<u8> {
    let Reply { writer, start, id } = Reply::begin(style, request.id);
    let (writer, result) = match find(registry, environment, &request.command, request.oob) {
        Err(error) => (writer, Err(error)),
        Ok(command) => match command.handler() {
            Handler::Coroutine { call } => {
                call(environment.clone(), request.arguments, writer).await
            }
            Handler::Plain { .. } => {
                panic!("the plain command '{}' was called in a coroutine", command.name())
            }
        },
    };
    Reply { writer, start, id }.end(result)
}

/// The reply to what is no request.
pub fn refuse(bad: BadRequest, style: Style) -> Vec<u8> {
    Reply::begin(style, bad.id).end(Err(bad.error))
}

fn find<'r, E: Environment>(
    registry: &'r Registry<E>,
    environment: &E,
    name: &str,
    oob: bool,
) -> Result<&'r Command<E>, QmpError> {
    let command = registry.find(name);
    environment.admit(name, command)?;
    let Some(command) = command else {
        let text = format!("The command {name} has not been found");
        return Err(QmpError::new(ErrorClass::CommandNotFound, text));
    };
    if oob && !command.allow_oob() {
        return Err(QmpError::generic(format!("The command {name} does not support OOB")));
    }
    Ok(command)
}

/// A reply being written. The value of `return` is written where it will stay; an error takes it
/// back.
struct Reply {
    writer: Writer,
    start: Mark,
    id: Option<Value>,
}

impl Reply {
    fn begin(style: Style, id: Option<Value>) -> Self {
        let mut writer = Writer::new(style);
        writer.begin_object();
        let start = writer.mark();
        writer.key("return");
        Self { writer, start, id }
    }

    fn end(mut self, result: Result<(), QmpError>) -> Vec<u8> {
        match result {
            Ok(()) => self.echo(),
            Err(error) => {
                self.writer.rewind(&self.start);
                self.echo();
                self.writer.key("error");
                error.write(&mut self.writer);
            }
        }
        self.writer.end_object();
        self.writer.into_message()
    }

    fn echo(&mut self) {
        if let Some(id) = &self.id {
            self.writer.key("id");
            self.writer.value(id);
        }
    }
}
