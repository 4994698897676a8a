//! A session over any stream of bytes.

use super::line::{Input, LineReader};
use super::run_line;
use crate::core::{Core, Env};
use reactor::{Fd, io};
use std::sync::Arc;

const PROMPT: &str = "(ringvisor) ";

/// Whether the session shows what is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The peer is a terminal in raw mode.
    On,
    /// The peer shows it itself, or is a program.
    Off,
}

/// A session of the human monitor: bytes in, bytes out. It edits no lines beyond backspace and
/// Ctrl-U, and keeps no history.
pub struct HmpSession {
    core: Arc<Core>,
    echo: Echo,
    reader: LineReader,
}

impl HmpSession {
    pub(crate) fn new(core: Arc<Core>, echo: Echo) -> Self {
        Self { core, echo, reader: LineReader::default() }
    }

    /// What is shown first.
    pub fn banner(&self) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION");
        let banner = format!("ringvisor {version} monitor - type 'help' for more information");
        format!("{banner}\r\n{PROMPT}").into_bytes()
    }

    /// Takes input and gives what is to be shown. Runs the complete lines in it one after the
    /// other; the caller stays in its context, whichever that is.
    pub async fn input(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        for &byte in bytes {
            let input = self.reader.take(byte);
            if self.echo == Echo::On {
                match &input {
                    Input::Echo(shown) => output.extend_from_slice(shown),
                    Input::EchoByte => output.push(byte),
                    Input::Line(_) => output.extend_from_slice(b"\r\n"),
                    Input::Abandoned => output.extend_from_slice(b"^C\r\n"),
                }
                if input == Input::Echo(b"\r\x1b[K") {
                    output.extend_from_slice(PROMPT.as_bytes());
                }
            }
            match input {
                Input::Line(line) => {
                    output.extend_from_slice(self.run(line).await.as_bytes());
                    output.extend_from_slice(PROMPT.as_bytes());
                }
                Input::Abandoned => output.extend_from_slice(PROMPT.as_bytes()),
                Input::Echo(_) | Input::EchoByte => {}
            }
        }
        output
    }

    /// Enters coroutine context for the line.
    async fn run(&self, line: String) -> String {
        let core = Arc::clone(&self.core);
        let task = self.core.reactors.main().spawn("hmp-command", async move {
            let _lane = core.coroutine_lane.lock().await;
            run_line(&Env::of_hmp(&core), &line).await
        });
        match task.await {
            Ok(output) => output,
            Err(error) => format!("Error: {error}\r\n"),
        }
    }

    /// Serves a socket until its end. In the monitor context.
    pub(crate) async fn serve(mut self, fd: Fd) {
        let (mut result, _) = io::send_all(&fd, self.banner()).await;
        let mut buffer = vec![0; 512];
        while result.is_ok() {
            let (received, back) = io::recv(&fd, buffer).await;
            buffer = back;
            let output = match received {
                Ok(0) => return,
                Ok(n) => self.input(buffer.get(..n).unwrap_or_default()).await,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            (result, _) = io::send_all(&fd, output).await;
        }
    }
}
