//! `query-command-line-options`.

use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{Command, Registry};
use crate::{qapi_enum, qapi_struct};

qapi_enum! {
    /// What a parameter's value is.
    pub enum CommandLineParameterType {
        /// A text.
        String = "string",
        /// on or off.
        Boolean = "boolean",
        /// A number.
        Number = "number",
        /// A number of bytes, with a suffix or not.
        Size = "size",
    }
}

qapi_struct! {
    /// A parameter of an option.
    pub struct CommandLineParameterInfo {
        /// Its name.
        pub name: String = "name",
        /// What its value is.
        pub ty: CommandLineParameterType = "type",
        /// What it does.
        pub help: Option<String> = "help",
        /// What it is without the parameter.
        pub default: Option<String> = "default",
    }
}

qapi_struct! {
    /// An option of the command line.
    pub struct CommandLineOptionInfo {
        /// Its name, without the dash.
        pub option: String = "option",
        /// Its `key=value` parameters; none for a switch or a value of another form.
        pub parameters: Vec<CommandLineParameterInfo> = "parameters",
    }
}

qapi_struct! {
    /// What to tell.
    pub struct WhichOption {
        /// Only about this one.
        pub option: Option<String> = "option",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let query = Command::plain(
        "query-command-line-options",
        "The options of this program and their parameters.",
        query_command_line_options,
    );
    registry.add(query.allow_preconfig());
}

fn query_command_line_options(
    env: &Env,
    WhichOption { option }: WhichOption,
) -> Result<Vec<CommandLineOptionInfo>, QmpError> {
    let mut options = env.machine()?.command_line_options();
    if let Some(name) = option {
        options.retain(|known| known.option == name);
        if options.is_empty() {
            return Err(QmpError::generic(format!("invalid option name: {name}")));
        }
    }
    Ok(options)
}
