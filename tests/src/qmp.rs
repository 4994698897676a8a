//! A QMP client that waits.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a reply or event may take, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A negotiated session.
pub struct Qmp {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    greeting: Value,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects, reads the greeting and negotiates.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::on(UnixStream::connect(path)?)
    }

    /// Reads the greeting on a connected socket and negotiates.
    pub fn on(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Self { stream, reader, greeting: Value::Null, events: VecDeque::new() };
        qmp.greeting = qmp.read()?;
        qmp.send(&json!({"execute": "qmp_capabilities"}))?;
        qmp.read()?;
        Ok(qmp)
    }

    /// How long a reply or event may take from now on.
    ///
    /// # Panics
    /// When the session is gone.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("the session is there");
    }

    /// What the server said first.
    pub fn greeting(&self) -> &Value {
        &self.greeting
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    fn send(&mut self, request: &Value) -> io::Result<()> {
        self.stream.write_all(format!("{request}\n").as_bytes())
    }

    /// Executes a command; the reply is `{"return": ...}` or `{"error": ...}`. Events that come before it are kept.
    ///
    /// # Panics
    /// When the session breaks.
    pub fn execute_raw(&mut self, command: &str, arguments: Value) -> Value {
        let mut request = json!({"execute": command});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        self.send(&request).expect("the session takes a request");
        loop {
            let message = self.read().unwrap_or_else(|error| panic!("reply to {command}: {error}"));
            if message.get("event").is_none() {
                return message;
            }
            self.events.push_back(message);
        }
    }

    /// Executes a command that must succeed; returns its result.
    ///
    /// # Panics
    /// When it fails.
    pub fn execute(&mut self, command: &str) -> Value {
        self.execute_with(command, Value::Null)
    }

    /// As [`Qmp::execute`], with arguments.
    ///
    /// # Panics
    /// When it fails.
    pub fn execute_with(&mut self, command: &str, arguments: Value) -> Value {
        let mut reply = self.execute_raw(command, arguments);
        assert!(reply.get("error").is_none(), "{command}: {reply}");
        reply["return"].take()
    }

    /// Waits for an event by name; those that come before it are dropped.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_event(&mut self, name: &str) -> Value {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.read().unwrap_or_else(|error| panic!("waiting for {name}: {error}")),
            };
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Waits for the server to close the session; returns the events that came before.
    pub fn until_closed(mut self) -> Vec<Value> {
        let mut events: Vec<Value> = self.events.drain(..).collect();
        while let Ok(message) = self.read() {
            events.push(message);
        }
        events
    }
}
