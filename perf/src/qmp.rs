//! A blocking QMP client that adds as little as it can to what it times.

use crate::Error;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a reply may take; far above what it does take.
const PATIENCE: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 << 10;

/// A negotiated session.
pub struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// What of the buffer was received and not yet handed out.
    unread: Range<usize>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Waits for the greeting on a connected socket.
    pub fn greeted(stream: UnixStream) -> Result<Self, Error> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(|e| Error::io("QMP socket", e))?;
        let buffer = vec![0; CHUNK];
        let mut qmp = Self { stream, buffer, unread: 0..0, events: VecDeque::new() };
        let line = qmp.line()?;
        if qmp.buffer[line.clone()].starts_with(b"{\"QMP\"") {
            Ok(qmp)
        } else {
            Err(qmp.surprise("a greeting", &line))
        }
    }

    /// Negotiates, with out-of-band commands.
    pub fn negotiate(&mut self) -> Result<(), Error> {
        self.call("qmp_capabilities", json!({"enable": ["oob"]})).map(drop)
    }

    /// Connects to a listening socket and negotiates.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let stream =
            UnixStream::connect(path).map_err(|e| Error::io(path.display().to_string(), e))?;
        let mut qmp = Self::greeted(stream)?;
        qmp.negotiate()?;
        Ok(qmp)
    }

    fn surprise(&self, wanted: &str, line: &Range<usize>) -> Error {
        let text = String::from_utf8_lossy(&self.buffer[line.clone()]);
        Error::unexpected(format!("QMP: {wanted} was expected, this came: {text:.300}"))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).map_err(|e| Error::io("QMP request", e))
    }

    /// Receives what there is, at least one byte.
    fn receive(&mut self) -> Result<(), Error> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        if self.unread.start > 0 && self.unread.end + CHUNK / 2 > self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.unread.end + CHUNK / 2 > self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let count = loop {
            match self.stream.read(&mut self.buffer[self.unread.end..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other.map_err(|e| Error::io("QMP reply", e))?,
            }
        };
        if count == 0 {
            return Err(Error::unexpected("QMP: the session was closed"));
        }
        self.unread.end += count;
        Ok(())
    }

    /// The next line, as a range of the buffer; valid until the next call.
    fn line(&mut self) -> Result<Range<usize>, Error> {
        let mut seen = 0;
        loop {
            let new = &self.buffer[self.unread.start + seen..self.unread.end];
            if let Some(at) = new.iter().position(|byte| *byte == b'\n') {
                let start = self.unread.start;
                self.unread.start += seen + at + 1;
                return Ok(start..self.unread.start);
            }
            seen = self.unread.len();
            self.receive()?;
        }
    }

    fn is_event(&self, line: &Range<usize>) -> bool {
        self.buffer[line.clone()].starts_with(b"{\"timestamp\"")
    }

    fn keep_event(&mut self, line: &Range<usize>) -> Result<(), Error> {
        let event = serde_json::from_slice(&self.buffer[line.clone()]);
        self.events.push_back(event.map_err(|e| Error::io("QMP event", e))?);
        Ok(())
    }

    /// Waits for the reply to what was sent, which must be a success. Events are kept.
    pub fn reply(&mut self) -> Result<(), Error> {
        let line = self.any_reply()?;
        if self.buffer[line.clone()].starts_with(b"{\"return\"") {
            Ok(())
        } else {
            Err(self.surprise("success", &line))
        }
    }

    /// Waits for a reply of either kind.
    fn any_reply(&mut self) -> Result<Range<usize>, Error> {
        loop {
            let line = self.line()?;
            if !self.is_event(&line) {
                return Ok(line);
            }
            self.keep_event(&line)?;
        }
    }

    /// Sends a finished request, which must succeed, and waits for its reply.
    pub fn exchange(&mut self, request: &[u8]) -> Result<(), Error> {
        self.send(request)?;
        self.reply()
    }

    /// Sends a finished request, which must fail, and waits for its reply.
    pub fn exchange_refused(&mut self, request: &[u8]) -> Result<(), Error> {
        self.send(request)?;
        let line = self.any_reply()?;
        if self.buffer[line.clone()].starts_with(b"{\"error\"") {
            Ok(())
        } else {
            Err(self.surprise("an error", &line))
        }
    }

    /// Sends the same request `count` times, `window` at once in flight.
    pub fn pipeline(&mut self, request: &[u8], count: usize, window: usize) -> Result<(), Error> {
        let many = request.repeat(window);
        let mut sent = window.min(count);
        self.send(&many[..sent * request.len()])?;
        let mut received = 0;
        while received < count {
            self.reply()?;
            let mut ready = 1;
            while self.buffer[self.unread.clone()].contains(&b'\n') {
                self.reply()?;
                ready += 1;
            }
            received += ready;
            let more = ready.min(count - sent);
            self.send(&many[..more * request.len()])?;
            sent += more;
        }
        Ok(())
    }

    /// Executes a command that must succeed.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        self.send(&request(command, arguments))?;
        let line = self.any_reply()?;
        let mut reply: Value = serde_json::from_slice(&self.buffer[line.clone()])
            .map_err(|e| Error::io(format!("reply to {command}"), e))?;
        match reply.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(self.surprise(&format!("success of {command}"), &line)),
        }
    }

    /// Waits for an event by name; those before it are dropped.
    pub fn wait_event(&mut self, name: &str) -> Result<(), Error> {
        self.wait_for(name, |_| true)
    }

    /// Waits for the `DEVICE_DELETED` of a device by its id; a device may be made of several, the others without one.
    pub fn wait_deleted(&mut self, id: &str) -> Result<(), Error> {
        self.wait_for("DEVICE_DELETED", |data| data["device"] == id)
    }

    fn wait_for(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<(), Error> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["event"] == name && wanted(&event["data"]) {
                    return Ok(());
                }
            }
            let line = self.line()?;
            if !self.is_event(&line) {
                return Err(self.surprise(&format!("the event {name}"), &line));
            }
            self.keep_event(&line)?;
        }
    }
}

