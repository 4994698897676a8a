//! A connection to a QMP socket.

use super::arguments;
use super::schema::Schema;
use serde_json::{Map, Value, json};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// How long a server may take to greet and to negotiate.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the client ends.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not come to a reply; one line for the user.
    Trouble(String),
    /// The command failed.
    Command { class: String, text: String },
    /// What was to be printed could not be.
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { class, text } if class == "CommandNotFound" => {
                write!(f, "{text}; query-commands lists those there are")
            }
            Self::Trouble(text) | Self::Command { text, .. } => f.write_str(text),
            Self::Output(error) => write!(f, "stdout cannot be written to: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

pub(super) fn trouble(text: impl Into<String>) -> Failure {
    Failure::Trouble(text.into())
}

/// A command with its arguments.
#[derive(Debug, PartialEq)]
pub(super) struct Request(Value);

impl Request {
    /// From the words of a command line. `schema` is asked for where arguments need types.
    pub(super) fn parse<'s>(
        words: &[String],
        oob: bool,
        schema: impl FnOnce() -> Result<&'s Schema, Failure>,
    ) -> Result<Self, Failure> {
        let Some((command, rest)) = words.split_first() else {
            return Err(trouble("which command? query-commands lists those there are"));
        };
        let schema = if arguments::need_types(rest) { Some(schema()?) } else { None };
        let arguments = arguments::parse(command, rest, schema).map_err(trouble)?;
        Ok(Self::new(command, arguments, oob))
    }

    fn new(command: &str, arguments: Map<String, Value>, oob: bool) -> Self {
        let member = if oob { "exec-oob" } else { "execute" };
        let mut request = json!({ member: command });
        if !arguments.is_empty() {
            request["arguments"] = Value::Object(arguments);
        }
        Self(request)
    }

    /// A whole request in JSON.
    pub(super) fn json(text: &str) -> Result<Self, Failure> {
        let error = |error| trouble(format!("this is no JSON: {error}"));
        Ok(Self(serde_json::from_str(text).map_err(error)?))
    }
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn connect(name: &str) -> io::Result<Self> {
        if let Some(address) = name.strip_prefix("tcp:") {
            let stream = TcpStream::connect(address)?;
            // Requests are small and wanted at once.
            stream.set_nodelay(true)?;
            return Ok(Self::Tcp(stream));
        }
        let path = name.strip_prefix("unix:").unwrap_or(name);
        match path.strip_prefix('@') {
            Some(hidden) => {
                UnixStream::connect_addr(&SocketAddr::from_abstract_name(hidden)?).map(Self::Unix)
            }
            None => UnixStream::connect(path).map(Self::Unix),
        }
    }

    fn set_patience(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(limit),
            Self::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

fn cannot_connect(name: &str, error: &io::Error) -> String {
    let listen = match name.strip_prefix("tcp:") {
        Some(_) => name.to_owned(),
        None => format!("unix:{}", name.strip_prefix("unix:").unwrap_or(name)),
    };
    let advice = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("start a machine with -qmp {listen},server=on,wait=off")
        }
        io::ErrorKind::PermissionDenied => {
            "be the user who started the machine, or one of uids= of its -qmp option".to_owned()
        }
        io::ErrorKind::InvalidInput => "write PATH, @NAME or tcp:HOST:PORT".to_owned(),
        _ => "see: ringvisor qmp -help".to_owned(),
    };
    format!("cannot connect to {name}: {error}; {advice}")
}

/// A message of the server.
#[derive(Debug)]
pub(super) enum Message {
    Event(Value),
    Reply(Result<Value, Failure>),
}

/// The receiving side.
pub(super) struct Incoming {
    name: String,
    reader: BufReader<Socket>,
}

