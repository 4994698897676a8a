//! A blocking QMP client.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub(super) struct Client {
    pub(super) stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects; the greeting has not been read.
    pub(super) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        // A test that would hang fails.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// Connects and negotiates, out-of-band execution included.
    pub(super) fn negotiated(path: &Path) -> Self {
        let mut client = Self::connect(path);
        assert!(client.line().starts_with("{\"QMP\": "));
        let enable = json!({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}});
        assert_eq!(client.ask(&enable), json!({"return": {}}));
        client
    }

    pub(super) fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).unwrap();
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "{line:?} is no whole line");
        line.truncate(line.len() - 2);
        line
    }

    pub(super) fn message(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    pub(super) fn ask(&mut self, request: &Value) -> Value {
        self.send(request.to_string());
        self.message()
    }

    /// Runs a command without arguments and gives what it returns.
    pub(super) fn run(&mut self, command: &str) -> Value {
        let mut reply = self.ask(&json!({"execute": command}));
        assert!(reply.get("return").is_some(), "{command}: {reply}");
        reply["return"].take()
    }

    /// Runs a command out of band.
    pub(super) fn oob(&mut self, command: &str) -> Value {
        let mut reply = self.ask(&json!({"exec-oob": command}));
        assert!(reply.get("return").is_some(), "{command}: {reply}");
        reply["return"].take()
    }

    pub(super) fn error(&mut self, request: &Value) -> (String, String) {
        let reply = self.ask(request);
        let text = |member: &str| reply["error"][member].as_str().unwrap().to_owned();
        (text("class"), text("desc"))
    }

    /// Sends no more, and gives everything that still comes.
    pub(super) fn finish(mut self) -> String {
        self.stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).unwrap();
        rest
    }
}
