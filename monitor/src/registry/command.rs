//! What a command is.
//!
//! A command is declared once: name, documentation, a typed handler. The handler's argument and
//! return types carry their descriptions, so parsing, introspection and help come from there.

use super::qapi::{At, Members, Qapi, QapiStruct};
use super::types::{StructInfo, Type};
use crate::BoxFuture;
use crate::error::QmpError;
use crate::wire::Writer;
use std::marker::PhantomData;

pub(crate) type PlainCall<E> =
    Box<dyn Fn(&E, Members, &mut Writer) -> Result<(), QmpError> + Send + Sync>;
pub(crate) type CoroutineCall<E> = Box<
    dyn Fn(E, Members, Writer) -> BoxFuture<'static, (Writer, Result<(), QmpError>)> + Send + Sync,
>;

/// How a command runs. Only plain commands have a place to say that they may run out of band.
pub(crate) enum Handler<E> {
    Plain { call: PlainCall<E>, allow_oob: bool },
    Coroutine { call: CoroutineCall<E> },
}

/// How a command runs, without the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From start to end without waiting, outside of coroutine context.
    Plain,
    /// In coroutine context, where it may wait.
    Coroutine,
}

/// A command of an environment `E`: what the handlers get besides the arguments.
pub struct Command<E> {
    name: &'static str,
    doc: &'static str,
    arguments: &'static StructInfo,
    returns: Type,
    allow_preconfig: bool,
    features: &'static [&'static str],
    handler: Handler<E>,
}

impl<E> Command<E> {
    /// Declares a command that runs to its end without waiting.
    pub fn plain<A, R, F>(
        name: &'static str,
        doc: &'static str,
        handler: F,
    ) -> Declaration<E, markers::Plain>
    where
        A: QapiStruct + 'static,
        R: Qapi + 'static,
        F: Fn(&E, A) -> Result<R, QmpError> + Send + Sync + 'static,
    {
        let call: PlainCall<E> = Box::new(move |environment, members, writer| {
            let arguments = A::read_members(members, At::Root)?;
            handler(environment, arguments)?.write(writer);
            Ok(())
        });
        let handler = Handler::Plain { call, allow_oob: false };
        Declaration::new(name, doc, A::INFO, R::TYPE, handler)
    }

    /// Declares a command that may wait. What it looked up before an `.await` may be gone after it.
    pub fn coroutine<A, R, F, Fut>(
        name: &'static str,
        doc: &'static str,
        handler: F,
    ) -> Declaration<E, markers::Coroutine>
    where
        A: QapiStruct + 'static,
        R: Qapi + 'static,
        F: Fn(E, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, QmpError>> + Send + 'static,
    {
        let call: CoroutineCall<E> = Box::new(move |environment, members, mut writer| {
            let started =
                A::read_members(members, At::Root).map(|arguments| handler(environment, arguments));
            Box::pin(async move {
                let result = match started {
                    Ok(future) => future.await,
                    Err(error) => Err(error),
                };
                let result = result.map(|value| value.write(&mut writer));
                (writer, result)
            })
        });
        Declaration::new(name, doc, A::INFO, R::TYPE, Handler::Coroutine { call })
    }

    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The documentation.
    pub fn doc(&self) -> &'static str {
        self.doc
    }

    /// The description of the arguments.
    pub fn arguments(&self) -> &'static StructInfo {
        self.arguments
    }

    /// The description of what it returns.
    pub fn returns(&self) -> Type {
        self.returns
    }

    /// How it runs.
    pub fn kind(&self) -> Kind {
        match self.handler {
            Handler::Plain { .. } => Kind::Plain,
            Handler::Coroutine { .. } => Kind::Coroutine,
        }
    }

    /// Whether it may run out of band: at once, on the monitor's own context, never waiting.
    pub fn allow_oob(&self) -> bool {
        matches!(self.handler, Handler::Plain { allow_oob: true, .. })
    }

    /// Features that clients may ask for by name, such as `unstable`.
    pub fn features(&self) -> &'static [&'static str] {
        self.features
    }

    /// Whether it may run before the machine is configured.
    pub fn allow_preconfig(&self) -> bool {
        self.allow_preconfig
    }

    pub(crate) fn handler(&self) -> &Handler<E> {
        &self.handler
    }
}

/// The kinds of command as types, for [`Declaration`].
pub mod markers {
    /// A command that runs to its end.
    #[derive(Debug)]
    pub enum Plain {}
    /// A command that may wait.
    #[derive(Debug)]
    pub enum Coroutine {}
}

/// A command being declared; `K` is its kind. It becomes a [`Command`] when it is registered.
///
/// A coroutine command cannot be allowed out of band, where nothing may wait:
///
/// ```
/// # use monitor::registry::Command;
/// Command::<()>::plain("x-peek", "Looks.", |_: &(), (): ()| Ok(())).allow_oob();
/// ```
/// ```compile_fail,E0599
/// # use monitor::registry::Command;
/// Command::<()>::coroutine("x-wait", "Waits.", |(): (), (): ()| async { Ok(()) }).allow_oob();
/// ```
pub struct Declaration<E, K> {
    command: Command<E>,
    kind: PhantomData<K>,
}

impl<E, K> Declaration<E, K> {
    fn new(
        name: &'static str,
        doc: &'static str,
        arguments: &'static StructInfo,
        returns: Type,
        handler: Handler<E>,
    ) -> Self {
        let (allow_preconfig, features) = (false, &[][..]);
        let command = Command { name, doc, arguments, returns, allow_preconfig, features, handler };
        Self { command, kind: PhantomData }
    }

    /// The command has these features.
    #[must_use]
    pub fn features(mut self, features: &'static [&'static str]) -> Self {
        self.command.features = features;
        self
    }

    /// The command may run before the machine is configured.
    #[must_use]
    pub fn allow_preconfig(mut self) -> Self {
        self.command.allow_preconfig = true;
        self
    }
}

impl<E> Declaration<E, markers::Plain> {
    /// The command may run out of band: it ends fast, takes only locks held for a moment, makes no
    /// blocking call and touches no guest memory.
    #[must_use]
    pub fn allow_oob(mut self) -> Self {
        if let Handler::Plain { allow_oob, .. } = &mut self.command.handler {
            *allow_oob = true;
        }
        self
    }
}

impl<E, K> From<Declaration<E, K>> for Command<E> {
    fn from(declaration: Declaration<E, K>) -> Self {
        declaration.command
    }
}
