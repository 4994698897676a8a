//! `ringvisor qmp`: a client of QMP sockets, for scripts and people.
//!
//! | what | where |
//! |---|---|
//! | its command line | here |
//! | connecting, requests, replies, events | `connection` |
//! | what commands there are and what they take | `schema` |
//! | `key=value` into arguments | `arguments` |
//! | replies and events as text | `output` |
//! | many commands from a terminal or a file | `session` |
//!
//! It blocks, as a client may: no reactor, no machine.

mod arguments;
mod connection;
mod output;
mod schema;
mod session;

use connection::{Connection, Failure, Request};
use output::Format;
use std::ffi::OsString;
use std::io::IsTerminal;

/// What `-help` prints.
pub(crate) const HELP: &str = "\
usage: ringvisor qmp [options] SOCKET [COMMAND [ARGUMENTS]]

SOCKET is a path, unix:PATH, @NAME (abstract) or tcp:HOST:PORT; of ringvisor or of QEMU.
ARGUMENTS are key=value (typed by the schema; a.b=value for members of members),
key:=JSON, or one JSON object. Without COMMAND: lines of COMMAND ARGUMENTS are read
from stdin; a terminal has completion (Tab) and history, and help or help COMMAND.

--json    JSON replies (default where stdout is no terminal)
--table   tables (default on a terminal)
--events  print events with their time as they come, after COMMAND if there is one,
          until the machine ends
--oob     run COMMAND out of band
-help     print this

The exit status is 1 when a command fails; its error is on stderr then.

Try: ringvisor qmp /run/x.qmp query-status
     ringvisor qmp /run/x.qmp human-monitor-command command-line='info pci'
     ringvisor qmp /run/x.qmp --events
";

/// What the user wants.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    socket: String,
    command: Vec<String>,
    format: Option<Format>,
    events: bool,
    oob: bool,
    help: bool,
}

/// Runs the client. The error is one line for the user.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> Result<u8, String> {
    let options = parse(args)?;
    if options.help {
        print!("{HELP}");
        return Ok(0);
    }
    match act(&options) {
        Ok(()) => Ok(0),
        // A reader such as head(1) has had enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(failure) => Err(failure.to_string()),
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = Vec::new();
    for arg in args {
        let arg =
            arg.into_string().map_err(|arg| format!("{} is not valid UTF-8", arg.display()))?;
        match arg.as_str() {
            "-h" | "-help" | "--help" => options.help = true,
            "--json" => options.format = Some(Format::Json),
            "--table" => options.format = Some(Format::Table),
            "--events" => options.events = true,
            "--oob" => options.oob = true,
            other if other.starts_with('-') => {
                return Err(format!("there is no option {other}; see: ringvisor qmp -help"));
            }
            _ => rest.push(arg),
        }
    }
    let mut rest = rest.into_iter();
    match rest.next() {
        Some(socket) => options.socket = socket,
        None if options.help => {}
        None => return Err("which socket? see: ringvisor qmp -help".to_owned()),
    }
    options.command = rest.collect();
    if options.oob && options.command.is_empty() {
        return Err("--oob needs a COMMAND; see: ringvisor qmp -help".to_owned());
    }
    Ok(options)
}

fn act(options: &Options) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    let default = if terminal { Format::Table } else { Format::Json };
    let format = options.format.unwrap_or(default);
    let mut connection = Connection::open(&options.socket)?;
    if options.command.is_empty() && !options.events {
        return session::run(connection, format);
    }
    if !options.command.is_empty() {
        let request = Request::parse(&options.command, options.oob, || connection.schema())?;
        let on_event = |event: &serde_json::Value| {
            if options.events { output::event(event, format) } else { Ok(()) }
        };
        let value = connection.execute(&request, on_event)?;
        output::value(&value, format)?;
    }
    if options.events {
        while let Some(event) = connection.next_event()? {
            output::event(&event, format)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Format, Options, parse};
    use std::ffi::OsString;

    fn parsed(args: &[&str]) -> Result<Options, String> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn options_may_stand_anywhere() {
        let options = parsed(&["--oob", "x.qmp", "stop", "--json", "a=1"]).unwrap();
        assert_eq!((options.socket.as_str(), options.oob), ("x.qmp", true));
        assert_eq!(options.command, ["stop", "a=1"]);
        assert_eq!(options.format, Some(Format::Json));
        assert!(parsed(&["-help"]).unwrap().help);
    }

    #[test]
    fn mistakes_say_where_help_is() {
        for args in [&[][..], &["--jsno", "x"], &["--oob", "x"]] {
            assert!(parsed(args).unwrap_err().contains("ringvisor qmp -help"));
        }
    }
}