/// A finished request: one line.
pub fn request(command: &str, arguments: Value) -> Vec<u8> {
    let mut request = json!({"execute": command});
    if !arguments.is_null() {
        request["arguments"] = arguments;
    }
    format!("{request}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    /// A server that says `greeting`, then answers each line with what `answer` makes of it.
    fn server(greeting: &'static str, answer: fn(&str) -> String) -> Qmp {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(theirs.try_clone().unwrap());
            let mut theirs = theirs;
            theirs.write_all(greeting.as_bytes()).unwrap();
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                if theirs.write_all(answer(&line).as_bytes()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Qmp::greeted(ours).unwrap()
    }

    const EVENT: &str = "{\"timestamp\": {}, \"event\": \"STOP\"}\r\n";

    const PART: &str = "{\"timestamp\": {}, \"event\": \"DEVICE_DELETED\", \"data\": {}}\r\n";
    const WHOLE: &str =
        "{\"timestamp\": {}, \"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"h\"}}\r\n";

    fn answer(line: &str) -> String {
        match line {
            _ if line.contains("bad") => "{\"error\": {\"desc\": \"no\"}}\r\n".to_owned(),
            _ if line.contains("big") => format!("{{\"return\": \"{}\"}}\r\n", "x".repeat(300_000)),
            _ if line.contains("del") => format!("{PART}{WHOLE}{{\"return\": {{}}}}\r\n"),
            _ if line.contains("stop") => format!("{EVENT}{{\"return\": {{}}}}\r\n"),
            _ => "{\"return\": {}}\r\n".to_owned(),
        }
    }

    #[test]
    fn replies_of_every_size_and_events_between_them() {
        let mut qmp = server("{\"QMP\": {}}\r\n", answer);
        qmp.negotiate().unwrap();
        assert_eq!(qmp.call("big", Value::Null).unwrap().as_str().unwrap().len(), 300_000);
        qmp.exchange(&request("stop", Value::Null)).unwrap();
        qmp.wait_event("STOP").unwrap();
        qmp.exchange(&request("del", Value::Null)).unwrap();
        qmp.wait_deleted("h").unwrap();
        assert!(qmp.events.is_empty(), "the one without an id came first");
        qmp.exchange_refused(&request("bad", Value::Null)).unwrap();
        assert!(qmp.exchange_refused(&request("good", Value::Null)).is_err());
        let error = qmp.exchange(&request("bad", Value::Null)).unwrap_err().to_string();
        assert!(error.contains("\"no\""), "{error}");
        for (count, window) in [(1, 64), (64, 64), (1000, 64), (7, 1)] {
            qmp.pipeline(&request("stop", Value::Null), count, window).unwrap();
            assert_eq!(qmp.events.len(), count);
            qmp.events.clear();
        }
    }

    #[test]
    fn a_stranger_is_no_qmp_server() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"SSH-2.0\r\n").unwrap();
        assert!(Qmp::greeted(ours).is_err());
    }
}
