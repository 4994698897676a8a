//! A real QEMU to compare with, where there is one.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

pub(super) struct Qemu {
    child: Child,
    replies: BufReader<std::process::ChildStdout>,
}

impl Qemu {
    /// Starts one without a machine. `None`: it is not installed.
    pub(super) fn start() -> Option<Self> {
        let arguments = ["-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"];
        let mut child = Command::new("qemu-system-x86_64")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let replies = BufReader::new(child.stdout.take().unwrap());
        let mut qemu = Self { child, replies };
        assert!(qemu.message().get("QMP").is_some());
        qemu.run("qmp_capabilities");
        Some(qemu)
    }

    fn message(&mut self) -> Value {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Runs a command without arguments and gives what it returns.
    pub(super) fn run(&mut self, command: &str) -> Value {
        let mut reply = self.ask(&json!({"execute": command}));
        assert!(reply.get("return").is_some(), "{command}: {reply}");
        reply["return"].take()
    }

    /// Sends a request and gives the reply.
    pub(super) fn ask(&mut self, request: &Value) -> Value {
        let text = request.to_string();
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        loop {
            let message = self.message();
            if message.get("event").is_none() {
                return message;
            }
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
