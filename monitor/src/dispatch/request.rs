//! The envelope of a command.

use crate::error::QmpError;
use crate::registry::{Members, Value};

/// A request that is well-formed; whether its command exists is another matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command's name.
    pub command: String,
    /// `exec-oob` rather than `execute`.
    pub oob: bool,
    /// The arguments.
    pub arguments: Members,
    /// What the reply must echo.
    pub id: Option<Value>,
}

/// A message that is no request.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRequest {
    /// What the reply must echo, if it could be found.
    pub id: Option<Value>,
    /// What is wrong.
    pub error: QmpError,
}

impl From<QmpError> for BadRequest {
    fn from(error: QmpError) -> Self {
        Self { id: None, error }
    }
}

impl Request {
    /// Takes a message apart. Where out-of-band execution has not been negotiated, `exec-oob` is a
    /// member like any other unknown one.
    pub fn parse(message: Value, oob_enabled: bool) -> Result<Self, BadRequest> {
        let Value::Object(mut members) = message else {
            return Err(QmpError::generic("QMP input must be a JSON object").into());
        };
        let id = members.shift_remove("id");
        match Self::from_members(members, oob_enabled) {
            Ok(request) => Ok(Self { id, ..request }),
            Err(error) => Err(BadRequest { id, error }),
        }
    }

    fn from_members(members: Members, oob_enabled: bool) -> Result<Self, QmpError> {
        let mut command: Option<(String, String)> = None;
        let mut arguments = Members::new();
        for (name, value) in members {
            let error = match (name.as_str(), value) {
                ("execute", Value::String(text)) if command.is_none() => {
                    command = Some((name, text));
                    continue;
                }
                ("exec-oob", Value::String(text)) if oob_enabled && command.is_none() => {
                    command = Some((name, text));
                    continue;
                }
                ("arguments", Value::Object(given)) => {
                    arguments = given;
                    continue;
                }
                ("arguments", _) => "must be an object".to_owned(),
                ("exec-oob", _) if !oob_enabled => "is unexpected".to_owned(),
                ("execute" | "exec-oob", Value::String(_)) => {
                    let other = command.map(|(member, _)| member).unwrap_or_default();
                    format!("clashes with '{other}'")
                }
                ("execute" | "exec-oob", _) => "must be a string".to_owned(),
                _ => "is unexpected".to_owned(),
            };
            return Err(QmpError::generic(format!("QMP input member '{name}' {error}")));
        }
        let Some((member, command)) = command else {
            return Err(QmpError::generic("QMP input lacks member 'execute'"));
        };
        Ok(Self { command, oob: member == "exec-oob", arguments, id: None })
    }
}