impl Incoming {
    /// Reads a line; `None` at the end. Layouts with several lines a message are not read.
    fn value(&mut self) -> Result<Option<Value>, Failure> {
        let (name, mut line) = (&self.name, String::new());
        let read = self.reader.read_line(&mut line).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => trouble(format!(
                "{name} does not answer; QEMU serves one client of a socket at a time"
            )),
            _ => trouble(format!("{name}: {error}")),
        })?;
        if read == 0 {
            return Ok(None);
        }
        let value = serde_json::from_str(&line).map_err(|_| {
            trouble(format!("{name} does not speak QMP: it says {:?}", line.trim()))
        })?;
        Ok(Some(value))
    }

    /// The next message; `None` at the end.
    pub(super) fn message(&mut self) -> Result<Option<Message>, Failure> {
        let Some(mut message) = self.value()? else { return Ok(None) };
        if message.get("event").is_some() {
            return Ok(Some(Message::Event(message)));
        }
        let reply = if let Some(value) = message.get_mut("return") {
            Ok(value.take())
        } else {
            let text = |member| message["error"][member].as_str().unwrap_or("?").to_owned();
            Err(Failure::Command { class: text("class"), text: text("desc") })
        };
        Ok(Some(Message::Reply(reply)))
    }

    fn ended(&self) -> Failure {
        trouble(format!("{} closed the connection: the machine has ended", self.name))
    }
}

/// The sending side.
pub(super) struct Outgoing {
    name: String,
    socket: Socket,
}

impl Outgoing {
    pub(super) fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let text = format!("{}\n", request.0);
        let failed = |error| trouble(format!("{}: {error}: the machine has ended", self.name));
        self.socket.send(text.as_bytes()).map_err(failed)
    }
}

/// A negotiated session.
pub(super) struct Connection {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    schema: Option<Schema>,
}

impl Connection {
    /// Connects and negotiates, out-of-band execution included where the server has it.
    pub(super) fn open(name: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| trouble(cannot_connect(name, &error));
        let socket = Socket::connect(name).map_err(failed)?;
        socket.set_patience(Some(PATIENCE)).map_err(failed)?;
        let reader = BufReader::new(socket.try_clone().map_err(failed)?);
        let mut connection = Self {
            incoming: Incoming { name: name.to_owned(), reader },
            outgoing: Outgoing { name: name.to_owned(), socket },
            schema: None,
        };
        let greeting = connection.incoming.value()?.ok_or_else(|| {
            trouble(format!("{name} closed the connection: this user may not use it"))
        })?;
        let Some(capabilities) = greeting["QMP"]["capabilities"].as_array() else {
            return Err(trouble(format!("{name} does not speak QMP: it says {greeting}")));
        };
        let mut arguments = Map::new();
        if capabilities.iter().any(|capability| capability == "oob") {
            arguments.insert("enable".to_owned(), json!(["oob"]));
        }
        let negotiate = Request::new("qmp_capabilities", arguments, false);
        connection.execute(&negotiate, |_| Ok(()))?;
        connection.outgoing.socket.set_patience(None).map_err(failed)?;
        Ok(connection)
    }

    /// Executes a command; events that come before its reply go to `on_event`.
    pub(super) fn execute(
        &mut self,
        request: &Request,
        mut on_event: impl FnMut(&Value) -> Result<(), Failure>,
    ) -> Result<Value, Failure> {
        self.outgoing.send(request)?;
        loop {
            match self.incoming.message()? {
                Some(Message::Reply(reply)) => return reply,
                Some(Message::Event(event)) => on_event(&event)?,
                None => return Err(self.incoming.ended()),
            }
        }
    }

    /// Waits for an event; `None` when the server has closed the connection.
    pub(super) fn next_event(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            match self.incoming.message()? {
                Some(Message::Event(event)) => return Ok(Some(event)),
                Some(Message::Reply(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// What the server's commands take. Asks for it once.
    pub(super) fn schema(&mut self) -> Result<&Schema, Failure> {
        if self.schema.is_none() {
            let query = Request::new("query-qmp-schema", Map::new(), false);
            let schema = Schema::new(self.execute(&query, |_| Ok(()))?);
            return Ok(self.schema.insert(schema));
        }
        self.schema.as_ref().ok_or_else(|| trouble("there is no schema"))
    }

    /// Takes the session apart, its schema included.
    pub(super) fn split(mut self) -> Result<(Incoming, Outgoing, Schema), Failure> {
        self.schema()?;
        let schema = self.schema.ok_or_else(|| trouble("there is no schema"))?;
        Ok((self.incoming, self.outgoing, schema))
    }
}
