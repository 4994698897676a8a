//! A small guest agent over stdin and stdout: commands without sockets, contexts or coroutines.
//!
//! `echo "{'execute': 'guest-ping'}" | cargo run -p monitor --example guest_agent`

use monitor::QmpError;
use monitor::dispatch::{BadRequest, Environment, Request, qmp_dispatch, refuse};
use monitor::qapi_struct;
use monitor::registry::{Command, Registry};
use monitor::wire::{Reader, Style};
use std::cell::Cell;
use std::io::{self, Read, Write};

/// What the commands act on.
#[derive(Default)]
struct Agent {
    pings: Cell<u64>,
}

impl Environment for Agent {}

qapi_struct! {
    /// A number to recognise the answer by.
    pub struct GuestSync {
        /// The number.
        pub id: i64 = "id",
    }
}

qapi_struct! {
    /// What the agent has done.
    pub struct GuestStats {
        /// Pings answered.
        pub pings: u64 = "pings",
    }
}

qapi_struct! {
    /// The name of the system.
    pub struct GuestHostName {
        /// The name.
        pub host_name: String = "host-name",
    }
}

fn registry() -> Registry<Agent> {
    let mut registry = Registry::new();
    registry.add(Command::plain("guest-ping", "Does nothing.", |agent: &Agent, (): ()| {
        agent.pings.set(agent.pings.get() + 1);
        Ok(())
    }));
    let sync = |_: &Agent, sync: GuestSync| Ok(sync.id);
    registry.add(Command::plain("guest-sync", "Gives the number back.", sync));
    registry.add(Command::plain("guest-stats", "What was done.", |agent: &Agent, (): ()| {
        Ok(GuestStats { pings: agent.pings.get() })
    }));
    registry.add(Command::plain("guest-get-host-name", "The system's name.", |_, (): ()| {
        let read = std::fs::read_to_string("/proc/sys/kernel/hostname");
        let name = read.map_err(|error| QmpError::generic(format!("the name: {error}")))?;
        Ok(GuestHostName { host_name: name.trim_end().to_owned() })
    }));
    registry
}

/// Answers requests until the end of `input`.
fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let (registry, agent) = (registry(), Agent::default());
    let mut reader = Reader::default();
    let mut buffer = [0; 512];
    loop {
        let received = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut bytes = buffer.get(..received).unwrap_or_default();
        while let Some(message) = reader.next(&mut bytes) {
            let request = match message {
                Ok(value) => Request::parse(value, false),
                Err(error) => Err(BadRequest::from(QmpError::generic(error.to_string()))),
            };
            let reply = match request {
                Ok(request) => qmp_dispatch(&registry, &agent, request, Style::Line),
                Err(bad) => refuse(bad, Style::Line),
            };
            output.write_all(&reply)?;
            output.flush()?;
        }
    }
}

fn main() -> io::Result<()> {
    serve(io::stdin().lock(), io::stdout().lock())
}

#[cfg(test)]
mod tests {
    use super::serve;

    fn answers(input: &str) -> Vec<String> {
        let mut output = Vec::new();
        serve(input.as_bytes(), &mut output).unwrap();
        String::from_utf8(output).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn requests_are_answered_in_their_order() {
        let input = "{'execute': 'guest-ping'}\n\
                     {'execute': 'guest-sync', 'arguments': {'id': 7}, 'id': 'x'}\
                     {'execute': 'guest-stats'}";
        let expected =
            [r#"{"return": {}}"#, r#"{"return": 7, "id": "x"}"#, r#"{"return": {"pings": 1}}"#];
        assert_eq!(answers(input), expected);
    }

    #[test]
    fn what_is_wrong_is_answered_and_the_agent_goes_on() {
        let answers = answers(
            "{'execute': 'guest-sync'}{'execute': 'guest-nap'}[1 2]\n{'execute': 'guest-ping'}",
        );
        assert!(answers[0].contains("Parameter 'id' is missing"), "{answers:?}");
        assert!(answers[1].contains("\"class\": \"CommandNotFound\""), "{answers:?}");
        assert!(answers[2].contains("GenericError"), "{answers:?}");
        assert_eq!(answers.last().unwrap(), r#"{"return": {}}"#);
    }
}
